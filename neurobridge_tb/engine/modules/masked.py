"""Training step of masked modelling."""

from collections.abc import Callable
from typing import Any

import torch

from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group, factors_apart
from neurobridge_tb.engine.weighted_mean import WeightedMean
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.neurobridge import mean_loss


class PretrainingModule(WindowModule):
    """Masked modelling: the loss is the modality's, on masked cells alone.

    Every parameter gets a gradient in every step, so several processes have none to look for.

    Args:
        model: The model to train.
        lr: Highest learning rate.
        factor_lr: That of the factor model's rows.
        weight_decay: AdamW's weight decay.
        schemes: Names of the validation loaders, in order.
        groups: What is trained, and from when, given the steps of the whole training. Default: all from the start.
    """

    def __init__(
        self,
        model: NeuroBridgeModel,
        *,
        lr: float,
        factor_lr: float,
        weight_decay: float,
        schemes: list[str],
        groups: Callable[[int], list[Group]] | None = None,
    ):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model: NeuroBridgeModel = model
        self.weight_decay, self.schemes = weight_decay, schemes
        self.groups = groups or (lambda total_steps: factors_apart(model.named_parameters(), lr, factor_lr))
        several = model.modalities if len(model.modalities) > 1 else ()
        self.train_losses: Any = torch.nn.ModuleDict({m: WeightedMean() for m in several})
        self.valid_losses: Any = torch.nn.ModuleList(WeightedMean() for _ in schemes)

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        output = self.model(**batch["model_inputs"])
        losses = self.model.masked_losses(output, batch)
        loss = mean_loss(losses)
        self.finite.note(loss, output, batch)
        for modality in losses.keys() & self.train_losses.keys():
            self.train_losses[modality].update(losses[modality][0].detach(), weight=losses[modality][1])
        cells: Any = sum(n for _, n in losses.values())
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=cells, sync_dist=True)
        return self.over_processes(loss, cells)

    def on_train_epoch_end(self) -> None:
        for modality, metric in self.train_losses.items():
            self.log(f"train/loss/{modality}", metric.compute())
            metric.reset()

    def validation_step(self, batch: dict, batch_index: int, dataloader_idx: int = 0) -> None:
        losses = self.model.masked_losses(self.model(**batch["model_inputs"]), batch)
        self.valid_losses[dataloader_idx].update(mean_loss(losses), weight=sum(n for _, n in losses.values()))

    def on_validation_epoch_end(self) -> None:
        losses = torch.stack([metric.compute() for metric in self.valid_losses])
        for name, loss, metric in zip(self.schemes, losses, self.valid_losses, strict=True):
            self.log(f"val/loss/{name}", loss)
            metric.reset()
        self.log("val/loss", losses.mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        groups = self.groups(int(self.trainer.estimated_stepping_batches))
        return self.adamw(*groups, weight_decay=self.weight_decay)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Parameters whose training has not begun are left out of gradient clipping and of AdamW's moments."""
        for group in optimizer.param_groups:
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None
