"""Training step of a forecaster."""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric

from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group, adamw_with_warmup
from neurobridge_tb.models import NeuroHorizonModel


class ForecastModule(WindowModule):
    """Forecasting: a quarter of the training windows is rolled out, and all of the validation.

    Args:
        model: The model to train.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        unit_dropout: See :meth:`NeuroHorizonModel.training_loss`.
        rate_jitter.
    """

    def __init__(
        self, model: NeuroHorizonModel, *, lr: float, weight_decay: float, unit_dropout: float, rate_jitter: float
    ):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model, self.lr, self.weight_decay = model, lr, weight_decay
        self.unit_dropout, self.rate_jitter = unit_dropout, rate_jitter
        self.valid_loss = MeanMetric(nan_strategy="disable")  # to look for NaN would wait for the device
        # Buffers are constants. Were they broadcast, processes with fewer validation batches would be waited for.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [n for n, _ in self.named_buffers()])

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self.model.training_loss(batch, unit_dropout=self.unit_dropout, rate_jitter=self.rate_jitter)
        size = len(batch["session_id"])
        self.finite.note(loss, batch["target_values"], batch)
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: dict, batch_index: int) -> None:
        log_rates = self.model.generate(**batch["model_inputs"])
        self.valid_loss.update(self.model.loss(log_rates, batch), weight=batch["target_mask"].sum())

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.valid_loss, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw_with_warmup(
            Group(self.model.named_parameters(), self.lr),
            weight_decay=self.weight_decay,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; upstream's embeddings empty the vocabularies that they are given, so they are given copies."""
        copied = {name: x.copy() if name.endswith(".vocab") else x for name, x in state_dict.items()}
        return super().load_state_dict(copied, *args, **kwargs)
