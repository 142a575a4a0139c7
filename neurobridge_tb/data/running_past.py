"""The running past of a recording: what each unit did until a window begins, weighted by how long ago."""

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
        self._counts = _binned(recording, bin_size)
        self._exists = None if self._counts.dtype.kind in "iu" else ~np.isnan(self._counts)
        self._chunk = max(1, round(_CHUNK / bin_size), len(self._counts) // _MOST_CHUNKS)
        n_chunks = len(self._counts) // self._chunk + 1
        self._sums = np.zeros((n_chunks, 2, len(self._decay), self._counts.shape[1]), np.float32)
        for k in range(1, n_chunks):
            self._sums[k] = self._advance(self._sums[k - 1], (k - 1) * self._chunk, k * self._chunk)

    def before(self, time: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """S and W, (C, N) each, of the bins that end at ``time`` (s) or earlier."""
        bins = min(max(int(np.floor((time - self.start) / self.bin_size + 1e-6)), 0), len(self._counts))
        chunk = bins // self._chunk
        spikes, width = self._advance(self._sums[chunk], chunk * self._chunk, bins)
        return spikes, width

    def _advance(self, sums: NDArray, first: int, end: int) -> NDArray[np.float32]:
        """Sums before bin ``end`` from those before bin ``first``."""
        some = self._counts[first:end]
        exists = np.ones(some.shape) if self._exists is None else self._exists[first:end]
        weight = self._decay ** np.arange(end - first - 1, -1, -1)[:, None]
        added = np.stack([weight.T @ x for x in (np.nan_to_num(some.astype(float)), exists)])
        return (sums * (self._decay ** (end - first))[:, None] + added).astype(np.float32)


def _binned(recording: Data, bin_size: float) -> NDArray:
    """(T, N) counts of all bins of a recording."""
    if "spike_counts" in recording.keys():
        return np.asarray(recording.spike_counts.value)
    start, end = float(recording.domain.start[0]), float(recording.domain.end[-1])
    bins = np.floor((recording.spikes.timestamps - start) / bin_size + 1e-9).astype(np.int64)
    counts = np.zeros((int(np.ceil((end - start) / bin_size)), len(recording.units)), np.uint16)
    inside = (bins >= 0) & (bins < len(counts))
    np.add.at(counts, (bins[inside], recording.spikes.unit_index[inside]), 1)
    return counts
