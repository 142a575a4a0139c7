"""The standardised activity of a recording: its units, areas and values as a model reads them, looked up once."""

import itertools
import math
import sys
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Dataset, Interval
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.recording_grid import read_spans, spans_end_to_end

Floats = NDArray[np.float64]
_AT_ONCE = 256  # windows in memory


class RecordingActivity:
    """One recording as a model reads it.

    Args:
        model: With the recording's units in its vocabulary, and their statistics.
        recording: The whole recording.

    Attributes:
        unit_ids: Ids of the N units.
        areas: (N,) brain area of each, "" where unknown.
        unit_index: (N,) number of each in the model's vocabulary.
        modality: What the recording is read as.
    """

    def __init__(self, model: NeuroBridgeModel, recording: Data):
        self.model, self.recording = model, recording
        self.unit_ids: list[str] = recording.units.id.astype(str).tolist()
        self.areas = model.areas(recording)
        self.modality = model.modality_of(recording)

    @cached_property
    def unit_index(self) -> NDArray[np.int64]:
        return self.model.unit_index(self.recording)

    def standardize(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(bins, N) values in training standard deviations from the training mean."""
        units = torch.from_numpy(self.unit_index)[None]
        return compute(self.model.standardize, torch.from_numpy(values)[None], units)[0].numpy()

    def windows(self, starts: Floats, ends: Floats) -> list[NDArray[np.float32]]:
        """Values (T, N) of windows in order, NaN where absent; see :func:`read_spans`."""
        parts: list[NDArray[np.float32]] = []
        for values, lengths in read_spans(self.model, self.recording, starts, ends):
            parts += np.split(values, np.cumsum(lengths)[:-1])
        return parts

    def totals(self, interval: Interval, *, recent: float = math.inf) -> tuple[Floats, Floats]:
        """(N,) sum of the values in intervals, and in how many bins there is one.

        Args:
            interval: The intervals.
            recent: A value of age ``recent``, of all time within the intervals, counts 1/e. Default: all alike.
        """
        total, count = np.zeros(len(self.unit_ids)), np.zeros(len(self.unit_ids))
        starts, ends = spans_end_to_end(interval, self.model.sequence_length, most=sys.maxsize, partial=True)
        until = np.cumsum(ends - starts)
        weights = np.exp((until - until[-1:]) / (recent * until[-1:]))
        for values, lengths in read_spans(self.model, self.recording, starts, ends):
            of_windows, weights = np.split(weights, [len(lengths)])
            weight = np.repeat(of_windows, lengths)
            total += weight @ np.nan_to_num(values).astype(np.float64)
            count += weight @ ~np.isnan(values)
        return total, count

    def standardized(self, interval: Interval, *, most_bins: int) -> list[NDArray[np.float32]]:
        """Standardised values (T, N) of windows that lie end to end in intervals, NaN where absent.

        Args:
            interval: The intervals.
            most_bins: So many of all windows together, at most; the windows are spread evenly.
        """
        reads = self.model
        rate = 1 / reads.bin_size if reads.reads_events else float(reads.series_of(self.recording).sampling_rate)
        most = max(1, most_bins // max(1, round(reads.sequence_length * rate)))
        spans = spans_end_to_end(interval, reads.sequence_length, most=most, partial=True)
        return [self.standardize(values) for values in self.windows(*spans) if len(values)]

    def with_values(self, interval: Interval, *, whole: bool) -> Interval:
        """The intervals without those stretches in which no unit has a value, and a window would be empty.

        Args:
            interval: Intervals that windows are drawn from.
            whole: Each interval is a window. Otherwise windows of the model's length lie anywhere in them.
        """
        if self.model.reads_events or self.model.series_of(self.recording).__dict__["value"].dtype.kind != "f":
            return interval  # spikes and whole numbers are never absent
        start, end = np.asarray(interval.start, dtype=float), np.asarray(interval.end, dtype=float)
        if whole:
            parts = [slice(k, k + _AT_ONCE) for k in range(0, len(start), _AT_ONCE)]
            read = (values for part in parts for values in self.windows(start[part], end[part]))
            some = np.array([bool((~np.isnan(values)).any()) for values in read], dtype=bool)
            return interval if some.all() else Interval(start=start[some], end=end[some])
        starts, ends = [], []
        rate = float(self.model.series_of(self.recording).sampling_rate)
        least = self.model.sequence_length * rate - 1  # bins that a window without values may show
        for a, b, values in zip(start, end, self.windows(start, end), strict=True):
            gap = np.isnan(values).all(1)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], gap, [False]]).astype(int)))
            first, last = edges.reshape(-1, 2).T
            long = last - first >= least
            starts += [a, *(a + last[long] / rate)]
            ends += [*(a + first[long] / rate), b]
        kept = np.array(ends) - np.array(starts) > 0
        if len(starts) == len(start):
            return interval
        return Interval(start=np.array(starts)[kept], end=np.array(ends)[kept])


def window_values(model: NeuroBridgeModel, windows: Iterable[LazyWindow]) -> list[NDArray[np.float32]]:
    """What ``model.grid_values`` reads of windows that follow one another: (T, N) each, NaN where absent."""
    values: list[NDArray[np.float32]] = []
    for _, some in itertools.groupby((window.span for window in windows), key=lambda span: id(span[0])):
        recordings, starts, ends = zip(*some, strict=True)
        start, end = np.array(starts), np.array(ends)
        reader = RecordingActivity(model, recordings[0])
        values += reader.windows(start, start + model.sequence_length if model.reads_events else end)
    return values


class Activity:
    """The recordings of a dataset as a model reads them.

    Args:
        model: See :class:`RecordingActivity`.
        dataset: Where the recordings are.
    """

    def __init__(self, model: NeuroBridgeModel, dataset: Dataset):
        self.model, self.dataset = model, dataset
        self._recordings: dict[str, RecordingActivity] = {}

    def __getitem__(self, recording_id: str) -> RecordingActivity:
        if recording_id not in self._recordings:
            self._recordings[recording_id] = RecordingActivity(self.model, self.dataset.get_recording(recording_id))
        return self._recordings[recording_id]


def sampling_intervals(model: NeuroBridgeModel, dataset: Dataset, split: str, *, windows: str) -> dict[str, Interval]:
    """Intervals of a split in which windows have values, see :meth:`RecordingActivity.with_values`.

    Args:
        model: Knows what is read.
        dataset: With sampling intervals of ``split``.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        windows: ``"trial"`` or ``"continuous"``.

    Raises:
        InputError: None has any.
    """
    activity, intervals = Activity(model, dataset), dataset.get_sampling_intervals(split)
    left = {r: activity[r].with_values(interval, whole=windows == "trial") for r, interval in intervals.items()}
    if any(map(len, intervals.values())) and not any(map(len, left.values())):
        raise InputError(
            expected=f"values in '{split}' of {', '.join(intervals)}",
            found="NaN throughout",
            fix="Check how the recordings were prepared, or choose other splits.",
        )
    return left
