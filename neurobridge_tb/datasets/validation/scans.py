"""What is in a recording's arrays, read by slabs: a file of any size is never in memory as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

_SLAB_BYTES = 32 * 2**20


@dataclass(frozen=True)
class TimesScan:
    """Of the timestamps of an irregular series.

    Attributes:
        count: Number of timestamps.
        first: Earliest finite timestamp in s, NaN where there is none.
        last: Latest one.
        unsorted_at: First row that is not finite or earlier than the one before it; None: all are in order.
        n_fractional: Timestamps that are no whole numbers.
        before: Number of timestamps before each time of the grid.
    """

    count: int
    first: float
    last: float
    unsorted_at: int | None
    n_fractional: int
    before: NDArray[np.int64]


@dataclass(frozen=True)
class GridScan:
    """Of values (T, N) on a regular grid; columns are units.

    Attributes:
        total: Sum of the finite values of each unit, (N,).
        finite: Number of finite values of each unit, (N,).
        varies: Whether a unit has two different finite values, (N,).
        minimum: Least finite value, NaN where there is none.
        maximum: Largest finite value.
        n_nan: NaN over all units.
        n_inf: Infinite values over all units.
        n_fractional: Finite values that are not whole.
        absent: First row and row after the last of each stretch without any finite value, (n, 2).
        idle: The same of stretches without any finite value but 0.
    """

    total: NDArray[np.float64]
    finite: NDArray[np.int64]
    varies: NDArray[np.bool_]
    minimum: float
    maximum: float
    n_nan: int
    n_inf: int
    n_fractional: int
    absent: NDArray[np.int64]
    idle: NDArray[np.int64]


def stretches(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First row and row after the last of each stretch of rows for which something holds, (n, 2)."""
    return np.flatnonzero(np.diff(rows, prepend=False, append=False)).reshape(-1, 2)


def slabs(dataset: h5py.Dataset) -> Iterator[tuple[int, NDArray]]:
    """First row and content of consecutive slabs of a dataset, at most 32 MiB or one chunk's rows each."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    chunk_rows = dataset.chunks[0] if dataset.chunks else 1
    rows = max(1, _SLAB_BYTES // row_bytes // chunk_rows) * chunk_rows
    for first in range(0, len(dataset), rows):
        yield first, dataset[first : first + rows]


def scan_times(timestamps: h5py.Dataset, grid: NDArray[np.float64]) -> TimesScan:
    """Scan timestamps (n,) in s; ``grid`` holds sorted times before which they are counted."""
    before = np.zeros(len(grid), dtype=np.int64)
    unsorted_at, previous, n_fractional = None, -np.inf, 0
    least, most = np.inf, -np.inf
    for first, times in slabs(timestamps):
        wrong = np.flatnonzero(~(np.diff(times, prepend=previous) >= 0) | ~np.isfinite(times))
        if unsorted_at is None and len(wrong):
            unsorted_at = first + int(wrong[0])
        previous = times[-1]
        before += np.searchsorted(times, grid)
        n_fractional += int((times != np.floor(times)).sum())
        finite = times[np.isfinite(times)]
        if len(finite):
            least, most = min(least, finite.min()), max(most, finite.max())
    any_finite = least <= most
    return TimesScan(
        count=len(timestamps),
        first=float(least) if any_finite else np.nan,
        last=float(most) if any_finite else np.nan,
        unsorted_at=unsorted_at,
        n_fractional=n_fractional,
        before=before,
    )


def scan_unit_index(unit_index: h5py.Dataset, n_units: int) -> tuple[NDArray[np.int64], int | None]:
    """Spikes of each unit, (N,), and the first row whose index is not from 0 to N - 1 (None: there is none)."""
    spikes, wrong_at = np.zeros(n_units, dtype=np.int64), None
    for first, index in slabs(unit_index):
        inside = (index >= 0) & (index < n_units)
        if wrong_at is None and not inside.all():
            wrong_at = first + int(np.argmin(inside))
        spikes += np.bincount(index[inside].astype(np.int64), minlength=n_units)
    return spikes, wrong_at


def scan_grid(value: h5py.Dataset) -> GridScan:
    """Scan numbers (T, ...), whose columns are flattened to (T, N)."""
    n_units = int(np.prod(value.shape[1:]))
    total, finite = np.zeros(n_units), np.zeros(n_units, dtype=np.int64)
    low, high = np.full(n_units, np.inf), np.full(n_units, -np.inf)
    n_nan = n_inf = n_fractional = 0
    is_absent, is_idle = np.zeros(len(value), dtype=bool), np.zeros(len(value), dtype=bool)
    for first, slab in slabs(value):
        slab = slab.reshape(len(slab), n_units)
        is_idle[first : first + len(slab)] = (np.isnan(slab) | (slab == 0)).all(axis=1)
        if slab.dtype.kind != "f":
            total += slab.sum(axis=0, dtype=np.float64)
            finite += len(slab)
            low, high = np.minimum(low, slab.min(axis=0)), np.maximum(high, slab.max(axis=0))
            continue
        good = np.isfinite(slab)
        is_absent[first : first + len(slab)] = ~good.any(axis=1)
        n_nan += int(np.isnan(slab).sum())
        n_inf += int(np.isinf(slab).sum())
        total += slab.sum(axis=0, dtype=np.float64, where=good)
        finite += good.sum(axis=0)
        low = np.minimum(low, slab.min(axis=0, where=good, initial=np.inf))
        high = np.maximum(high, slab.max(axis=0, where=good, initial=-np.inf))
        n_fractional += int((slab != np.floor(slab)).sum(where=good))
    any_finite = bool(finite.any())
    return GridScan(
        total=total,
        finite=finite,
        varies=low < high,
        minimum=float(low.min()) if any_finite else np.nan,
        maximum=float(high.max()) if any_finite else np.nan,
        n_nan=n_nan,
        n_inf=n_inf,
        n_fractional=n_fractional,
        absent=stretches(is_absent),
        idle=stretches(is_idle),
    )
