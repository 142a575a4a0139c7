"""Activity of whole stretches of a recording, read by slabs: thousands of windows at the price of a few reads."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Interval

_SLAB = 2**18  # values at a time: they stay in a processor's cache
_EPS = 1e-9  # of a bin: times that close to a bin's start count as its start, as upstream's slice has it

Floats = NDArray[np.float64]


class GridReader(Protocol):
    """What a model needs for it."""

    bin_size: float

    @property
    def reads_events(self) -> bool: ...

    def series_of(self, data: Data) -> Any: ...


def spans_end_to_end(interval: Interval, length: float, *, most: int, partial: bool) -> tuple[Floats, Floats]:
    """Starts and ends in s of windows that lie end to end in each of the intervals, at most ``most``, spread evenly.

    Args:
        interval: The intervals.
        length: Of a window in s.
        most: At most so many windows.
        partial: What is left at the end of an interval is a shorter window. Otherwise it is left out; an interval that
            is shorter than a window has one that begins with it.
    """
    starts, ends = [np.zeros(0)], [np.zeros(0)]
    for start, end in zip(interval.start, interval.end, strict=True):
        last = end - 1e-6 if partial else max(end - length, start) + _EPS
        starts.append(np.arange(start, last, length))
        ends.append(np.minimum(starts[-1] + length, end) if partial else starts[-1] + length)
    first, last_ = np.concatenate(starts), np.concatenate(ends)
    chosen = np.linspace(0, len(first) - 1, min(most, len(first))).astype(int)
    return first[chosen], last_[chosen]


def read_spans(
    model: GridReader, recording: Data, starts: Floats, ends: Floats
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """What ``model.grid_values`` reads of windows, several windows at a time.

    Args:
        model: Knows what to read.
        recording: A whole recording.
        starts: (W,) starts of the windows in s, in order.
        ends: (W,) their ends.

    Yields:
        Values (bins, N) of some windows one after the other, and how many bins each has; spike events are counted in
        bins. NaN where absent.
    """
    slabs = _count_events if model.reads_events else _read_series
    yield from slabs(model, recording, starts, ends)


def _read_series(
    model: GridReader, recording: Data, starts: Floats, ends: Floats
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    series = model.series_of(recording)
    domain, rate, stored = series.domain, series.sampling_rate, series.__dict__["value"]  # not loaded as a whole
    n_bins, n_units = stored.shape
    real = np.ones(n_bins, dtype=bool) if len(domain) == 1 else series.index_mask()

    def row(times: Floats) -> NDArray[np.int64]:
        at = (np.asarray(times) - domain.start[0]) * rate
        at = np.where(np.abs(at - np.round(at)) < _EPS, np.round(at), np.ceil(at))
        return np.where(times > domain.end[-1], n_bins, np.clip(at, 0, n_bins)).astype(np.int64)

    first, last = row(starts), row(ends)
    at_once = max(1, _SLAB // n_units)
    k = 0
    while k < len(first):
        stop = max(k + 1, int(np.searchsorted(last, first[k] + at_once, side="right")))
        slab = np.asarray(stored[first[k] : last[stop - 1]], dtype=np.float32)
        lengths = last[k:stop] - first[k:stop]
        if lengths.sum() != len(slab) or not real[first[k] : last[stop - 1]].all():
            rows = [np.arange(a, b)[real[a:b]] for a, b in zip(first[k:stop], last[k:stop], strict=True)]
            slab, lengths = slab[np.concatenate(rows) - first[k]], np.array([len(r) for r in rows])
        yield slab, lengths
        k = stop


def _count_events(
    model: GridReader, recording: Data, starts: Floats, ends: Floats
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    times, units, n_units = recording.spikes.timestamps, recording.spikes.unit_index, len(recording.units)
    n_bins = np.round((ends - starts) / model.bin_size).astype(np.int64)
    at_once = max(1, _SLAB // (n_units * max(1, int(n_bins.max(initial=1)))))
    for k in range(0, len(starts), at_once):
        begins, lengths = starts[k : k + at_once], n_bins[k : k + at_once]
        offsets = np.cumsum(lengths) - lengths
        first, last = (np.searchsorted(times, t) for t in (begins, begins + lengths * model.bin_size))
        cells = [np.zeros(0, dtype=np.int64)]
        for w, (a, b) in enumerate(zip(first, last, strict=True)):
            edges = np.arange(lengths[w] + 1) * model.bin_size
            bins = np.searchsorted(edges, times[a:b] - begins[w], side="right") - 1
            inside = (bins >= 0) & (bins < lengths[w])
            cells.append((offsets[w] + bins[inside]) * n_units + units[a:b][inside])
        shape = int(lengths.sum()), n_units
        counts = np.bincount(np.concatenate(cells), minlength=shape[0] * shape[1])
        yield counts.reshape(shape).astype(np.float32), lengths
