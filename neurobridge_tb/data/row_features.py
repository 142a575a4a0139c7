"""Features of rows of a table: spike counts, or an encoder's latents and factors, of the activity around each row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb._upstream import Data, Dataset, collate
from neurobridge_tb.arrays import mean_of_present
from neurobridge_tb.data.targets import Examples
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.models import NeuroBridgeModel

_BATCH = 64
_TOLERANCE_S = 1e-6
_SLACK_S = 1e-3  # that a window may reach out of a recording

Bounds = NDArray[np.float64]


def row_windows(dataset: Dataset, examples: Examples, window: Sequence[float] | None) -> tuple[Examples, Bounds]:
    """The rows whose activity lies in their recording, and (n, 2) its start and end in s.

    Args:
        dataset: The recordings.
        examples: Rows.
        window: In s relative to each row's time. Default: from its time to its end, as long as the median row.

    Raises:
        InputError: A window without length, or most of them lie outside of the recordings.
    """
    span = [0.0, float(np.median(examples.end - examples.time))] if window is None else list(window)
    if len(span) != 2 or not span[0] < span[1]:
        raise InputError(
            expected="window=[FIRST, LAST], in s from align, the first before the last",
            found=f"{span}" + (", from align to the end of the median row" if window is None else ""),
            fix="Give window=[0, 0.5], or align by another column.",
        )
    bounds = examples.time[:, None] + np.array(span)
    inside = np.zeros(len(examples), dtype=bool)
    for recording_id in np.unique(examples.recording):
        domain = dataset.get_recording(str(recording_id)).domain
        fits = (bounds[:, 0] >= domain.start[0] - _SLACK_S) & (bounds[:, 1] <= domain.end[-1] + _SLACK_S)
        inside |= fits & (examples.recording == recording_id)
    if inside.mean() < 0.5:
        raise InputError(
            expected="windows of activity within the recordings",
            found=f"{(~inside).sum()} of {len(inside)} outside, from {bounds.min():g} to {bounds.max():g} s",
            fix="Align by a column of times in s on the recording's clock, or take a shorter window.",
        )
    return examples.only(inside, "their window reaches out of the recording"), bounds[inside]


def count_features(
    dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> NDArray[np.float64]:
    """(n, N) spikes of each unit (``units``: only of these) in each window; of values on a grid, their mean.

    NaN where a window has no value.
    """
    counts = _counts(dataset.get_recording(recording_id), bounds)
    return counts if units is None else counts[:, units]


def quarter_features(dataset: Dataset, recording_id: str, bounds: Bounds) -> NDArray[np.float64]:
    """(n, 4 * N) as :func:`count_features`, of each quarter of a window."""
    quarter = np.diff(bounds)[:, 0] / 4
    starts = [bounds[:, 0] + k * quarter for k in range(4)]
    return np.hstack([count_features(dataset, recording_id, np.stack([s, s + quarter], 1)) for s in starts])


def bins_fit(dataset: Dataset, length: float) -> bool:
    """Whether activity on a grid has bins of at most ``length`` s; spike events always have."""
    recordings = [dataset.get_recording(recording_id) for recording_id in dataset.recording_ids]
    grids = [getattr(r, name) for r in recordings for name in ("spike_counts", "mua") if name in r.keys()]
    return all(1 / grid.sampling_rate <= length + _TOLERANCE_S for grid in grids)


def _counts(recording: Data, bounds: Bounds) -> NDArray[np.float64]:
    n_units = len(recording.units.id)
    if "spikes" in recording.keys():
        times, owners = np.asarray(recording.spikes.timestamps), np.asarray(recording.spikes.unit_index)
        edges = np.searchsorted(times, bounds)
        return np.stack([np.bincount(owners[a:b], minlength=n_units) for a, b in edges]).astype(np.float64)
    grid = recording.spike_counts if "spike_counts" in recording.keys() else recording.mua
    values, centres = np.asarray(grid.value), np.asarray(grid.timestamps) + 0.5 / grid.sampling_rate
    rows = [values[(a <= centres) & (centres < b)] for a, b in bounds]
    return np.stack([mean_of_present(r) for r in rows])


@dataclass(frozen=True)
class Piece:
    """A row's window, or a part of one that is longer than the encoder's.

    Attributes:
        row: Number of the row.
        tokens: What the encoder takes; what lies outside of the part is hidden.
        steps: (S,) which latent steps lie in the part.
        bins: (T,) which bins do.
    """

    row: int
    tokens: dict[str, Any]
    steps: NDArray[np.bool_]
    bins: NDArray[np.bool_]


def row_pieces(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> Iterator[Piece]:
    """What an encoder reads of each window: the activity of the window itself, so that it knows no more than counts do.

    Args:
        model: Its tokens.
        dataset: Without a transform.
        recording_id: Whose activity.
        bounds: (n, 2) in s.
        units: Rows of the units that are seen. Default: all.
    """
    recording = dataset.get_recording(recording_id)
    middles = model.latent_step * (np.arange(model.num_latents // model.num_latents_per_step) + 0.5)
    for row, (low, high) in enumerate(bounds):
        for a, b in _parts(low, high, model.sequence_length):
            start = _placed(recording, a, b, model.sequence_length)
            window = recording.slice(start, start + model.sequence_length)
            times, areas, absent = model.bin_times(window), model.window_grid(window)[1], model.absent(window)
            width = times[1] - times[0] if len(times) > 1 else model.sequence_length
            bins = _inside(times + width / 2, a - start, b - start)
            seen = np.isin(np.arange(len(areas)), np.arange(len(areas)) if units is None else units)
            keep = bins[:, None] & seen
            if not (keep if absent is None else keep & ~absent).any():
                continue
            tokens = model.tokenize_with_targets(window, Mask("none", keep, np.zeros_like(keep)))["model_inputs"]
            steps = _inside(middles, a - start, b - start)
            nearest = np.abs(middles - ((a + b) / 2 - start)) <= model.latent_step / 2
            yield Piece(row, tokens, steps if steps.any() else nearest, bins)


def latent_features(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> NDArray[np.float64]:
    """(n, J * D) latents of each window, averaged over its latent steps; arguments as :func:`row_pieces` takes them."""
    pieces = row_pieces(model, dataset, recording_id, bounds, units)
    return _averaged(pieces, len(bounds), lambda some: (latent_steps(model, some), [p.steps for p in some]))


def factor_features(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, bounds: Bounds, units: NDArray | None = None
) -> NDArray[np.float64]:
    """(n, K) posterior mean of the factors, averaged over a window's bins; arguments: :func:`row_pieces`."""

    def read(some: Sequence[Piece]) -> tuple[Tensor, list[NDArray[np.bool_]]]:
        factors = compute(model.infer_factors, **collate([piece.tokens for piece in some]))
        return factors.mean, [piece.bins for piece in some]

    return _averaged(row_pieces(model, dataset, recording_id, bounds, units), len(bounds), read)


