"""How well the cells that fixed masks hide are predicted: a model beside closed forms on the same inputs."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from neurobridge_tb.arrays import RowBlocks, mean_of_present
from neurobridge_tb.configs.score import ScoreConfig
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm, lagged
from neurobridge_tb.masking import Mask
from neurobridge_tb.masking.tasks import task_masks
from neurobridge_tb.metrics.spikes import PRIOR_SPIKES
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.masked.bits_tally import Rates, Tally
from neurobridge_tb.scoring.masked.filled_in import predict_targets
from neurobridge_tb.scoring.split_windows import SplitWindows
from neurobridge_tb.scoring.unit_rates import UnitRates

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_BLOCK = 2**24  # features at a time: 128 MB
_RECENT = 5  # bins before the cut that the GLM of forward prediction sees

Masks = Callable[[Rates], list[Mask]]  # of windows, whose lengths differ


def masks_of_task(config: ScoreConfig, task: str, recording: SplitWindows) -> list[Masks]:
    """The masks of a task; each is a function of windows, as only its length differs between them."""
    settings = dict(held_out=config.held_out, max_targets=config.max_targets, seed=config.seed)
    lengths = {len(values) for some in recording.counts.values() for values in some}
    variants = {n_bins: task_masks(task, n_bins, recording.areas, **settings) for n_bins in lengths}

    def kth(k: int) -> Masks:
        return lambda some: [variants[len(values)][k] for values in some]

    return [kth(k) for k in range(len(next(iter(variants.values()))))]


def score_task(config: ScoreConfig, task: str, model: NeuroBridgeModel, recording: SplitWindows) -> dict[str, Tally]:
    """Tallies of the model, of a Poisson GLM and of factor analysis on the test windows of one recording."""
    tallies: dict[str, list[Tally]] = {}
    for masks in masks_of_task(config, task, recording):
        test = masks(recording.counts["test"])
        units = test[0].target.any(0)
        targets = [target_counts(values, mask) for values, mask in zip(recording.counts["test"], test, strict=True)]
        trained = UnitRates(recording.trained.spikes[units], recording.trained.bins[units])
        rates = {
            "NeuroBridge": model_rates(model, recording.windows["test"], test),
            "Poisson GLM": _glm_rates(recording, masks, tuple(config.glm_lags), trained),
            "factor analysis": [
                _targets(recording.factors.rates(values, mask.keep), mask)
                for values, mask in zip(recording.counts["test"], test, strict=True)
            ],
        }
        for name, some in rates.items():
            tallies.setdefault(name, []).append(Tally.of(some, targets, trained))
    return {name: Tally.side_by_side(some) for name, some in tallies.items()}


def _targets(values: np.ndarray, mask: Mask) -> np.ndarray:
    """(target bins, target units) of a window's values (T, N)."""
    return values[np.ix_(mask.target.any(1), mask.target.any(0))]


def target_counts(values: np.ndarray, mask: Mask) -> np.ndarray:
    """(target bins, target units) of a window's counts (T, N): NaN where absent, and where nothing is seen."""
    seen = mask.keep & ~np.isnan(values)
    return _targets(values if seen.any() else np.full_like(values, np.nan), mask)


def model_rates(model: NeuroBridgeModel, windows: Sequence[LazyWindow], masks: Sequence[Mask]) -> Rates:
    """Expected counts (target bins, target units) of each window, NaN where these are absent."""
    return [np.exp(log_rates) for log_rates in predict_targets(model, windows, masks)]


def _glm_rates(recording: SplitWindows, masks: Masks, lags: tuple[int, ...], trained: UnitRates) -> Rates:
    inputs, targets = {}, {}
    for split, some in recording.counts.items():
        pairs = list(zip(some, masks(some), strict=True))
        inputs[split] = _glm_blocks(pairs, lags)
        targets[split] = [target_counts(values, mask) for values, mask in pairs]
    train, valid = (np.concatenate(targets[split]) for split in ("train", "valid"))
    rates = fit_poisson_glm(
        inputs["train"], train, inputs["valid"], valid, inputs["test"],
        prior=PRIOR_SPIKES / np.maximum(trained.bins, 1), penalties=_PENALTIES,
    )  # fmt: skip
    return np.split(rates, np.cumsum([len(rows) for rows in targets["test"]])[:-1])


def _glm_blocks(pairs: list[tuple[np.ndarray, Mask]], lags: tuple[int, ...]) -> RowBlocks:
    """Features of every target bin of windows, made some windows at a time: of 2,000 units they would fill memory."""

    def part(some: list[tuple[np.ndarray, Mask]]) -> np.ndarray:
        return np.concatenate([glm_inputs(values, mask, lags) for values, mask in some])

    rows, columns = (sum(int(m.target.any(1).sum()) for _, m in pairs), part(pairs[:1]).shape[1])
    windows = max(1, _BLOCK * len(pairs) // max(1, rows * columns))
    parts = [partial(part, pairs[k : k + windows]) for k in range(0, len(pairs), windows)]
    return RowBlocks(parts if len(parts) > 1 else [partial(np.asarray, part(pairs))], (rows, columns))


def glm_inputs(values: np.ndarray, mask: Mask, lags: tuple[int, ...]) -> np.ndarray:
    """Features of every target bin of a window (T, N), NaN where absent."""
    if mask.scheme == "forward":
        bins = np.flatnonzero(mask.target.any(1))
        recent = mean_of_present(values[: bins[0]][-_RECENT:])
        return np.column_stack([np.tile(recent, (len(bins), 1)), bins - bins[0]])
    return lagged(values[:, mask.keep.any(0)], lags)
