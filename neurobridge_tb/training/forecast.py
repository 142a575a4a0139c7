"""Training of a NeuroHorizonModel, and its scores on the test split."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.datasets.reference_features import recording_features
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.forecast_scores import check_scoring, forecast_scores
from neurobridge_tb.training.forecast_windows import ForecastLoaders
from neurobridge_tb.training.optim import Group, adamw_with_warmup
from neurobridge_tb.training.run_folder import RunFolder
from neurobridge_tb.training.windows import EpochSeeds


class ForecastModule(L.LightningModule):
    """Forecasting: a quarter of the training windows is rolled out, and all of the validation.

    Args:
        model: The model to train.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
        unit_dropout: See :meth:`NeuroHorizonModel.training_loss`; likewise
        rate_jitter.
    """

    def __init__(
        self, model: NeuroHorizonModel, *, lr: float, weight_decay: float, unit_dropout: float, rate_jitter: float
    ):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model, self.lr, self.weight_decay = model, lr, weight_decay
        self.unit_dropout, self.rate_jitter = unit_dropout, rate_jitter
        self.valid_loss = MeanMetric()
        # Buffers are constants. Were they broadcast, processes with fewer validation batches would be waited for.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [n for n, _ in self.named_buffers()])

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self.model.training_loss(batch, unit_dropout=self.unit_dropout, rate_jitter=self.rate_jitter)
        size = len(batch["session_id"])
        if not torch.isfinite(loss):
            windows = zip(batch["session_id"], batch["absolute_start"].tolist(), strict=True)
            raise InputError(
                expected="a finite loss",
                found=f"{loss.item()} in epoch {self.current_epoch} on windows "
                + ", ".join(f"{s} at {t:.3f} s" for s, t in list(windows)[:4]),
                fix="Check those windows for extreme values, or lower optimizer.lr.",
            )
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


def forecast(config: DictConfig) -> Path:
    """Train a forecaster, or resume its training, and score it; returns the run folder.

    Args:
        config: ``configs/forecast.yaml`` with its overrides.
    """
    run, began = RunFolder(config), time.monotonic()
    L.seed_everything(config.seed, verbose=False)
    trained, unseen = _open(config)
    model = NeuroHorizonModel(**OmegaConf.to_container(config.model))  # type: ignore[arg-type]
    model.init_vocabs(trained)
    intervals = trained.get_sampling_intervals("train")
    model.fit_units(trained, intervals, _features(trained, config) if model.identity is not None else None)
    check_scoring(model, [trained] if unseen is None else [trained, unseen], config)
    strangers = {} if unseen is None else _features(unseen, config)
    loaders = ForecastLoaders(config, trained, model)
    train, valid = loaders.of_split("train"), loaders.of_split("valid")

    module = ForecastModule(model, **config.optimizer, unit_dropout=config.unit_dropout, rate_jitter=config.rate_jitter)
    trainer = run.trainer(dict(config.trainer), [EpochSeeds(config.seed, train, {"valid": valid})], monitor="val/loss")
    run.fit(trainer, module, train, valid)
    if not trainer.is_global_zero:
        return run.path  # the first process alone goes on

    best = NeuroHorizonModel.load_pretrained(run.best_checkpoint).eval()
    best.save_pretrained(run.model)
    rows, smoothed = forecast_scores(best, trained, config, loaders, run.path, group="trained")
    if unseen is not None and best.identity is not None:
        for recording_id, features in strangers.items():
            best.add_units(unseen.get_recording(recording_id).units.id.astype(str).tolist(), features)
        best.identity.precompute()
        loaders = ForecastLoaders(config, unseen, best)
        rows += forecast_scores(best, unseen, config, loaders, run.path, group="unseen", smoothed=smoothed)[0]
    run.write_metrics(
        {
            "dataset": ", ".join(trained.recording_ids),
            "unseen": list(config.unseen),
            "simulated": is_simulated(trained),
            "command": config.command,
            "rows": rows,
            "seconds": time.monotonic() - began,
        }
    )
    return run.path


def _open(config: DictConfig) -> tuple[Dataset, Dataset | None]:
    """The recordings to train on, and those left out of it."""
    dataset = open_dataset(config)
    if not config.unseen:
        return dataset, None
    missing = sorted(set(config.unseen) - set(dataset.recording_ids))
    rest = [r for r in dataset.recording_ids if r not in config.unseen]
    if missing or not rest or config.model.unit_identity != "features":
        raise InputError(
            expected="unseen=[recordings of the dataset], some others to train on, and model.unit_identity=features",
            found=f"not in the dataset: {missing}; to train on: {rest}; {config.model.unit_identity}",
            fix="Correct unseen or dataset.recording_ids; units that are not trained are told by their features.",
        )

    def only(recordings: list[str]) -> Dataset:
        return open_dataset(OmegaConf.merge(config, {"dataset": {"recording_ids": recordings}}))  # type: ignore[arg-type]

    return only(rest), only(list(config.unseen))


def _features(dataset: Dataset, config: DictConfig) -> dict[str, Any]:
    """Reference features of each recording's units, from the start of its training intervals."""
    intervals = dataset.get_sampling_intervals("train")
    return {
        r: recording_features(dataset.get_recording(r), intervals[r], seconds=config.reference_seconds)
        for r in dataset.recording_ids
    }
