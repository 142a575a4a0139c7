"""Gains over the null model window by window: intervals of scores, and of paired differences between forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.metrics.spikes import poisson_log_likelihood

_RESAMPLES = 2000


class WindowGains:
    """Collects, of each window and bin of the future, every forecast's gain in bits and the spikes.

    Args:
        names: The forecasts.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self._gains: list[Floats] = []
        self._spikes: list[Floats] = []
        self._recordings: list[str] = []

    def update(
        self, recordings: Sequence[str], forecasts: Mapping[str, Floats], counts: Floats, mask: Floats, null: Floats
    ) -> None:
        """Add a batch.

        Args:
            recordings: (B,) whose the windows are.
            forecasts: (B, T, N) rates of each forecast.
            counts: (B, T, N) observed.
            mask: (B, T, N) bool, which cells are scored.
            null: (B, N) rates of the null model.
        """
        base = poisson_log_likelihood(null[:, None], counts)
        gains = [poisson_log_likelihood(forecasts[name], counts) - base for name in self.names]
        self._gains.append(np.stack([np.where(mask, g, 0).sum(2) for g in gains], axis=1) / np.log(2))
        self._spikes.append(np.where(mask, counts, 0).sum(2))
        self._recordings += list(recordings)

    def arrays(self) -> dict[str, np.ndarray]:
        """``window_gain`` (windows, forecasts, T) in bits, ``window_spikes`` (windows, T), ``window_recording``."""
        return {
            "window_gain": np.concatenate(self._gains),
            "window_spikes": np.concatenate(self._spikes),
            "window_recording": np.array(self._recordings),
        }


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
