"""Training by masked modelling, from the first window to the scores: what pretraining and adapting share."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.parts import MaskedTrainingConfig
from neurobridge_tb.data.image_targets import ImageTargets
from neurobridge_tb.data.masked_windows import fixed_mask_loaders, masked_loaders
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.epoch_seeds import EpochSeeds
from neurobridge_tb.engine.modules.masked import PretrainingModule
from neurobridge_tb.engine.optim import Group
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.starts.unit_weights import unit_weights
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import read_json, write_aside, write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.masked.masked_baselines import fit_baselines
from neurobridge_tb.scoring.masked.masked_rows import masked_example, masked_scores

_TEST_WINDOWS = 300  # of each scheme


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

    The model as it comes, its factors fitted in closed form, is one of the candidates: training can only improve on it.

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
    settings = {name: getattr(config.optimizer, name) for name in ("lr", "factor_lr", "weight_decay")}
    module = PretrainingModule(
        model,
        **settings,
        schemes=list(valid),
        unit_weights=unit_weights(config.loss.unit_weights, model, dataset),
        images=_images(config, dataset),
        image_weight=config.loss.image_weight,
        groups=groups,
    )
    callbacks: list[L.Callback] = [EpochSeeds(config.seed, train, valid)]
    if config.ema:
        callbacks.append(EMAWeightAveraging(decay=config.ema))
    trainer = run.trainer(config.trainer, callbacks, monitor="val/loss")
    at_start = run.path / "start.json"
    say(f"Training in batches of {train.batch_size} windows, {len(train)} an epoch")
    if run.resumed is None:
        trainer.validate(module, list(valid.values()), verbose=False)
        for metric in module.valid_losses:
            metric.reset()  # its tensors are those of inference mode
        if trainer.is_global_zero:
            model.save_pretrained(run.start)
            write_json(at_start, {"val/loss": float(trainer.callback_metrics["val/loss"])})
    if model.response is not None and config.optimizer.factor_lr >= config.optimizer.lr:
        model.response.weights.zero_()  # what to believe of loadings as they were fitted: they will be others soon
    run.fit(trainer, module, train, list(valid.values()))
    if not trainer.is_global_zero:
        return run.path  # the first process alone goes on

    say("Scoring beside the baselines")
    improved = run.has_trained and run.best_score() < read_json(at_start)["val/loss"]
    best = place(NeuroBridgeModel.load_pretrained(run.best_checkpoint if improved else run.start).eval(), config)
    best.save_pretrained(run.model)
    with write_aside(run.path / "masked_example.npz") as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **masked_example(best, valid))
    run.note(
        "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            **_scores(config, dataset, best, train, valid),
            "seconds": time.monotonic() - began,
        },
    )
    return run.path


def _images(config: MaskedTrainingConfig, dataset: Dataset) -> ImageTargets | None:
    """What training windows show, where the loss has a term for it."""
    if not config.loss.image_weight:
        return None
    if config.windows != "trial" or config.loss.embeddings is None:
        raise InputError(
            expected="with loss.image_weight, windows=trial and loss.embeddings=<file>",
            found=f"windows={config.windows}, loss.embeddings={config.loss.embeddings}",
            fix="Make the file with `neurobridge embed`, or set loss.image_weight=0.",
        )
    return ImageTargets(dataset, EmbeddingCache.load(config.loss.embeddings))


def _scores(
    config: MaskedTrainingConfig,
    dataset: Dataset,
    model: NeuroBridgeModel,
    train: DataLoader,
    valid: dict[str, DataLoader],
) -> dict[str, Any]:
    """Masked scores on the test split; the validation split chose the epoch, so its scores stand apart."""
    baselines = fit_baselines(model, train, valid)
    of_valid = masked_scores(model, valid, baselines)
    try:
        test = fixed_mask_loaders(config, dataset, model, "test", most=_TEST_WINDOWS)
    except InputError:  # no test split, or no window in it
        return {"split": "validation", "rows": of_valid}
    return {"split": "test", "rows": masked_scores(model, test, baselines), "validation rows": of_valid}
