"""Training step of the alignment: a contrastive loss and regression to the image embedding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neurobridge_tb.alignment.losses import Temperature, info_nce, regression_loss
from neurobridge_tb.configs.align import AlignConfig
from neurobridge_tb.data import augment
from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group
from neurobridge_tb.metrics.retrieval import cosine_similarity, topk_hits
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.models.neurobridge import mean_loss


class AlignmentModule(WindowModule):
    """A contrastive loss and regression to the image embedding.

    Stage 1: the encoder is frozen. Stage 2: its last layers are free. That they do not forget what pretraining taught
    them, the masked loss is replayed, or they are held near their pretrained weights (L2-SP, Li et al. 2018,
    https://arxiv.org/abs/1802.01483). The best epoch on the validation pairs is exported, so far in stage 1 and in all;
    the model as it was before training is one of the candidates.

    The contrastive loss is over the pairs of all processes. Each validates on all pairs.

    Args:
        model: Encoder, linear read-out and projector.
        config: The job's settings.
        masked: Masked training windows, for replay.
        stages: Folders to which the model is exported after stage 1 and stage 2.
    """

    def __init__(self, model: ImageAligner, config: AlignConfig, masked: DataLoader, stages: tuple[Path, Path]):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model: ImageAligner = model
        self.config, self.stages = config, stages
        self.temperature = Temperature()
        self.model.encoder.requires_grad_(False)
        if self.model.linear is not None:  # both stay at their closed form
            self.model.linear.requires_grad_(False)
            self.model.to_contrastive.requires_grad_(False)
        layers = self.model.encoder.proc_layers
        self.free_layers = layers[max(0, len(layers) - config.stage2.free_layers) :]
        self.free_layers.requires_grad_(True)
        self.pretrained = [p.detach().clone() for p in self.free_layers.parameters()]
        self.masked = masked
        self._replay: Iterator[dict] = iter(())
        self._validated: list[tuple[Tensor, Tensor]] = []  # read when all are there: it would wait for each
        self.best = [float("inf"), float("inf")]  # validation loss of the exported epoch of each stage

    @property
    def in_stage2(self) -> bool:
        """Whether the encoder's last layers are trained in this epoch."""
        return self.current_epoch >= self.config.stage1.epochs

    def on_train_epoch_start(self) -> None:
        self.model.encoder.train(self.in_stage2)
        self.free_layers.requires_grad_(self.in_stage2)
        self._replay = iter(())
        if self.current_epoch == self.config.stage1.epochs > 0:  # stage 2 goes on from the best of stage 1
            self.model.load_state_dict(ImageAligner.load_pretrained(self.stages[0]).state_dict())
            self.best[1] = self.best[0]
            if self.trainer.is_global_zero:
                self.model.save_pretrained(self.stages[1])

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        inputs, linear = self._augmented(batch)
        loss = self._pair_loss(batch, "train", *self.model(linear=linear, **inputs))
        if self.in_stage2:
            loss = loss + self._against_forgetting(len(batch["image_id"]))
        return loss

    def validation_step(self, batch: dict, batch_index: int) -> None:
        self._pair_loss(batch, "val", *self.model(**batch["model_inputs"]))

    def on_validation_epoch_end(self) -> None:
        hits = [topk_hits(cosine_similarity(*pair), min(5, len(pair[0]))) for pair in self._validated]
        self._validated.clear()
        self.log("val/top5", float(np.concatenate(hits).mean()))
        if self.trainer.sanity_checking or not self.trainer.is_global_zero:
            return
        stage, loss = int(self.in_stage2), float(self.trainer.callback_metrics["val/loss"])
        if loss < self.best[stage]:
            self.best[stage] = loss
            self.model.save_pretrained(self.stages[stage])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> Any:
        total = int(self.trainer.estimated_stepping_batches)
        stage1, stage2 = self.config.stage1, self.config.stage2
        first = round(total * stage1.epochs / max(1, stage1.epochs + stage2.epochs))
        trained = [(n, p) for n, p in self.named_parameters() if not n.startswith("model.encoder.")]
        free = Group(self.free_layers.named_parameters(), stage2.lr, first)
        return self.adamw(Group(trained, stage1.lr), free, weight_decay=self.config.weight_decay)

    def _augmented(self, batch: dict) -> tuple[dict[str, Tensor], Tensor | None]:
        """Inputs, and what takes the place of the linear read-out's prediction."""
        inputs, linear, config = batch["model_inputs"], batch.get("linear"), self.config.augment
        if config.average_repeats:
            inputs, shares = augment.average_repeats(inputs, batch["image_id"])
            linear = linear if linear is None else shares @ linear
        if config.time_jitter:
            inputs = augment.shift_time(inputs, config.time_jitter)
        if config.noise:
            unit_std = self.model.encoder.unit_stats(inputs["input_unit_index"])[..., 1]
            inputs = augment.add_noise(inputs, unit_std, config.noise)
        if config.unit_dropout:
            inputs = augment.hide_units(inputs, config.unit_dropout)
        return inputs, linear

    def _pair_loss(self, batch: dict, split: str, contrastive: Tensor, regression: Tensor) -> Tensor:
        ids, target, size = batch["image_index"], batch["target"], len(batch["target"])
        ids, candidates = (self._of_all(x) if split == "train" else x for x in (ids, target))
        neural = self._of_all(contrastive) if split == "train" else contrastive
        images, std = self.model.center(candidates), self.model.embedding_std
        contrast = info_nce(neural, images, temperature=self.temperature(), image_ids=ids)
        error = regression_loss(regression / std, target / std)
        loss = contrast + self.config.regression_weight * error
        values = {"loss": loss, "contrastive": contrast, "regression": error}
        if split == "val":
            self._validated.append((contrastive.detach().float(), images))
        for name, value in values.items():
            self.log(
                f"{split}/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", batch_size=size,
                sync_dist=split == "train",
            )  # fmt: skip
        return loss

    def _of_all(self, x: Tensor) -> Tensor:
        """(processes * B, …) of a batch's rows in all processes, which are equally many; gradients go back to each."""
        if self.trainer.world_size == 1:
            return x
        gathered: Any = self.all_gather(x, sync_grads=x.requires_grad)
        return gathered.flatten(0, 1)

    def _against_forgetting(self, batch_size: int) -> Tensor:
        """Replayed masked loss and distance from the pretrained weights, as weighted in the config."""
        stage2, total = self.config.stage2, torch.zeros((), device=self.device)
        if stage2.replay_weight:
            masked = next(self._replay, None)
            if masked is None:
                self._replay = iter(self.masked)
                masked = next(self._replay)
            masked = self.transfer_batch_to_device(masked, self.device, 0)
            encoder = self.model.encoder
            losses = encoder.masked_losses(encoder(**masked["model_inputs"]), masked)
            replay = self.over_processes(mean_loss(losses), sum(n for _, n in losses.values()))
            self.log("train/replay", replay, on_step=False, on_epoch=True, batch_size=batch_size, sync_dist=True)
            total = total + stage2.replay_weight * replay
        if stage2.l2sp_weight and self.pretrained:
            pairs = zip(self.free_layers.parameters(), self.pretrained, strict=True)
            distance = torch.stack([((p - start.to(p)) ** 2).sum() for p, start in pairs]).sum()
            self.log("train/l2sp", distance, on_step=False, on_epoch=True, batch_size=batch_size)
            total = total + stage2.l2sp_weight * distance
        return total
