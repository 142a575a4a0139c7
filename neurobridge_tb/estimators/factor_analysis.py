"""Bayesian factor analysis: what units share, fitted to activity with or without gaps.

A bin of activity is ``x = mean + L z + noise``: factors z have a standard normal prior, and each unit's noise has a
variance of its own (Rubin and Thayer 1982). Given the units kept in a bin, the posterior of z is Gaussian and exact for
any mask, so hidden units are predicted without a new fit.

Loadings are estimates too. They have a normal prior, one variance a factor, itself fitted: weak factors are shrunk, and
those that nothing supports vanish (automatic relevance determination, Bishop 1999; variational EM, Ghahramani and Beal
2000). What is uncertain of the loadings of a unit fitted to n bins counts in the posterior of z as if the unit spoke
1/n against every factor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats, to_numpy
from neurobridge_tb.errors import InputError

NUMBERS = (0, 1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
_START_NOISE = 0.05  # variance added to every unit in the start: correlations are estimated, and may be singular
LEAST_NOISE = 0.01  # of a unit's variance is its own: a likelihood without bound (Heywood case) is kept finite
_STEPS, _TOLERANCE = 100, 1e-3
_LEAST_PRIOR, _UNUSED = 1e-10, 1e-6  # variances of loadings: kept above 0, and that of a factor that has vanished
_RARE, _FIRST_FACTORS = 0.01, 32  # gaps in fewer of a unit's bins are filled in, from so many image factors
_HELD_OUT = 5  # one bin in so many chooses the number of factors
LEAST_BINS = 2 * _HELD_OUT  # with fewer no factor is fitted
_MASKS = 8
_WORTH = 0.9997  # more factors are worth it if the error falls below this share


@dataclass(frozen=True)
class FactorAnalysis:
    """A fitted factor model.

    Attributes:
        mean: ``(units,)``.
        loadings: ``(units, factors)`` L, in units of the activity; those that explain most come first.
        noise: ``(units,)`` each unit's own variance, above 0.
        bins: ``(units,)`` number of bins that a unit's loadings were fitted to; infinite: they are known.
    """

    mean: Floats
    loadings: Floats
    noise: Floats
    bins: Floats

    def gain(self, kept: NDArray[np.bool_]) -> Floats:
        """``(units, factors)``: the posterior mean given the units kept ``(units,)`` is ``(x - mean) @ gain``."""
        gain = np.zeros(self.loadings.shape)
        gain[kept] = self._posterior(kept)[0]
        return gain

    def posterior(self, values: Array, keep: Array) -> tuple[Floats, Floats]:
        """Mean and variance ``(bins, factors)`` of the factors, given the units kept in each bin.

        Args:
            values: ``(bins, units)``; NaN counts as hidden.
            keep: bool ``(bins, units)``, True where the value may be used.

        Returns:
            Mean, and diagonal of the covariance: the prior, 0 and 1, in a bin without any unit.
        """
        centred = to_floats(values) - self.mean
        mean, variance = np.zeros((2, len(centred), self.loadings.shape[1]))
        for pattern, rows in _patterns(to_numpy(keep).astype(bool) & ~np.isnan(centred)):
            gain, covariance = self._posterior(pattern)
            mean[rows] = centred[np.ix_(rows, pattern)] @ gain
            variance[rows] = np.diag(covariance)
        return mean, variance

    def predict(self, values: Array, keep: Array) -> Floats:
        """Fill in what is hidden: kept values ``(bins, units)`` as they are, predictions elsewhere.

        Args:
            values: ``(bins, units)``; NaN counts as hidden.
            keep: bool ``(bins, units)``, True where the value may be used. A bin without any gets the mean.
        """
        raw = to_floats(values)
        filled = self.posterior(raw, keep)[0] @ self.loadings.T + self.mean
        return np.where(to_numpy(keep).astype(bool) & ~np.isnan(raw), raw, filled)

    def _posterior(self, units: NDArray[Any]) -> tuple[Floats, Floats]:
        """Gain (units, factors), the posterior mean of z being ``x @ gain``, and covariance (factors, factors)."""
        loadings = self.loadings[units]
        if not (k := loadings.shape[1]):
            return loadings, np.zeros((0, 0))
        weighted = loadings / self.noise[units, None]
        doubt = (1 / self.bins[units]).sum()
        covariance = cho_solve(cho_factor((1 + doubt) * np.eye(k) + loadings.T @ weighted), np.eye(k))
        return weighted @ covariance, covariance


@threadpool_limits.wrap(limits=1)  # many small matrices: threads wait for one another
def fit_factor_analysis(x: Array, *, factors: int) -> FactorAnalysis:
    """Fit with at most so many factors, from an image-factor-analysis start.

    Gaps (NaN) in less than 1 % of a unit's bins are filled in by a first fit, others are left out exactly. Bins with
    the same units observed share their sums, so complete activity costs as much as its covariance, and activity whose
    gaps differ from bin to bin a small solve a bin.

    Args:
        x: ``(n, units)`` activity, NaN where absent.
        factors: At most so many; fewer where the activity does not share as many (or has fewer bins or units).

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    inputs, z = _standardised(x)
    return _on_scale_of(inputs, _maximise(_groups(z), image_factors(z, factors)))


