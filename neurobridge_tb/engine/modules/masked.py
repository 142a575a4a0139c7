"""Training step of masked modelling."""

from collections.abc import Callable
from typing import Any

import torch

from neurobridge_tb.data.image_targets import ImageTargets
from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group, factors_apart
from neurobridge_tb.engine.run_log.weighted_mean import WeightedMean
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
        unit_weights: How much units count in training, see :meth:`NeuroBridgeModel.masked_losses`; validation is
            never weighted. Default: all alike.
        images: What training windows show. Default: no term of the loss is about images.
        image_weight: Weight of that term: 1 less the cosine of a linear read-out of the mean latent and the embedding.
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
        unit_weights: torch.Tensor | None = None,
        images: ImageTargets | None = None,
        image_weight: float = 0.0,
        groups: Callable[[int], list[Group]] | None = None,
    ):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model: NeuroBridgeModel = model
        self.weight_decay, self.schemes = weight_decay, schemes
        self.groups = groups or (lambda total_steps: factors_apart(model.named_parameters(), lr, factor_lr))
        self.register_buffer("unit_weights", unit_weights)  # of the start; a run that goes on takes them from there
        self.images, self.image_weight, self.image_lr = images, image_weight, lr
        self.image_readout = None if images is None else torch.nn.Linear(model.dim, images.dim)
        several = model.modalities if len(model.modalities) > 1 else ()
        self.train_losses: Any = torch.nn.ModuleDict({m: WeightedMean() for m in several})
        self.valid_losses: Any = torch.nn.ModuleList(WeightedMean() for _ in schemes)

    unit_weights: torch.Tensor | None

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        image_loss: torch.Tensor | float = 0.0
        if self.image_readout is None:
            output = self.model(**batch["model_inputs"])
        else:
            output, image_loss = self._with_images(batch)
        losses = self.model.masked_losses(output, batch, self.unit_weights)
        loss = mean_loss(losses) + self.image_weight * image_loss
        self.finite.note(loss, output, batch)
        for modality in losses.keys() & self.train_losses.keys():
            self.train_losses[modality].update(losses[modality][0].detach(), weight=losses[modality][1])
        cells: Any = sum(n for _, n in losses.values())
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=cells, sync_dist=True)
        return self.over_processes(loss, cells)

    def _with_images(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Predictions, and one less the cosine to the image shown, a mean over the windows that show one."""
        assert self.images is not None and self.image_readout is not None
        inputs = batch["model_inputs"]
        factors = None if self.model.factors is None else self.model.infer_factors(**inputs)
        latents = self.model.encode(**inputs, factors=factors)
        embedding, known = (x.to(latents.device) for x in self.images(batch["session_id"], batch["absolute_start"]))
        cosine = torch.nn.functional.cosine_similarity(self.image_readout(latents.mean(1)), embedding, dim=-1)
        loss = ((1 - cosine) * known).sum() / known.sum().clamp_min(1)
        self.log("train/image", loss, on_step=False, on_epoch=True, batch_size=len(known), sync_dist=True)
        return self.model.decode(latents, **inputs, factors=factors), loss

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
        if self.image_readout is not None:
            groups = [*groups, Group(self.image_readout.named_parameters(), self.image_lr)]
        return self.adamw(*groups, weight_decay=self.weight_decay)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Parameters whose training has not begun are left out of gradient clipping and of AdamW's moments."""
        for group in optimizer.param_groups:
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None
