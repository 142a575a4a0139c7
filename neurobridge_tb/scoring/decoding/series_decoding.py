"""Decoding a series, bin by bin: ridge from an encoder's latents, beside counts and random weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from neurobridge_tb._upstream import Dataset, collate
from neurobridge_tb.configs.decode import DecodeConfig
from neurobridge_tb.data.activity import sampling_intervals
from neurobridge_tb.data.behavior import behavior_at, check_known, raw_samples, read_windows
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.devices import compute, place
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.metrics.spikes import r2
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.registry_ext import ModalitySpec
from neurobridge_tb.scoring.decoding.row_decoding import LATENTS, RANDOM, random_weights

_BATCH = 128
_RESAMPLES = 2000


def decode_series(
    config: DecodeConfig, dataset: Dataset, model: NeuroBridgeModel, spec: ModalitySpec
) -> dict[str, Any]:
    """Content of ``metrics.json``: R^2 and correlation on the test split, with intervals over windows.

    Windows with a bin without any activity are left out. The penalty is chosen on the validation split. A bin's
    features are the latents of its step and of ``steps_around`` steps before and after; of counts, ``history`` bins,
    the present and those before.

    Args:
        config: Settings.
        dataset: The recordings.
        model: The encoder.
        spec: The series.
    """
    windows = {split: _whole_windows(config, dataset, model, split) for split in ("train", "valid", "test")}
    say(f"Reading {sum(map(len, windows.values()))} windows")
    untrained = place(random_weights(model, dataset, config.seed), config)
    features: dict[str, Callable] = {
        LATENTS: lambda some: latent_samples(model, some, spec, config.steps_around),
        RANDOM: lambda some: latent_samples(untrained, some, spec, config.steps_around),
    }
    if len(dataset.recording_ids) == 1:  # recordings have different units
        name = f"spike counts, {config.history} bins"
        features[name] = lambda some: raw_samples(model, some, spec, config.history)
    rows, errors = [], {}
    for name, samples in features.items():
        of_split = {split: samples(some) for split, some in windows.items()}
        for split, (_, behavior) in of_split.items():
            check_known(split, config.target, behavior)
        fitted = fit_ridge(*(np.concatenate(part) for split in ("train", "valid") for part in of_split[split]))
        inputs, observed = of_split["test"]
        predicted = [fitted.predict(x) for x in inputs]
        rows.append({"decoder": name, **window_scores(predicted, observed, config.seed), "penalty": fitted.penalty})
        errors[name] = np.array([((p - o) ** 2).sum() for p, o in zip(predicted, observed, strict=True)])
    best = min(errors, key=lambda name: errors[name].sum())
    for row in rows:
        draws = np.random.default_rng(config.seed).integers(0, len(errors[best]), (_RESAMPLES, len(errors[best])))
        low = np.percentile((errors[row["decoder"]] - errors[best])[draws].sum(1), 2.5)
        row["verdict"] = "best" if row["decoder"] == best else "below" if low > 0 else "not apart"
    notes = [] if len(dataset.recording_ids) == 1 else ["Counts are left out: the recordings have different units."]
    n_bins = sum(len(model.bin_times(window)) for window in windows["test"])
    if unknown := n_bins - sum(map(len, observed)):
        notes.append(f"{unknown:,} of {n_bins:,} test bins are left out: {config.target} is not known there.")
    return {"examples": n_bins - unknown, "kind": "series", "notes": notes, "rows": rows}


def _whole_windows(config: DecodeConfig, dataset: Dataset, model: NeuroBridgeModel, split: str) -> list[LazyWindow]:
    """Windows of a split in whose every bin some unit has a value."""
    intervals = sampling_intervals(model, dataset, split, windows=config.windows)
    windows = read_windows(dataset, intervals, windows=config.windows, window_length=model.sequence_length)
    absent = [model.absent(window) for window in windows]
    whole = [window for window, lacks in zip(windows, absent, strict=True) if lacks is None or not lacks.all(1).any()]
    if not whole:
        raise InputError(
            expected=f"a window of '{split}' with activity in each bin",
            found=f"{len(windows)} windows, each with bins that are NaN throughout",
            fix="Leave these stretches out of the splits, or use an encoder of shorter windows.",
        )
    return whole


@torch.no_grad()
def latent_samples(
    model: NeuroBridgeModel, windows: list[LazyWindow], spec: ModalitySpec, steps_around: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Latents of each bin's step and of ``steps_around`` steps before and after it (0 outside of the window), and the
    behaviour in the middle of the bin: (T, (2 * steps_around + 1) * J * D) and (T, dim) for each window, of the T bins
    in which the behaviour is known."""
    features, targets = [], []
    for start in range(0, len(windows), _BATCH):
        chunk = windows[start : start + _BATCH]
        latents = compute(model.encode, **collate([model.tokenize(w) for w in chunk]))
        steps = latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2)  # (B, S, J * D)
        padded = torch.nn.functional.pad(steps, (0, 0, steps_around, steps_around))
        around = torch.cat([padded[:, k : k + steps.shape[1]] for k in range(2 * steps_around + 1)], dim=-1)
        for window, states in zip(chunk, around, strict=True):
            times = model.bin_times(window)
            step = np.clip((times / model.latent_step + 1e-6).astype(int), 0, len(states) - 1)
            behavior = behavior_at(window, spec, times + (times[1] - times[0]) / 2)
            known = np.isfinite(behavior).all(1)
            features.append(states[step].numpy()[known])
            targets.append(behavior[known])
    return features, targets


def window_scores(predicted: list[np.ndarray], observed: list[np.ndarray], seed: int) -> dict[str, Any]:
    """R^2 averaged over columns, with a 95 % bootstrap interval over windows; that of each column; the correlation."""
    pairs = [(p, o) for p, o in zip(predicted, observed, strict=True) if len(o)]
    predicted, observed = [p for p, _ in pairs], [o for _, o in pairs]
    rng, n = np.random.default_rng(seed), len(observed)
    error = np.stack([((p - o) ** 2).sum(0) for p, o in zip(predicted, observed, strict=True)])
    moments = [np.stack([(o**k).sum(0) for o in observed]) for k in (0, 1, 2)]
    draws = rng.integers(0, n, (_RESAMPLES, n))
    count, total, square = (m[draws].sum(1) for m in moments)
    low, high = np.percentile((1 - error[draws].sum(1) / (square - total**2 / count)).mean(1), [2.5, 97.5])
    decoded, true = np.concatenate(predicted), np.concatenate(observed)
    score = r2(decoded, true)
    correlations = [np.corrcoef(decoded[:, k], true[:, k])[0, 1] for k in range(true.shape[1])]
    return {
        "R2": {"value": float(score.mean()), "low": float(low), "high": float(high)},
        "R2 of columns": score.tolist(),
        "r": float(np.nanmean(correlations)),
    }