@threadpool_limits.wrap(limits=1)
def choose_factor_analysis(
    x: Array, *, numbers: Sequence[int] = NUMBERS, seed: int = 0
) -> tuple[FactorAnalysis, dict[int, float]]:
    """Fit with the fewest factors that predict hidden units of held-out bins as well as any.

    One bin in five is held out, in four stretches; each of eight masks hides 10 to 50 % of the units. Numbers are tried
    from the least on, until twice in a row nothing is gained.

    Args:
        x: ``(n, units)`` activity, NaN where absent.
        numbers: Numbers of factors that are tried.
        seed: Seed of the masks.

    Returns:
        The model, fitted to all bins, and for each number tried the masked error, in units' variances. Where there are
        fewer than ten bins or two units, no number is tried, and there are no factors.

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    inputs, z = _standardised(x)
    stretches = min(4 * _HELD_OUT, len(z))  # fewer bins than that are held out one by one
    held = np.arange(len(z)) * stretches // len(z) % _HELD_OUT == _HELD_OUT - 1
    if len(z) < LEAST_BINS or z.shape[1] < 2:
        return _on_scale_of(inputs, image_factors(z, 0)), {}
    train, test = z[~held], z[held]
    rng = np.random.default_rng(seed)
    keep = rng.random((_MASKS, z.shape[1])) >= rng.uniform(0.1, 0.5, (_MASKS, 1))
    groups, start = _groups(train), image_factors(train, max(numbers))
    errors: dict[int, float] = {}
    for number in sorted({min(n, start.loadings.shape[1]) for n in numbers}):
        first = replace(start, loadings=start.loadings[:, :number])
        errors[number] = _masked_error(_maximise(groups, first), test, keep)
        last = list(errors.values())[-3:]
        if len(last) == 3 and min(last[1:]) > _WORTH * last[0]:
            break
    number = min(n for n, error in errors.items() if _WORTH * error <= min(errors.values()))
    return _on_scale_of(inputs, _maximise(_groups(z), image_factors(z, number))), errors


def image_factors(z: Floats, most: int) -> FactorAnalysis:
    """Image factor analysis (Guttman 1953) of standardised activity: a unit's noise is what the others cannot predict.

    In units of that noise, activity has principal components of variance 1 where there is noise alone. What is above 1
    is a factor.

    Args:
        z: ``(n, units)`` standardised activity; NaN counts as the mean, 0.
        most: At most so many factors, the largest.
    """
    z = np.nan_to_num(z, nan=0.0) if np.isnan(z).any() else z
    n_units = z.shape[1]
    correlation = z.T @ z / max(1, len(z)) + _START_NOISE * np.eye(n_units)
    noise = 1 / np.diag(np.linalg.inv(correlation))
    values, vectors = np.linalg.eigh(correlation / np.sqrt(np.outer(noise, noise)))
    most = min(most, int((values > 1).sum()), len(z) - 1)
    values, vectors = values[::-1][:most], vectors[:, ::-1][:, :most]
    loadings = vectors * np.sqrt(values - 1) * np.sqrt(noise)[:, None]
    return FactorAnalysis(np.zeros(n_units), loadings, noise, np.full(n_units, np.inf))


class _Group(NamedTuple):
    """Bins in which the same units are observed, as ``rows`` with the same second moments."""

    units: NDArray[np.intp]
    rows: Floats
    bins: int


def _standardised(x: Array) -> tuple[Standardizer, Floats]:
    """How activity is standardised, and the result; NaN where a unit has more than rare gaps."""
    values = to_numpy(x)
    if values.ndim != 2 or not len(values) or np.isinf(values).any():
        raise InputError(
            expected="activity (bins, units) of at least one bin, without infinite values",
            found=f"shape {values.shape}, {int(np.isinf(values).sum())} infinite values",
            fix="Leave recordings without windows out, and correct infinite values.",
        )
    inputs = Standardizer.fit(values)
    z = values.astype(np.float64)
    z -= inputs.mean
    z /= inputs.std
    gaps = np.isnan(z)
    rare = gaps & (gaps.mean(0) < _RARE)
    if (rows := rare.any(1)).any():
        z[rare] = image_factors(z, _FIRST_FACTORS).predict(z[rows], ~gaps[rows])[rare[rows]]
    return inputs, z


def _on_scale_of(inputs: Standardizer, fitted: FactorAnalysis) -> FactorAnalysis:
    """Fitted to standardised activity; signs such that a factor's loadings have a positive sum."""
    order = np.argsort(-(fitted.loadings**2 / fitted.noise[:, None]).sum(0), kind="stable")
    loadings = fitted.loadings[:, order]
    loadings = loadings * np.where(loadings.sum(0) < 0, -1.0, 1.0)
    return FactorAnalysis(inputs.mean, loadings * inputs.std[:, None], fitted.noise * inputs.std**2, fitted.bins)


