"""Features of rows of a table: spike counts, or an encoder's latents, of the activity in a window around each."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Dataset, collate
from neurobridge_tb.data.targets import Examples
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.models import NeuroBridgeModel

_BATCH = 64
_TOLERANCE_S = 1e-6

Bounds = NDArray[np.float64]


def row_windows(examples: Examples, window: Sequence[float] | None) -> Bounds:
    """(n, 2) start and end in s of the activity of each row.

    Args:
        examples: The rows.
        window: In s relative to each row's time. Default: from its time to its end, as long as the median row.
    """
    if window is not None:
        return examples.time[:, None] + np.asarray(window, dtype=np.float64)
    length = float(np.median(examples.end - examples.time))
    return np.stack([examples.time, examples.time + length], axis=1)


def count_features(
    dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> NDArray[np.float64]:
    """(n, N) spikes of each unit (``units``: only of these) in each window; of values on a grid, their mean."""
    counts = _counts(dataset.get_recording(recording_id), bounds)
    return counts if units is None else counts[:, units]


def _counts(recording: Data, bounds: Bounds) -> NDArray[np.float64]:
    n_units = len(recording.units.id)
    if "spikes" in recording.keys():
        times, owners = np.asarray(recording.spikes.timestamps), np.asarray(recording.spikes.unit_index)
        edges = np.searchsorted(times, bounds)
        return np.stack([np.bincount(owners[a:b], minlength=n_units) for a, b in edges]).astype(np.float64)
    grid = recording.spike_counts if "spike_counts" in recording.keys() else recording.mua
    values, centres = np.asarray(grid.value), np.asarray(grid.timestamps) + 0.5 / grid.sampling_rate
    rows = [values[(a <= centres) & (centres < b)] for a, b in bounds]
    means = [np.nanmean(r, axis=0) if len(r) else np.full(n_units, np.nan) for r in rows]
    return np.nan_to_num(np.stack(means))


@torch.no_grad()
def latent_features(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> NDArray[np.float64]:
    """(n, J * D) latents of each window, averaged over its latent steps.

    The encoder sees only the activity of the window itself, so that it knows no more than the counts do: what lies
    outside is hidden from it. A window that is longer than the encoder's is read in several.

    Args:
        model: In evaluation mode.
        dataset: Without a transform.
        recording_id: Whose activity.
        bounds: (n, 2) in s.
        units: Rows of the units that are seen. Default: all.
    """
    recording = dataset.get_recording(recording_id)
    pieces = [
        (row, a, b) for row, (low, high) in enumerate(bounds) for a, b in _pieces(low, high, model.sequence_length)
    ]
    sums, steps = np.zeros((len(bounds), model.num_latents_per_step * model.dim)), np.zeros(len(bounds))
    for first in range(0, len(pieces), _BATCH):
        chunk = pieces[first : first + _BATCH]
        placed = [_placed(recording, a, b, model.sequence_length) for _, a, b in chunk]
        windows = [recording.slice(start, start + model.sequence_length) for start in placed]
        kept = [_tokens(model, w, a - s, b - s, units) for w, s, (_, a, b) in zip(windows, placed, chunk, strict=True)]
        seen = [index for index, tokens in enumerate(kept) if tokens is not None]
        if not seen:
            continue
        latents = model.encode(**collate([kept[index] for index in seen]))
        latents = latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2).double().numpy()
        times = model.latent_step * (np.arange(latents.shape[1]) + 0.5)
        for index, states in zip(seen, latents, strict=True):
            row, a, b = chunk[index]
            inside = (times >= a - placed[index] - _TOLERANCE_S) & (times <= b - placed[index] + _TOLERANCE_S)
            inside = inside if inside.any() else np.abs(times - ((a + b) / 2 - placed[index])) <= model.latent_step / 2
            sums[row] += states[inside].sum(0)
            steps[row] += inside.sum()
    return sums / np.maximum(steps, 1)[:, None]


def _pieces(low: float, high: float, length: float) -> list[tuple[float, float]]:
    """A window in parts of at most ``length`` s, of equal length."""
    edges = np.linspace(low, high, max(1, int(np.ceil((high - low) / length - _TOLERANCE_S))) + 1)
    return list(zip(edges[:-1], edges[1:], strict=True))


def _placed(recording: Data, low: float, high: float, length: float) -> float:
    """Start of the encoder's window around a part, inside the recording where that can be."""
    start, end = float(recording.domain.start[0]), float(recording.domain.end[-1])
    return float(np.clip((low + high - length) / 2, start, max(start, end - length)))


def _tokens(model: NeuroBridgeModel, window: Data, low: float, high: float, units: NDArray | None) -> dict | None:
    """A window's tokens of ``units`` between ``low`` and ``high`` s, the rest hidden; None if nothing is left."""
    times, areas = model.grid_values(window)[1], model.window_grid(window)[1]
    width = times[1] - times[0] if len(times) > 1 else model.sequence_length
    inside = (times + width / 2 >= low - _TOLERANCE_S) & (times + width / 2 <= high + _TOLERANCE_S)
    seen = np.isin(np.arange(len(areas)), np.arange(len(areas)) if units is None else units)
    keep = inside[:, None] & seen
    if not keep.any():
        return None
    nothing = np.zeros_like(keep)
    return model.tokenize_with_targets(window, Mask("none", keep, nothing))["model_inputs"]
