"""Training step of a forecaster."""

from typing import Any

import torch

from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group
from neurobridge_tb.engine.run_log.weighted_mean import WeightedMean
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.models.neurohorizon import ROLLED_OUT


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
        self.model: NeuroHorizonModel = model
        self.lr, self.weight_decay = lr, weight_decay
        self.unit_dropout, self.rate_jitter = unit_dropout, rate_jitter
        self.valid_loss = WeightedMean()

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self.model.training_loss(
            batch, rolled_out=self._rolled_out(batch), unit_dropout=self.unit_dropout, rate_jitter=self.rate_jitter
        )
        cells: Any = batch["target_mask"].sum()
        self.finite.note(loss, batch["target_values"], batch)
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=cells, sync_dist=True)
        return self.over_processes(loss, cells)

    def _rolled_out(self, batch: dict) -> torch.Tensor:
        """(B,) windows that are rolled out, as one process would draw them for the windows of all."""
        processes, windows = self.trainer.world_size, len(batch["session_id"])
        generator = torch.Generator().manual_seed(self.trainer.global_step)  # on the CPU: no device is waited for
        drawn = torch.rand(processes * windows, generator=generator) < ROLLED_OUT
        return drawn[self.trainer.global_rank :: processes]

    def validation_step(self, batch: dict, batch_index: int) -> None:
        log_rates = self.model.generate(**batch["model_inputs"])
        self.valid_loss.update(self.model.loss(log_rates, batch), weight=batch["target_mask"].sum())

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.valid_loss, prog_bar=True)

    def compile_networks(self) -> None:
        encoder: Any = self.model.encoder
        encoder.encode = torch.compile(encoder.encode, dynamic=True)
        self.model.decoder.compile(dynamic=True)

    def configure_optimizers(self) -> Any:
        return self.adamw(Group(self.model.named_parameters(), self.lr), weight_decay=self.weight_decay)