def latent_steps(model: NeuroBridgeModel, pieces: Sequence[Piece]) -> Tensor:
    """(B, S, J * D) latents of pieces."""
    latents = compute(model.encode, **collate([piece.tokens for piece in pieces]))
    return latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2)


@torch.no_grad()
def _averaged(
    pieces: Iterator[Piece], n_rows: int, read: Callable[[Sequence[Piece]], tuple[Tensor, list[NDArray[np.bool_]]]]
) -> NDArray[np.float64]:
    """(n, D) means over the times of each row's pieces; 0 for a row without any."""
    waiting, sums, counts = list(pieces), np.zeros((n_rows, 0)), np.zeros((n_rows, 1))
    if not waiting:
        raise InputError(
            expected="windows that hold a bin of the encoder's, with activity",
            found=f"none of {n_rows}",
            fix="Take a longer window, or an encoder with shorter bins.",
        )
    for first in range(0, len(waiting), _BATCH):
        some = waiting[first : first + _BATCH]
        states, inside = read(some)
        for piece, values, chosen in zip(some, states.double().numpy(), inside, strict=True):
            if not sums.shape[1]:
                sums = np.zeros((n_rows, values.shape[1]))
            sums[piece.row] += values[: len(chosen)][chosen].sum(0)
            counts[piece.row] += chosen.sum()
    return sums / np.maximum(counts, 1)


def _inside(times: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
    return (times >= low - _TOLERANCE_S) & (times <= high + _TOLERANCE_S)


def _parts(low: float, high: float, length: float) -> list[tuple[float, float]]:
    """A window in parts of at most ``length`` s, of equal length."""
    edges = np.linspace(low, high, max(1, int(np.ceil((high - low) / length - _TOLERANCE_S))) + 1)
    return list(zip(edges[:-1], edges[1:], strict=True))


def _placed(recording: Data, low: float, high: float, length: float) -> float:
    """Start of the encoder's window around a part, inside the recording where that can be."""
    start, end = float(recording.domain.start[0]), float(recording.domain.end[-1])
    return float(np.clip((low + high - length) / 2, start, max(start, end - length)))
