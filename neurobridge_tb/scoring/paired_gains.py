"""Gains over the null model window by window: intervals of scores, and of paired differences between forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.metrics.spikes import TRAINED, poisson_log_likelihood
from neurobridge_tb.scoring.unit_rates import UnitRates

_RESAMPLES = 2000
_ROUNDING = 1e-6  # s


class WindowGains:
    """Collects, of each window and bin of the future, every forecast's gain in bits and the spikes.

    Windows that overlap are no draws of their own: all that begin within one window's length are summed.

    Args:
        names: The forecasts.
        trained: Spikes and rates of the units in training, by unit index; the rates are the null model.
        length: Of a window, past and future, in s.
    """

    def __init__(self, names: Sequence[str], trained: UnitRates, length: float):
        self.names, self.null, self.length = list(names), trained.mean, length
        self._members = np.stack([trained.spikes >= least for least in TRAINED.values()])
        self._parts: list[tuple[Floats, ...]] = []
        self._recordings: list[str] = []
        self._firsts: list[int] = []  # of all windows, the first of each that are summed
        self._begin = 0.0

    def update(
        self,
        recordings: Sequence[str],
        starts: Floats,
        forecasts: Mapping[str, Floats],
        counts: Floats,
        mask: Floats,
        units: Floats,
    ) -> None:
        """Add a batch.

        Args:
            recordings: (B,) whose the windows are, in order.
            starts: (B,) when they begin, in s, in order within a recording.
            forecasts: (B, T, N) rates of each forecast.
            counts: (B, T, N) observed.
            mask: (B, T, N) bool, which cells are scored.
            units: (B, N) index of each unit.
        """
        base = poisson_log_likelihood(self.null[units][:, None], counts)
        gains = np.stack([poisson_log_likelihood(forecasts[name], counts) - base for name in self.names], axis=1)
        gains, spikes = np.where(mask[:, None], gains, 0) / np.log(2), np.where(mask, counts, 0)
        members = self._members[:, units].swapaxes(0, 1)  # (B, groups, N)
        of_groups = (np.einsum("bn,bgn->bg", x.sum(1), members) for x in (spikes, *gains.swapaxes(0, 1)))
        spikes_of, *gains_of = of_groups
        self._parts.append((gains.sum(3), spikes.sum(2), np.stack(gains_of, axis=1), spikes_of))
        for recording, start in zip(recordings, starts.tolist(), strict=True):
            since = start - self._begin
            if self._recordings[-1:] != [recording] or not 0 <= since < self.length - _ROUNDING:
                self._firsts.append(len(self._recordings))
                self._begin = start
            self._recordings.append(recording)

    def arrays(self) -> dict[str, np.ndarray]:
        """Gains in bits, and spikes, of windows that do not overlap and sums over those that do.

        Returns:
            ``window_gain`` (windows, forecasts, T), ``window_spikes`` (windows, T), ``window_recording``; and over the
            units of each entry of ``TRAINED`` ``trained_gain`` (windows, forecasts, entries) and ``trained_spikes``
            (windows, entries), of all the future.
        """
        names = ("window_gain", "window_spikes", "trained_gain", "trained_spikes")
        parts = (np.add.reduceat(np.concatenate(x), self._firsts) for x in zip(*self._parts, strict=True))
        return dict(zip(names, parts, strict=True)) | {"window_recording": np.array(self._recordings)[self._firsts]}


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bits_per_spike_of(gains: Sequence[Floats], spikes: Sequence[Floats], seed: int = 0) -> Estimate:
    """Mean over recordings of their bits/spike; windows are drawn anew within each recording.

    A paired difference is the estimate for the difference of two forecasts' gains on the same windows.

    Args:
        gains: (windows,) of each recording, in bits.
        spikes: (windows,) of each recording.
        seed: Of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    values, drawn = [], []
    for gain, count in zip(gains, spikes, strict=True):
        index = rng.integers(0, len(gain), (_RESAMPLES, len(gain)))
        values.append(gain.sum() / count.sum())
        drawn.append(gain[index].sum(1) / count[index].sum(1))
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))
