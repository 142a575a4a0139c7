"""Baselines that must stand beside a forecast: the last smoothed rate, drawn to the reference or to the recent mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from neurobridge_tb.arrays import Array, Floats, to_floats, to_numpy
from neurobridge_tb.metrics.spikes import poisson_log_likelihood


@dataclass(frozen=True)
class Windows:
    """What the baselines read of a batch of windows, and what came.

    Attributes:
        past: (B, T, N) counts.
        present: (B, T, N) which of them exist.
        mean: (B, N) each unit's mean count a bin in training.
        recent_spikes: (B, C, N) spikes before the window, weighted by their age with C time constants.
        recent_bins: (B, C, N) bins before it, weighted alike.
        future: (B, F, N) counts to forecast.
        scored: (B, F, N) which of them are scored.
    """

    past: Array
    present: Array
    mean: Array
    recent_spikes: Array
    recent_bins: Array
    future: Array
    scored: Array


@dataclass(frozen=True)
class SmoothedRate:
    """Each unit's last smoothed rate, repeated for all of the future.

    The rate is ``(strength * mean + sum w n) / (strength + sum w)`` with ``w = exp(-age / decay)``: an exponential
    average of the past counts n that is drawn to the unit's mean, as a Gamma prior draws a Poisson rate. The mean is
    that of training, or, where rates drift, the recent one: ``(prior * mean + S) / (prior + W)`` with the spikes S and
    bins W of the running past (recent trials too), weighted by their age.

    Attributes:
        decay: In bins.
        strength: Weight of the mean, in bins.
        constant: Which time constant of the running past. Default: none, the mean is that of training.
        prior: Weight of the training mean in the recent mean, in bins.
    """

    decay: float
    strength: float
    constant: int | None = None
    prior: float = 0.0

    def predict(self, windows: Windows) -> Floats:
        """(B, N) expected counts a bin."""
        counts, used = to_floats(windows.past), to_numpy(windows.present).astype(float)
        mean = to_floats(windows.mean)
        if self.constant is not None:
            spikes, bins = (to_floats(x)[:, self.constant] for x in (windows.recent_spikes, windows.recent_bins))
            mean = (self.prior * mean + spikes) / (self.prior + bins)
        weight = np.exp(-np.arange(counts.shape[1] - 1, -1, -1) / self.decay)[:, None] * used
        total = np.einsum("btn,btn->bn", weight, counts)
        return (self.strength * mean + total) / (self.strength + weight.sum(1))


def fit_smoothed_rate(
    batches: Sequence[Windows],
    *,
    decays: Sequence[float] = (1, 2, 4, 8, 16, 32),
    strengths: Sequence[float] = (1, 3, 10, 30),
    priors: Sequence[float] = (),
) -> SmoothedRate:
    """The settings of best Poisson likelihood of the future, over all units alike.

    Args:
        batches: Windows to choose on.
        decays: Decays tried, in bins.
        strengths: Strengths tried, in bins.
        priors: Weights of the training mean in the recent mean that are tried, in bins, each with each time constant of
            the running past. Default: the mean is that of training.
    """
    used = [to_numpy(batch.scored).astype(bool) for batch in batches]
    counts = [to_floats(batch.future)[mask] for batch, mask in zip(batches, used, strict=True)]

    def likelihood(candidate: SmoothedRate) -> float:
        total = 0.0
        for batch, mask, observed in zip(batches, used, counts, strict=True):
            rates = np.broadcast_to(candidate.predict(batch)[:, None], mask.shape)[mask]
            total += float(poisson_log_likelihood(rates, observed).sum())
        return total

    def best_smoothing(start: SmoothedRate) -> SmoothedRate:
        tried = (replace(start, decay=d, strength=s) for d, s in product(decays, strengths))
        return max(tried, key=likelihood)

    if not priors:
        return best_smoothing(SmoothedRate(decays[0], strengths[0]))
    best = SmoothedRate(decays[len(decays) // 2], strengths[len(strengths) // 2])
    for _ in range(2):  # either pair of settings, given the other
        constants = range(to_numpy(batches[0].recent_bins).shape[1])
        tried = (replace(best, constant=c, prior=k) for c, k in product(constants, priors))
        best = best_smoothing(max(tried, key=likelihood))
    return best
