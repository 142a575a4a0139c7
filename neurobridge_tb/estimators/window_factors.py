"""Factors of windows of bins, at two time scales: of a window's mean, and of the bins around it.

Rates drift from trial to trial. In one bin a drift is small beside the noise, and factor analysis of bins passes over
it; in the mean of a window it is large. So factors are fitted to both: slow ones to the means of windows, fast ones to
the deviations from them, of each the number that predicts hidden units best, but 16 at least, or one for four units.
Masks within a bin do not show what fast factors tell of the bins around it, and the loadings' prior shrinks those that
are too many. Together, with how they follow each other (:mod:`neurobridge_tb.estimators.factor_dynamics`), they are one
linear dynamical system with an exact posterior. To forecast, more of them are fitted.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import block_diag

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats
from neurobridge_tb.estimators.factor_analysis import (
    LEAST_BINS,
    LEAST_NOISE,
    FactorAnalysis,
    choose_factor_analysis,
    fit_factor_analysis,
)
from neurobridge_tb.estimators.factor_dynamics import LARGEST, fit_dynamics

_LEAST, _UNITS = 16, 4  # factors of each time scale that are tried at least, or one for so many units


def fit_window_factors(
    activity: Array, lengths: Sequence[int], *, numbers: Sequence[int], seed: int = 0
) -> tuple[FactorAnalysis, Floats, dict[str, float]]:
    """Fit slow and fast factors; where windows have one bin, or their means share nothing, factors of bins alone.

    Args:
        activity: ``(bins, units)`` in each unit's standard deviations around its mean, windows one after the other; NaN
            where absent.
        lengths: Bins of each window.
        numbers: Numbers of factors that are tried; where there are two time scales those of at least 16 for each, or
            a quarter of the units, or the largest. Together there are at most as many as the largest, those that
            explain most.
        seed: Seed of the masks that choose the numbers.

    Returns:
        The factors of a bin, the slow ones first; their dynamics A ``(factors, factors)``; and the masked errors of the
        numbers tried, in units' variances: by number, and by ``window means, number``.

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    x = to_floats(activity)
    tried: list[dict[str, float]] = []

    def choosing(numbers: Sequence[int]) -> Callable[[Floats], FactorAnalysis]:
        def fit(part: Floats) -> FactorAnalysis:
            model, errors = choose_factor_analysis(part, numbers=numbers, seed=seed)
            tried.append({str(n): error for n, error in errors.items()})
            return model

        return fit

    many = [n for n in numbers if n >= min(_LEAST, x.shape[1] // _UNITS, max(numbers))]
    slow, fast = _fit_scales(x, lengths, choosing([0, *many]), choosing(many), choosing(numbers))
    errors = tried[-1]
    if slow is not None:
        errors |= {f"window means, {n}": error for n, error in tried[0].items()}
    return *_together(x, slow, fast, lengths, most=max(numbers)), errors


def window_factors_to_forecast(
    activity: Array, lengths: Sequence[int], *, slow: int, fast: int
) -> tuple[FactorAnalysis, Floats]:
    """Fit given numbers of slow and fast factors, more than would fill in hidden units best.

    What comes next is told by more of them (measured in docs/forecasting.md). Their loadings' prior shrinks the weak
    ones.

    Args:
        activity: ``(bins, units)`` as of :func:`fit_window_factors`.
        lengths: Bins of each window.
        slow: At most so many slow factors; none where there are fewer than ten windows.
        fast: At most so many fast ones; none of fewer than ten bins.

    Returns:
        The factors of a bin, the slow ones first, and their dynamics A.

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    x = to_floats(activity)

    def at_most(factors: int) -> Callable[[Floats], FactorAnalysis]:
        return lambda part: fit_factor_analysis(part, factors=factors if len(part) >= LEAST_BINS else 0)

    scales = _fit_scales(x, lengths, at_most(slow), at_most(fast), at_most(fast))
    return _together(x, *scales, lengths, most=slow + fast)


def _fit_scales(
    x: Floats,
    lengths: Sequence[int],
    fit_slow: Callable[[Floats], FactorAnalysis],
    fit_fast: Callable[[Floats], FactorAnalysis],
    fit_bins: Callable[[Floats], FactorAnalysis],
) -> tuple[FactorAnalysis | None, FactorAnalysis]:
    """Factors of windows' means, where these share some, and of the deviations from them; else of bins alone."""
    if len(x) > len(lengths) > 0:  # windows of several bins
        means, weight = _window_means(x, lengths)
        slow = fit_slow(means * weight)
        if slow.loadings.shape[1]:
            return slow, fit_fast(x - np.repeat(means, lengths, axis=0))
    return None, fit_bins(x)


def _together(
    x: Floats, slow: FactorAnalysis | None, fast: FactorAnalysis, lengths: Sequence[int], *, most: int
) -> tuple[FactorAnalysis, Floats]:
    """Factors of a bin from those of windows' means and of the deviations from them, and their dynamics."""
    if slow is None:
        return fast, fit_dynamics(fast, x, lengths)
    n_bins = len(x) / len(lengths)
    loadings = np.hstack([slow.loadings / np.sqrt(n_bins), fast.loadings * np.sqrt(n_bins / (n_bins - 1))])
    is_slow = np.arange(loadings.shape[1]) < slow.loadings.shape[1]
    kept = np.sort(np.argsort(-(loadings**2 / fast.noise[:, None]).sum(0), kind="stable")[:most])
    loadings, is_slow = loadings[:, kept], is_slow[kept]
    variance = Standardizer.fit(x).std ** 2  # 1 of a unit that never changes, which so tells nothing
    noise = np.maximum(variance - (loadings**2).sum(1), LEAST_NOISE * variance)
    model = FactorAnalysis(np.zeros(x.shape[1]), loadings, noise, fast.bins)
    of_fast = FactorAnalysis(model.mean, loadings[:, ~is_slow], noise, fast.bins)
    return model, block_diag(LARGEST * np.eye(int(is_slow.sum())), fit_dynamics(of_fast, x, lengths))


def _window_means(x: Floats, lengths: Sequence[int]) -> tuple[Floats, Floats]:
    """Means ``(windows, units)`` of what is there, NaN where nothing is, and the roots of how many bins these are."""
    starts = np.cumsum([0, *lengths[:-1]])
    there = np.add.reduceat(~np.isnan(x), starts, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.nan_to_num(x, nan=0.0), starts, axis=0)
    return np.where(there, sums / np.maximum(there, 1), np.nan), np.sqrt(there)