def _patterns(observed: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Each set of units observed together, and the bins in which it is."""
    if len(observed) and (observed == observed[0]).all():  # nothing to sort
        yield np.flatnonzero(observed[0]), np.arange(len(observed))
        return
    packed, which = np.unique(np.packbits(observed, axis=1), axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(packed)))
    for rows in np.split(order, ends[:-1]):
        yield np.flatnonzero(observed[rows[0]]), rows


def _groups(z: Floats) -> list[_Group]:
    groups = []
    for units, rows in _patterns(~np.isnan(z)):
        values = z if (len(rows), len(units)) == z.shape else z[np.ix_(rows, units)]
        if len(rows) > len(units):  # a square root of their second moments does the same
            scale, axes = np.linalg.eigh(values.T @ values)
            values = np.sqrt(np.maximum(scale, 0))[:, None] * axes.T
        groups.append(_Group(units, values, len(rows)))
    return groups


def _maximise(groups: list[_Group], model: FactorAnalysis) -> FactorAnalysis:
    """Variational expectation-maximisation until no loading moves."""
    n_units, k = model.loadings.shape
    power, observed = np.zeros(n_units), np.zeros((n_units, len(groups)), dtype=bool)
    for j, (units, rows, _) in enumerate(groups):
        power[units] += (rows**2).sum(0)
        observed[units, j] = True
    bins = np.maximum(observed @ np.array([group.bins for group in groups]), 1).astype(float)
    kinds, kind = np.unique(observed, axis=0, return_inverse=True)  # units observed in the same groups share a solve
    seen = observed.any(1)
    model = replace(model, bins=bins)
    prior = (model.loadings[seen] ** 2).sum(0) / max(1, seen.sum())
    for _ in range(_STEPS if k else 0):
        cross, moments = np.zeros((n_units, k)), np.zeros((len(groups), k, k))
        for j, (units, rows, n) in enumerate(groups):
            gain, covariance = model._posterior(units)
            scores = rows @ gain
            moments[j] = scores.T @ scores + n * covariance
            cross[units] += rows.T @ scores
        loadings, variance, fit = np.zeros((n_units, k)), np.zeros((n_units, k)), np.zeros(n_units)
        for j, shared in enumerate(kinds):
            if shared.any():
                of_kind = kind.reshape(-1) == j
                moment = np.tensordot(shared, moments, axes=(0, 0))
                loadings[of_kind], variance[of_kind], fit[of_kind] = _loadings(
                    moment, cross[of_kind], model.noise[of_kind], prior
                )
        prior = np.maximum((loadings**2 + variance)[seen].mean(0), _LEAST_PRIOR)
        noise = np.where(seen, (power - 2 * (loadings * cross).sum(1) + fit) / bins, 1.0)
        moved = np.abs(loadings - model.loadings).max()
        model = replace(model, loadings=loadings, noise=np.maximum(noise, LEAST_NOISE))
        if moved < _TOLERANCE:
            break
    return replace(model, loadings=model.loadings[:, prior > _UNUSED])


def _loadings(moment: Floats, cross: Floats, noise: Floats, prior: Floats) -> tuple[Floats, Floats, Floats]:
    """Posterior of the loadings of units that are observed in the same bins.

    Args:
        moment: ``(factors, factors)`` sum of ``z z'`` over these bins.
        cross: ``(units, factors)`` sum of ``x z``.
        noise: ``(units,)``.
        prior: ``(factors,)`` prior variance of the loadings.

    Returns:
        Mean and variance ``(units, factors)`` of the loadings, and ``(units,)`` the sum of ``(L z)^2`` expected.
    """
    scale = np.sqrt(prior)
    values, vectors = np.linalg.eigh(scale[:, None] * moment * scale)
    axes = scale[:, None] * vectors  # a unit's covariance is noise * axes diag(shrunk) axes'
    shrunk = 1 / (np.maximum(values, 0) + noise[:, None])
    mean = (cross @ axes * shrunk) @ axes.T
    fit = ((mean @ moment) * mean).sum(1) + noise * (np.maximum(values, 0) * shrunk).sum(1)
    return mean, noise[:, None] * shrunk @ (axes**2).T, fit


def _masked_error(model: FactorAnalysis, test: Floats, keep: NDArray[np.bool_]) -> float:
    """Mean squared error of hidden units, in variances."""
    squared, count = 0.0, 0
    for kept in keep:
        scored = ~kept & ~np.isnan(test)
        predicted = model.posterior(test, np.broadcast_to(kept, test.shape))[0] @ model.loadings.T
        squared += float(((predicted - test)[scored] ** 2).sum())
        count += int(scored.sum())
    return squared / max(1, count)
