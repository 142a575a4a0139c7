"""Intervals of means over seeds, and over seeds and queries."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from neurobridge_tb.arrays import Floats, to_floats

_RESAMPLES = 4000


def mean_over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval of Student's t over seeds.

    Args:
        values: (seeds,). Of one seed there is no interval.

    Returns:
        ``value`` and, of two seeds or more, ``low`` and ``high``.
    """
    x = to_floats(np.asarray(values))
    mean = float(x.mean())
    if len(x) < 2:
        return {"value": mean}
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return {"value": mean, "low": mean - half, "high": mean + half}


def mean_over_queries(values: Sequence[Floats], *, same: bool, seed: int = 0) -> dict[str, float]:
    """Mean and 95 % bootstrap interval over seeds and queries, both drawn anew (Owen 2007, the pigeonhole bootstrap).

    Of one seed, queries alone are drawn. With few seeds the interval is rather too wide for what comes from queries
    and too narrow for what comes from seeds: three draws of three seeds are one and the same in one case of nine.

    Args:
        values: Of each seed (queries,), e.g. hits, or differences of hits.
        same: Whether all seeds have the same queries, in the same order: then they are drawn together.
        seed: Of the bootstrap.

    Returns:
        ``value``, ``low`` and ``high``.
    """
    rng = np.random.default_rng(seed)
    arrays = [to_floats(v) for v in values]
    means = np.empty((_RESAMPLES, len(arrays)))
    together = rng.integers(0, len(arrays[0]), (_RESAMPLES, len(arrays[0]))) if same else None
    for k, array in enumerate(arrays):
        drawn = rng.integers(0, len(array), (_RESAMPLES, len(array))) if together is None else together
        means[:, k] = array[drawn].mean(1)
    seeds = rng.integers(0, len(arrays), (_RESAMPLES, len(arrays)))
    low, high = np.percentile(np.take_along_axis(means, seeds, 1).mean(1), [2.5, 97.5])
    return {"value": float(np.mean([a.mean() for a in arrays])), "low": float(low), "high": float(high)}
