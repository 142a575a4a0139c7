"""Weights of a correction of log-rates, by penalised Poisson regression."""

import numpy as np

from neurobridge_tb.arrays import Floats

HIGHEST = 5.0  # size of a correction of a log-rate
_STEPS, _TOLERANCE, _LARGEST = 50, 1e-5, 1.0


def fit_correction(x: Floats, log_rates: Floats, counts: Floats, *, start: Floats, prior: float) -> Floats:
    """Weights (terms,) of the largest penalised likelihood of counts whose log-rates are ``log_rates + x @ weights``.

    By Newton's method; corrections are bounded by ``HIGHEST`` to either side.

    Args:
        x: (cells, terms).
        log_rates: (cells,) before the correction, counts a bin.
        counts: (cells,).
        start: (terms,) weights that they are drawn to,
        prior: as by so many spikes.
    """
    weights = start
    for _ in range(_STEPS):
        rates = np.exp(log_rates + np.clip(x @ weights, -HIGHEST, HIGHEST))
        slope = x.T @ (rates - counts) + prior * (weights - start)
        curvature = (x * rates[:, None]).T @ x + prior * np.eye(len(weights))
        step = np.clip(np.linalg.solve(curvature, slope), -_LARGEST, _LARGEST)
        weights = weights - step
        if np.abs(step).max() < _TOLERANCE:
            break
    return weights
