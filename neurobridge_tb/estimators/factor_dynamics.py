"""How factors follow each other from bin to bin, in closed form."""

from collections.abc import Sequence

import numpy as np

from neurobridge_tb.arrays import Array, Floats, to_floats
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis

LARGEST = 0.98  # singular value: the noise of a step is never 0
_LEAST = 1e-6  # variance of a posterior mean: below it the units tell nothing of a factor


def fit_dynamics(model: FactorAnalysis, activity: Array, lengths: Sequence[int]) -> Floats:
    """``(factors, factors)`` A of ``z_t = A z_{t-1} + noise`` of covariance ``I - A A'``: each z is standard normal.

    A is the correlation of the posterior means with those one bin before, both whitened. So a factor that the units
    tell little of is taken to follow little, and singular values are at most 1 but for sampling.

    Args:
        model: Factors of a bin.
        activity: ``(bins, units)``, windows one after the other; NaN where absent.
        lengths: Bins of each window.
    """
    values = to_floats(activity)
    means = model.posterior(values, np.ones(values.shape, dtype=bool))[0]
    follows = np.ones(len(means), dtype=bool)
    follows[np.cumsum([0, *lengths[:-1]])] = False
    if not follows.any():
        return np.zeros((means.shape[1],) * 2)
    now, before = means[follows], means[np.flatnonzero(follows) - 1]
    variance, axes = np.linalg.eigh(means.T @ means / len(means))
    known = variance > _LEAST
    whiten = (axes[:, known] / np.sqrt(variance[known])) @ axes[:, known].T
    left, strength, right = np.linalg.svd(whiten @ (now.T @ before / len(now)) @ whiten)
    return (left * np.minimum(strength, LARGEST)) @ right
