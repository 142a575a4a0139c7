"""Gains over the null model window by window: intervals of scores, and of paired differences between forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.metrics.spikes import TRAINED, poisson_log_likelihood
from neurobridge_tb.scoring.unit_rates import UnitRates

_RESAMPLES = 2000


class WindowGains:
    """Collects, of each window and bin of the future, every forecast's gain in bits and the spikes.

    Args:
        names: The forecasts.
        trained: Spikes and rates of the units in training, by unit index; the rates are the null model.
    """

    def __init__(self, names: Sequence[str], trained: UnitRates):
        self.names, self.null = list(names), trained.mean
        self._members = np.stack([trained.spikes >= least for least in TRAINED.values()])
        self._parts: list[tuple[Floats, ...]] = []
        self._recordings: list[str] = []

    def update(
        self, recordings: Sequence[str], forecasts: Mapping[str, Floats], counts: Floats, mask: Floats, units: Floats
    ) -> None:
        """Add a batch.

        Args:
            recordings: (B,) whose the windows are.
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
        self._recordings += list(recordings)

    def arrays(self) -> dict[str, np.ndarray]:
        """Gains in bits, and spikes.

        Returns:
            ``window_gain`` (windows, forecasts, T), ``window_spikes`` (windows, T), ``window_recording``; and over the
            units of each entry of ``TRAINED`` ``trained_gain`` (windows, forecasts, entries) and ``trained_spikes``
            (windows, entries), of all the future.
        """
        names = ("window_gain", "window_spikes", "trained_gain", "trained_spikes")
        arrays = dict(zip(names, map(np.concatenate, zip(*self._parts, strict=True)), strict=True))
        return arrays | {"window_recording": np.array(self._recordings)}


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
