"""A baseline that must stand beside a forecast: the last smoothed rate, repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from neurobridge_tb.arrays import Array, Floats, to_floats, to_numpy
from neurobridge_tb.metrics.spikes import poisson_log_likelihood


@dataclass(frozen=True)
class SmoothedRate:
    """Each unit's last smoothed rate, repeated for all of the future.

    The rate is ``(strength * mean + sum w n) / (strength + sum w)`` with ``w = exp(-age / decay)``: an exponential
    average of the past counts n that is drawn to the unit's mean, as a Gamma prior draws a Poisson rate.

    Attributes:
        decay: In bins.
        strength: Weight of the mean, in bins.
    """

    decay: float
    strength: float

    def predict(self, past: Array, present: Array, mean: Array) -> Floats:
        """Expected counts a bin.

        Args:
            past: (B, T, N) counts.
            present: (B, T, N) which of them exist.
            mean: (B, N) each unit's mean count a bin.

        Returns:
            (B, N).
        """
        counts, used = to_floats(past), to_numpy(present).astype(float)
        weight = np.exp(-np.arange(counts.shape[1] - 1, -1, -1) / self.decay)[:, None] * used
        total = np.einsum("btn,btn->bn", weight, counts)
        return (self.strength * to_floats(mean) + total) / (self.strength + weight.sum(1))


def fit_smoothed_rate(
    batches: Sequence[tuple[Array, Array, Array, Array, Array]],
    *,
    decays: Sequence[float] = (1, 2, 4, 8, 16, 32),
    strengths: Sequence[float] = (1, 3, 10, 30),
) -> SmoothedRate:
    """The decay and strength of best Poisson likelihood of the future, over all units alike.

    Args:
        batches: Of ``past``, ``present`` and ``mean`` as :meth:`SmoothedRate.predict` takes them, the counts of the
            future (B, F, N), and which of these are scored (B, F, N).
        decays: Decays tried, in bins.
        strengths: Strengths tried, in bins.
    """

    def likelihood(candidate: SmoothedRate) -> float:
        total = 0.0
        for past, present, mean, future, mask in batches:
            rates = candidate.predict(past, present, mean)[:, None]
            gain = poisson_log_likelihood(rates, future)
            total += float(gain[to_numpy(mask).astype(bool)].sum())
        return total

    return max((SmoothedRate(*pair) for pair in product(decays, strengths)), key=likelihood)
