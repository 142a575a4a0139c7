"""Training by masked modelling, from the first window to the scores: what pretraining and adapting share."""

import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import EMAWeightAveraging

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.parts import MaskedTrainingConfig
from neurobridge_tb.data.masked_windows import masked_loaders
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.engine.epoch_seeds import EpochSeeds
from neurobridge_tb.engine.known_factors import KnownFactors
from neurobridge_tb.engine.modules.masked import PretrainingModule
from neurobridge_tb.engine.optim import Group
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.files import write_aside
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.masked import masked_example, masked_scores


def train_masked(
    config: MaskedTrainingConfig,
    run: RunFolder,
    dataset: Dataset,
    model: NeuroBridgeModel,
    *,
    groups: Callable[[int], list[Group]] | None = None,
    began: float,
) -> Path:
    """Train ``model`` by masked modelling, export the best epoch and write its scores; returns the run folder.

    Args:
        config: The settings of the training.
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
    trainer = run.trainer(config.trainer, callbacks, monitor="val/loss")
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
