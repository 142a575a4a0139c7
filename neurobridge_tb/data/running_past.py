"""The running past of a recording: what each unit did until a window begins, weighted by how long ago."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data

_CHUNK = 1.0  # s between the sums that are kept, at least
_MOST_CHUNKS = 500


class RunningPast:
    """Exponentially weighted spikes and bins of each unit before any bin of a recording.

    For a bin i and a time constant c they are ``S = sum_{j<i} d^(i-1-j) n_j`` and ``W = sum_{j<i} d^(i-1-j)`` with ``d
    = exp(-bin_size / c)``, over the bins j that exist; nothing at or after bin i is read.

    Args:
        recording: Spikes or spike counts.
        bin_size: In s; for spike counts the recording's own.
        time_constants: In s.
    """

    def __init__(self, recording: Data, bin_size: float, time_constants: tuple[float, ...]):
        self.bin_size, self.start = bin_size, float(recording.domain.start[0])
        self._decay = np.exp(-bin_size / np.asarray(time_constants))
        self._spikes, self._missing = _sparse(recording, bin_size)
        self.n_units = len(recording.units)
        self.n_bins = round((float(recording.domain.end[-1]) - self.start) / bin_size)
        self._chunk = max(1, round(_CHUNK / bin_size), self.n_bins // _MOST_CHUNKS)
        self._sums = np.zeros((self.n_bins // self._chunk + 1, 2, len(self._decay), self.n_units), np.float32)
        for k in range(1, len(self._sums)):
            self._sums[k] = self._advance(self._sums[k - 1], (k - 1) * self._chunk, k * self._chunk)

    def before(self, time: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """S and W, (C, N) each, of the bins that end at ``time`` (s) or earlier."""
        bins = min(max(int(np.floor((time - self.start) / self.bin_size + 1e-6)), 0), self.n_bins)
        chunk = bins // self._chunk
        spikes, width = self._advance(self._sums[chunk], chunk * self._chunk, bins)
        return spikes, width

    def _advance(self, sums: NDArray, first: int, end: int) -> NDArray[np.float32]:
        """Sums before bin ``end`` from those before bin ``first``."""
        weight = self._decay[:, None] ** np.arange(end - first - 1, -1, -1)  # (C, bins)
        width = np.repeat(weight.sum(1)[:, None], self.n_units, axis=1)
        if self._missing is not None:
            width -= weight @ self._missing[first:end]
        some = slice(*np.searchsorted(self._spikes.bins, [first, end]))
        bins, units, counts = (x[some] for x in self._spikes)
        spikes = np.stack([np.bincount(units, w[bins - first] * counts, self.n_units) for w in weight])
        return (sums * (self._decay ** (end - first))[:, None] + np.stack([spikes, width])).astype(np.float32)


class _Spikes(NamedTuple):
    """Bins that hold spikes, in order of time, the unit of each, and how many."""

    bins: NDArray[np.int64]
    units: NDArray[np.int64]
    counts: NDArray


def _sparse(recording: Data, bin_size: float) -> tuple[_Spikes, NDArray[np.bool_] | None]:
    """The spikes of a recording, and which (bin, unit) of its counts are missing; None: no one is."""
    if "spike_counts" in recording.keys():
        values = np.asarray(recording.spike_counts.value)
        missing = np.isnan(values) if values.dtype.kind == "f" else None
        bins, units = np.nonzero(np.nan_to_num(values))
        return _Spikes(bins, units, values[bins, units]), missing if missing is not None and missing.any() else None
    times = np.asarray(recording.spikes.timestamps) - float(recording.domain.start[0])
    order = np.argsort(times, kind="stable")
    bins, units = np.floor(times[order] / bin_size + 1e-9).astype(np.int64), np.asarray(recording.spikes.unit_index)
    return _Spikes(bins, units[order].astype(np.int64), np.ones(len(bins))), None
