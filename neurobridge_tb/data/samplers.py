"""Samplers of windows, upstream's laid at once: how often each recording is drawn, and what each process takes."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from neurobridge_tb._upstream import DatasetIndex, DistributedEvaluationSamplerWrapper, Interval

Floats = NDArray[np.float64]


class SequentialWindows(Sampler[DatasetIndex]):
    """The windows of upstream's ``SequentialFixedWindowSampler``, in its order; intervals too short are left out.

    Their number is computed, not counted, and they are made as they are drawn: with 500 recordings upstream's sampler
    makes a list of a million before the first.

    Args:
        sampling_intervals: Of each recording.
        window_length: In s.
    """

    def __init__(self, *, sampling_intervals: Mapping[str, Interval], window_length: float):
        self.sampling_intervals, self.window_length = sampling_intervals, window_length
        self.size = sum(int(n.sum()) for *_, n in map(self._of, sampling_intervals.values()))

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[DatasetIndex]:
        for recording, intervals in self.sampling_intervals.items():
            for start, end, n in zip(*(x.tolist() for x in self._of(intervals)), strict=True):
                for k in range(n):
                    at = start + k * self.window_length
                    if at + self.window_length <= end:
                        yield DatasetIndex(recording, at, at + self.window_length)
                    else:  # the last one reaches to the interval's end
                        yield DatasetIndex(recording, end - self.window_length, end)

    def _of(self, intervals: Interval) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Starts and ends of the intervals that are long enough, and how many windows each has."""
        start, end = _long_enough(intervals, self.window_length)
        n = _whole_windows(start, end, self.window_length)
        return start, end, n + (start + (n - 1) * self.window_length + self.window_length < end)


class RandomWindows(Sampler[DatasetIndex]):
    """The windows of upstream's ``RandomFixedWindowSampler``, drawn alike; intervals too short are left out.

    An epoch's windows are laid in one go, not one by one.

    Args:
        sampling_intervals: Of each recording.
        window_length: In s.
        generator: Draws how far the first window of each interval is moved, and the order.
    """

    def __init__(self, *, sampling_intervals: Mapping[str, Interval], window_length: float, generator: torch.Generator):
        self.sampling_intervals, self.window_length, self.generator = sampling_intervals, window_length, generator
        parts = [_long_enough(intervals, window_length) for intervals in sampling_intervals.values()]
        self._names = list(sampling_intervals)
        self._recording = np.repeat(np.arange(len(parts)), [len(start) for start, _ in parts])
        self._start, self._end = (np.concatenate([np.zeros(0), *x]) for x in zip(*parts, strict=True))
        self.size = int(np.floor((self._end - self._start) / window_length).sum())

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[DatasetIndex]:
        length, start, end = self.window_length, self._start, self._end
        left = torch.rand(len(start), generator=self.generator).double().numpy() * length
        first = start + left
        n = np.where(first + length <= end, _whole_windows(first, end, length), 0)
        right = np.where(n > 0, end - (first + (n - 1) * length + length), end - start - left)
        extra = (right + left >= length).astype(np.int64)
        interval = np.repeat(np.arange(len(start)), n + extra)
        k = np.arange(len(interval)) - np.repeat(np.cumsum(n + extra) - n - extra, n + extra)
        starts = first[interval] + k * length
        ends = starts + length
        at_end, last = (right > left)[interval], k == n[interval]  # what the other windows leave of an interval
        starts = np.where(last, np.where(at_end, end[interval] - length, start[interval]), starts)
        ends = np.where(last, np.where(at_end, end[interval], start[interval] + length), ends)
        for i in torch.randperm(len(interval), generator=self.generator).tolist():
            yield DatasetIndex(self._names[self._recording[interval[i]]], float(starts[i]), float(ends[i]))


def _long_enough(intervals: Interval, length: float) -> tuple[Floats, Floats]:
    start, end = np.asarray(intervals.start, dtype=np.float64), np.asarray(intervals.end, dtype=np.float64)
    long = end - start >= length
    return start[long], end[long]


def _whole_windows(start: Floats, end: Floats, length: float) -> NDArray[np.int64]:
    """Windows that fit end to end from ``start`` on, as if each was tried."""
    n = np.floor((end - start) / length).astype(np.int64)
    n += start + n * length + length <= end
    return n - ((n > 0) & (start + (n - 1) * length + length > end))


class RecordingBalancedSampler(Sampler[DatasetIndex]):
    """Shuffled windows of several recordings, drawn in proportion to size^exponent.

    An epoch is as long as all recordings together. A recording that is drawn more often than it has windows is passed
    over again, and upstream's samplers then lay random windows elsewhere (trials come again); of one that is drawn more
    rarely, each epoch takes other windows.

    Args:
        samplers: Upstream's sampler of each recording; they shuffle, and draw from ``generator``.
        exponent: 1 is plain sampling, 0 draws all recordings alike.
        generator: Source of all randomness.
    """

    def __init__(self, samplers: Mapping[str, Sampler[DatasetIndex]], *, exponent: float, generator: torch.Generator):
        self.samplers, self.generator = dict(samplers), generator
        sizes = np.array([len(sampler) for sampler in samplers.values()])  # type: ignore[arg-type]
        shares = sizes**exponent / (sizes**exponent).sum() * sizes.sum()
        drawn = np.floor(shares).astype(int)
        drawn[np.argsort(drawn - shares, kind="stable")[: sizes.sum() - drawn.sum()]] += 1
        self.drawn = dict(zip(samplers, drawn.tolist(), strict=True))  # windows of each recording in an epoch

    def __len__(self) -> int:
        return sum(self.drawn.values())

    def __iter__(self) -> Iterator[DatasetIndex]:
        indices = [i for name, n in self.drawn.items() for i in islice(_passes(self.samplers[name]), n)]
        for k in torch.randperm(len(indices), generator=self.generator):
            yield indices[k]


class DistributedTrainingSampler(DistributedEvaluationSamplerWrapper):
    """Upstream's division of a sampler's windows among processes, with equally many for each.

    Process r of W takes every W-th window from the r-th on, and what cannot be shared equally is left out. So W
    processes with batches of B take the very batches of one process with W x B, which leaves out the incomplete last
    batch too. The sampler inside must draw alike in all processes.
    """

    def rank_len(self) -> int:
        return len(self.sampler) // self.num_replicas

    def __iter__(self) -> Iterator[DatasetIndex]:
        return islice(super().__iter__(), self.rank_len())


def _passes(sampler: Sampler[DatasetIndex]) -> Iterator[DatasetIndex]:
    while True:
        yield from sampler
