"""Masked pretraining of a NeuroBridgeModel."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from omegaconf import DictConfig
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside, write_json
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.masking.schemes import is_possible
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.neurobridge import mean_loss
from neurobridge_tb.models.warm_start import warm_start
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.known_factors import KnownFactors
from neurobridge_tb.training.masked_scores import masked_example, masked_scores
from neurobridge_tb.training.optim import Group, adamw_with_warmup
from neurobridge_tb.training.principal_start import start_from_principal_components
from neurobridge_tb.training.run_folder import RunFolder
from neurobridge_tb.training.windows import EpochSeeds, window_loader


class PretrainingModule(L.LightningModule):
    """Masked modelling: the loss is the modality's, on masked cells alone.

    Works in several processes (DDP): every parameter gets a gradient in every step, so none has to be looked for, and
    the metrics are of all processes together.

    Args:
        model: The model to train.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        schemes: Names of the validation loaders, in order.
        groups: What is trained, and from when, given the steps of the whole training. Default: all from the start.
    """

    def __init__(
        self,
        model: NeuroBridgeModel,
        *,
        lr: float,
        weight_decay: float,
        schemes: list[str],
        groups: Callable[[int], list[Group]] | None = None,
    ):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model, self.weight_decay, self.schemes = model, weight_decay, schemes
        self.groups = groups or (lambda total_steps: [Group(model.named_parameters(), lr)])
        several = model.modalities if len(model.modalities) > 1 else ()
        self.train_losses: Any = torch.nn.ModuleDict({modality: MeanMetric() for modality in several})
        self.valid_losses: Any = torch.nn.ModuleList(MeanMetric() for _ in schemes)
        # Buffers are constants. Were they broadcast, processes with fewer validation batches would be waited for.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [n for n, _ in self.named_buffers()])

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        output = self.model(**batch["model_inputs"])
        losses = self.model.masked_losses(output, batch)
        loss = mean_loss(losses)
        if not torch.isfinite(loss):
            raise InputError(
                expected="a finite loss",
                found=f"{loss.item()} in epoch {self.current_epoch} on windows {self._not_finite(output, batch)}",
                fix="Check those windows for extreme values, or lower optimizer.lr.",
            )
        for modality in losses.keys() & self.train_losses.keys():
            self.train_losses[modality].update(losses[modality][0].detach(), weight=losses[modality][1])
        cells = sum(n for _, n in losses.values())
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=cells, sync_dist=True)
        if (processes := self.trainer.world_size) > 1:  # DDP lets all weigh alike; the mean is over cells
            total = self.trainer.strategy.reduce(torch.tensor(float(cells), device=self.device), reduce_op="sum")
            loss = loss * (cells * processes / total)
        return loss

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
        total = int(self.trainer.estimated_stepping_batches)
        return adamw_with_warmup(*self.groups(total), weight_decay=self.weight_decay, total_steps=total)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Parameters whose training has not begun are left out of gradient clipping and of AdamW's moments."""
        for group in optimizer.param_groups:
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; upstream's embeddings empty the vocabularies that they are given, so they are given copies."""
        copied = {name: x.copy() if name.endswith(".vocab") else x for name, x in state_dict.items()}
        return super().load_state_dict(copied, *args, **kwargs)

    def _not_finite(self, output: torch.Tensor, batch: dict) -> str:
        """Recording and start of the windows whose own loss is not finite."""
        count = len(output)
        alone = [
            {"target_values": batch["target_values"][[i]]}
            | {"model_inputs": {name: x[[i]] for name, x in batch["model_inputs"].items()}}
            for i in range(count)
        ]
        faulty = [i for i in range(count) if not self.model.masked_loss(output[[i]], alone[i]).isfinite()]
        names = [f"{batch['session_id'][i]} at {batch['absolute_start'][i]:.3f} s" for i in faulty or range(count)]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def masked_loaders(
    config: DictConfig, dataset: Dataset, model: NeuroBridgeModel
) -> tuple[DataLoader, dict[str, DataLoader]]:
    """Training loader with all schemes mixed, and a validation loader with fixed masks for each scheme.

    A recording is validated by the schemes that suit it. Of a model of several modalities, each has loaders of its own,
    named ``"<modality>/<scheme>"``.

    Args:
        config: Needs ``masking``, ``windows``, ``loader`` and ``seed``.
        dataset: With ``train`` and ``valid`` sampling intervals.
        model: Its ``tokenize`` makes the samples.
    """
    schemes = {name: float(weight) for name, weight in config.masking.items() if weight}
    common = dict(windows=config.windows, window_length=model.sequence_length, seed=config.seed, **config.loader)
    train = window_loader(
        dataset,
        MaskedTokenizer(model, schemes, seed=config.seed),
        dataset.get_sampling_intervals("train"),
        shuffle=True,
        **common,
    )
    valid_intervals = dataset.get_sampling_intervals("valid")
    grids = {r: _first_window(model, dataset, r, intervals) for r, intervals in valid_intervals.items()}
    valid = {}
    for modality in model.modalities:
        prefix = f"{modality}/" if len(model.modalities) > 1 else ""
        for scheme in schemes:
            suited = {r: i for r, i in valid_intervals.items() if grids[r][0] == modality}
            suited = {r: i for r, i in suited.items() if is_possible(scheme, *grids[r][1])} or suited
            if suited:
                transform = MaskedTokenizer(model, {scheme: 1.0}, fixed=True)
                valid[prefix + scheme] = window_loader(dataset, transform, suited, **common)
    return train, valid


