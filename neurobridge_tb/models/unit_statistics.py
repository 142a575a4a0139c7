"""Mean and standard deviation of each unit over the training intervals."""

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.spikes import posterior_mean
from neurobridge_tb.models.recording_grid import read_spans, spans_end_to_end
from neurobridge_tb.models.window_tokens import WindowTokens

_ROUNDING = 1e-13  # of the mean's square: less variance comes of the arithmetic, and of float32


def pooled_statistics(
    reader: WindowTokens, dataset: Dataset, intervals: dict[str, Interval], max_windows: int
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Statistics of each unit over all recordings that it is in, bins without a value left out.

    Args:
        reader: Knows what to read of a window.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording.
        max_windows: At most so many windows of each recording are read, spread evenly.

    Returns:
        Unit ids, means and standard deviations, each of length N; a unit whose value is never there, or always the
        same, has deviation 0. The mean of counts is with half a spike added, see
        :func:`neurobridge_tb.metrics.spikes.posterior_mean`.

    Raises:
        InputError: A unit is read as MUA in one recording and as counts in another, or a recording has no activity.
    """
    rows: dict[str, int] = {}
    modalities: list[str] = []
    sums = np.zeros((0, 3))  # values, their squares, how many
    for recording_id, interval in intervals.items():
        recording = dataset.get_recording(recording_id)
        unit_ids = recording.units.id.astype(str).tolist()
        modality = reader.modality_of(recording)
        index = [rows.setdefault(unit, len(rows)) for unit in unit_ids]
        modalities += [modality] * (len(rows) - len(modalities))
        sums = np.pad(sums, ((0, len(rows) - len(sums)), (0, 0)))
        for unit, row in zip(unit_ids, index, strict=True):
            if modalities[row] != modality:
                raise InputError(
                    expected="each unit in recordings of one modality",
                    found=f"unit '{unit}' in recordings of {modalities[row]} and, in {recording_id}, of {modality}",
                    fix="Give the units of one of them other ids: a unit has one mean and one standard deviation.",
                )
        spans = spans_end_to_end(interval, reader.sequence_length, most=max_windows, partial=False)
        own = np.zeros((len(index), 3))
        for values, _ in read_spans(reader, recording, *spans):
            count = (~np.isnan(values)).sum(0)
            exact = np.nan_to_num(values.astype(np.float64), copy=False)
            own += np.stack([exact.sum(0), np.einsum("tn,tn->n", exact, exact), count], axis=1)
        sums[index] += own
        active = own[:, 0] > 0 if modality != "mua" else _variance(own) > 0
        if own[:, 2].max() > 1 and not active.any():
            raise InputError(
                expected=f"activity in the training intervals of {recording_id}",
                found="no spikes" if modality != "mua" else "values that never change",
                fix="Check that times are in seconds, and choose splits where there is activity.",
            )
    total, _, count = sums.T
    mean = np.where(np.array(modalities) == "mua", total / np.maximum(count, 1), posterior_mean(total, count))
    return list(rows), mean, np.sqrt(_variance(sums))


def _variance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) variances, of sums of values, of their squares and of ones (N, 3)."""
    total, square, count = sums.T
    mean = total / np.maximum(count, 1)
    variance = square / np.maximum(count, 1) - mean**2
    return np.where(variance > _ROUNDING * mean**2, variance, 0)
