"""How well each unit is filled in from the others: windows of a recording, units hidden in turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb._upstream import Dataset, Interval, collate
from neurobridge_tb.arrays import Floats
from neurobridge_tb.data.behavior import read_windows
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.devices import compute
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.metrics.spikes import BitsPerSpike, r2
from neurobridge_tb.models import NeuroBridgeModel

_GROUPS = 5  # units are dealt into so many groups, each hidden while the others are seen
_WINDOWS = 64
_BATCH = 64


def network_outputs(
    network: Callable[..., Tensor], model: NeuroBridgeModel, windows: Sequence[LazyWindow], masks: Sequence[Mask]
) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
    """What a network makes of each window of which something is seen.

    Args:
        network: Takes a collated batch of what ``model`` makes of masked windows.
        model: In evaluation mode.
        windows: Of one recording.
        masks: One a window, whose targets are some bins of some units.

    Yields:
        The window's number, its output, padded as its batch is, and which of its cells (T, N) are targets with a value.
    """
    seen = []
    for k, (window, mask) in enumerate(zip(windows, masks, strict=True)):
        absent = model.absent(window)
        keep, target = (mask.keep, mask.target) if absent is None else (mask.keep & ~absent, mask.target & ~absent)
        if keep.any() and target.any():
            seen.append((k, target))
    for start in range(0, len(seen), _BATCH):
        some = seen[start : start + _BATCH]
        batch = collate([model.tokenize_with_targets(windows[k], masks[k]) for k, _ in some])
        for (k, target), output in zip(some, compute(network, **batch["model_inputs"]), strict=True):
            yield k, output.numpy().astype(np.float64), target


def predict_targets(model: NeuroBridgeModel, windows: Sequence[LazyWindow], masks: Sequence[Mask]) -> list[Floats]:
    """What a model makes of the targets of masks: (bins, units) of each window, log-rates or standardised values.

    NaN where the values are absent, and where nothing is seen to predict them from. Arguments as for
    :func:`network_outputs`.
    """
    predicted = [np.full((m.target.any(1).sum(), m.target.any(0).sum()), np.nan) for m in masks]
    for k, output, target in network_outputs(model, model, windows, masks):
        filled, bins, units = np.full(target.shape, np.nan), target.any(1), target.any(0)
        filled[np.ix_(bins, units)] = output[: bins.sum(), : units.sum()]
        predicted[k] = filled[np.ix_(masks[k].target.any(1), masks[k].target.any(0))]
    return predicted


@dataclass(frozen=True)
class FilledIn:
    """Activity as recorded, and as filled in.

    Attributes:
        recorded: (B, T, N) counts a bin, or standardised values; NaN where absent.
        filled: (B, T, N) what the model makes of each unit from those of other groups.
        metric: ``"bits/spike"``, over each unit's mean rate in training, or ``"R2"``.
        scores: (N,) of each unit; NaN for one without activity here.
        area: (N,).
        bin_size: s.
        split: Whose windows these are.
    """

    recorded: NDArray[np.float32]
    filled: NDArray[np.float32]
    metric: str
    scores: Floats
    area: NDArray[np.str_]
    bin_size: float
    split: str


def fill_in(model: NeuroBridgeModel, dataset: Dataset, recording_id: str, *, seed: int = 0) -> FilledIn:
    """Fill in the units of at most 64 windows of the test split, or of the whole recording where there is none.

    Args:
        model: In evaluation mode.
        dataset: Without a transform.
        recording_id: Whose activity.
        seed: Which units are hidden together.
    """
    recording = dataset.get_recording(recording_id)
    split = "test" if "test_domain" in recording.keys() and len(recording.test_domain) else None
    intervals = _long_enough(dataset.get_sampling_intervals(split)[recording_id], model.sequence_length)
    if not len(intervals):
        split, intervals = None, dataset.get_sampling_intervals(None)[recording_id]
    windows = read_windows(
        dataset, {recording_id: intervals}, windows="continuous", window_length=model.sequence_length
    )
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(_WINDOWS, len(windows))).astype(int))
    windows = [windows[k] for k in chosen]
    area = model.window_grid(windows[0])[1]
    group = np.random.default_rng(seed).permutation(len(area)) % min(_GROUPS, len(area))
    grids = [model.grid_values(window) for window in windows]
    n_bins = min(len(values) for values, _ in grids)
    recorded = np.stack([values[:n_bins] for values, _ in grids]).astype(np.float32)
    is_mua = model.modality_of(windows[0]) == "mua"
    if is_mua:
        units = torch.from_numpy(model.unit_index(recording))[None]
        recorded = compute(model.standardize, torch.from_numpy(recorded), units).numpy()
    filled = np.full(recorded.shape, np.nan, dtype=np.float32)
    for hidden in (group == k for k in np.unique(group)):
        shapes = [(len(values), len(area)) for values, _ in grids]
        masks = [Mask("neuron", np.broadcast_to(~hidden, shape), np.broadcast_to(hidden, shape)) for shape in shapes]
        outputs = predict_targets(model, windows, masks)
        filled[:, :, hidden] = np.stack([output[:n_bins] for output in outputs])
    filled = filled if is_mua else np.exp(filled)
    flat, predicted = recorded.reshape(-1, len(area)), filled.reshape(-1, len(area))
    if is_mua:
        scores = r2(predicted, flat)
    else:
        null = compute(model.unit_stats.log_mean, torch.from_numpy(model.unit_index(recording))).exp()
        tally = BitsPerSpike(null.numpy())
        tally.update(predicted, flat)
        scores = tally.compute().per_unit
    times = grids[0][1]
    width = float(times[1] - times[0]) if len(times) > 1 else model.sequence_length
    metric = "R2" if is_mua else "bits/spike"
    return FilledIn(recorded, filled, metric, scores, area.astype(str), width, split or "whole recording")


def _long_enough(intervals: Interval, length: float) -> Interval:
    long = intervals.end - intervals.start >= length - 1e-6
    return Interval(intervals.start[long], intervals.end[long])
