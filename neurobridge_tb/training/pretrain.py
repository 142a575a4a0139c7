"""Masked pretraining of a NeuroBridgeModel."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.masked_scores import masked_example, masked_scores
from neurobridge_tb.training.optim import Group, adamw_with_warmup
from neurobridge_tb.training.run_folder import RunFolder
from neurobridge_tb.training.windows import EpochSeeds, window_loader


class PretrainingModule(L.LightningModule):
    """Masked modelling: the loss is the modality's, on masked cells alone.

    Args:
        model: The model to train.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        schemes: Names of the validation loaders' schemes, in order.
    """

    def __init__(self, model: NeuroBridgeModel, *, lr: float, weight_decay: float, schemes: list[str]):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model, self.lr, self.weight_decay, self.schemes = model, lr, weight_decay, schemes
        self.valid_loss = MeanMetric()  # over the loaders of all schemes

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self.model.masked_loss(self.model(**batch["model_inputs"]), batch)
        if not torch.isfinite(loss):
            windows = zip(batch["session_id"], batch["absolute_start"].tolist(), strict=True)
            raise InputError(
                expected="a finite loss",
                found=f"{loss.item()} in epoch {self.current_epoch} on windows "
                + ", ".join(f"{s} at {t:.3f} s" for s, t in list(windows)[:4])
                + " …",
                fix="Check those windows for extreme values, or lower optimizer.lr.",
            )
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch["scheme"]))
        return loss

    def validation_step(self, batch: dict, batch_index: int, dataloader_idx: int = 0) -> None:
        loss = self.model.masked_loss(self.model(**batch["model_inputs"]), batch)
        name = f"val/loss/{self.schemes[dataloader_idx]}"
        self.log(name, loss, add_dataloader_idx=False, batch_size=len(batch["scheme"]))
        self.valid_loss.update(loss, weight=len(batch["scheme"]))

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.valid_loss, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw_with_warmup(
            Group(self.model.named_parameters(), self.lr),
            weight_decay=self.weight_decay,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )


def masked_loaders(
    config: DictConfig, dataset: Dataset, model: NeuroBridgeModel
) -> tuple[DataLoader, dict[str, DataLoader]]:
    """Training loader with all schemes mixed, and a validation loader with fixed masks for each scheme.

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
    valid = {
        scheme: window_loader(dataset, MaskedTokenizer(model, {scheme: 1.0}, fixed=True), valid_intervals, **common)
        for scheme in schemes
    }
    return train, valid


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
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    train, valid = masked_loaders(config, dataset, model)

    module = PretrainingModule(model, **config.optimizer, schemes=list(valid))
    trainer = run.trainer(dict(config.trainer), [EpochSeeds(config.seed, train)], monitor="val/loss")
    run.fit(trainer, module, train, list(valid.values()))

    best = NeuroBridgeModel.load_pretrained(run.best_checkpoint).eval()
    best.save_pretrained(run.model)
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