def _first_window(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, intervals: Interval
) -> tuple[str, tuple[int, np.ndarray]]:
    """Modality of a recording, and the grid of a window of it."""
    start, end = float(intervals.start[0]), float(intervals.end[0])
    window = dataset.get_recording(recording_id).slice(start, min(end, start + model.sequence_length))
    return model.modality_of(window), model.window_grid(window)


def pretrain(config: DictConfig) -> Path:
    """Run masked pretraining, or resume it; returns the run folder.

    Args:
        config: ``configs/pretrain.yaml`` with its overrides.
    """
    run, began = RunFolder(config), time.monotonic()
    L.seed_everything(config.seed, verbose=False)
    dataset = open_dataset(config)
    model = NeuroBridgeModel(**config.model)
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    if config.principal_start:
        start_from_principal_components(model, dataset, train, components=config.principal_start, known=set())
    if config.warm_start:
        write_json(run.path / "warm_start.json", asdict(warm_start(model, config.warm_start)))
    return train_masked(config, run, dataset, model, began=began)


def train_masked(
    config: DictConfig,
    run: RunFolder,
    dataset: Dataset,
    model: NeuroBridgeModel,
    *,
    groups: Callable[[int], list[Group]] | None = None,
    began: float,
) -> Path:
    """Train ``model`` by masked modelling, export the best epoch and write its scores; returns the run folder.

    Args:
        config: Needs ``masking``, ``windows``, ``loader``, ``seed``, ``optimizer`` (``lr``, ``weight_decay``),
            ``trainer``, ``ema``, ``factors``, ``gradient_checkpointing`` and ``command``.
        run: Where everything goes, and from where a run that was cut goes on.
        dataset: With ``train`` and ``valid`` sampling intervals.
        model: Knows the units and recordings of ``dataset``.
        groups: See :class:`PretrainingModule`.
        began: ``time.monotonic()`` at the start of the job.
    """
    train, valid = masked_loaders(config, dataset, model)
    model.gradient_checkpointing = config.gradient_checkpointing
    module = PretrainingModule(
        model, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay, schemes=list(valid), groups=groups
    )
    callbacks: list[L.Callback] = [EpochSeeds(config.seed, train, valid)]
    if config.ema:
        callbacks.append(EMAWeightAveraging(decay=config.ema))
    trainer = run.trainer(dict(config.trainer), callbacks, monitor="val/loss")
    run.fit(trainer, module, train, list(valid.values()))
    if not trainer.is_global_zero:
        return run.path  # the first process alone goes on

    best = NeuroBridgeModel.load_pretrained(run.best_checkpoint).eval()
    best.save_pretrained(run.model)
    if config.factors and not best.reads_events:
        KnownFactors.fit(best, dataset, dataset.get_sampling_intervals("train")).save(run.model)
    with write_aside(run.path / "masked_example.npz") as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **masked_example(best, valid))
    run.write_metrics(
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "rows": masked_scores(best, valid, train),
            "seconds": time.monotonic() - began,
        }
    )
    return run.path
