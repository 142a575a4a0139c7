"""Mean and standard deviation of each unit, from windows of the training intervals."""

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.spikes import posterior_mean
from neurobridge_tb.models.window_tokens import WindowTokens


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
        Unit ids, means and standard deviations, each of length N; a unit without any value has deviation 0. The
        mean of counts is with half a spike added, see :func:`neurobridge_tb.metrics.spikes.posterior_mean`.

    Raises:
        InputError: A unit is read as MUA in one recording and as counts in another.
    """
    length = reader.sequence_length
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
        starts = np.concatenate(
            [
                np.arange(start, max(end - length, start) + 1e-9, length)
                for start, end in zip(interval.start, interval.end, strict=True)
            ]
        )
        for start in starts[np.linspace(0, len(starts) - 1, min(max_windows, len(starts))).astype(int)]:
            values = reader.grid_values(recording.slice(start, start + length))[0].astype(np.float64)
            sums[index] += np.stack([np.nansum(values, 0), np.nansum(values**2, 0), (~np.isnan(values)).sum(0)], axis=1)
    total, square, count = sums.T
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
    return list(rows), np.where(np.array(modalities) == "mua", mean, posterior_mean(total, count)), std
