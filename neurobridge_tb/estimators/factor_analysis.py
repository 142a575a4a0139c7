"""Factor analysis: what units share, fitted by expectation-maximisation to activity with or without gaps.

A bin of activity is ``x = mean + L z + noise``: factors z have a standard normal prior, and each unit's noise has a
variance of its own (Rubin and Thayer 1982). Given the units kept in a bin, the posterior of z is Gaussian and exact for
any mask, so hidden units are predicted without a new fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats, to_numpy
from neurobridge_tb.errors import InputError

NUMBERS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
_START_NOISE = 0.05  # variance added to every unit in the start: correlations are estimated, and may be singular
_LEAST_NOISE = 0.01  # of a unit's variance is its own: a likelihood without bound (Heywood case) is kept finite
_STEPS, _TOLERANCE = 100, 1e-3
_HELD_OUT = 5  # one bin in so many chooses the number of factors
_MASKS = 8


@dataclass(frozen=True)
class FactorAnalysis:
    """A fitted factor model.

    Attributes:
        mean: ``(units,)``.
        loadings: ``(units, factors)`` L, in units of the activity; those that explain most come first.
        noise: ``(units,)`` each unit's own variance, above 0.
    """

    mean: Floats
    loadings: Floats
    noise: Floats

    def gain(self, kept: NDArray[np.bool_]) -> Floats:
        """``(units, factors)``: the posterior mean given the units kept ``(units,)`` is ``(x - mean) @ gain``."""
        gain = np.zeros(self.loadings.shape)
        gain[kept] = _posterior(self.loadings[kept], self.noise[kept])[0]
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
            gain, covariance = _posterior(self.loadings[pattern], self.noise[pattern])
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


def fit_factor_analysis(x: Array, *, factors: int) -> FactorAnalysis:
    """Maximum likelihood with a given number of factors, from an image-factor-analysis start.

    Values that are NaN are left out exactly. Bins with the same units observed share their sums, so complete activity
    costs as much as its covariance, and activity whose gaps differ from bin to bin a small solve a bin.

    Args:
        x: ``(n, units)`` activity, NaN where absent.
        factors: At most so many; fewer where the activity does not share as many (or has fewer bins or units).

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    inputs, z = _standardised(x)
    return _on_scale_of(inputs, _maximise(_groups(z), image_factors(z, factors)))


def choose_factor_analysis(
    x: Array, *, numbers: Sequence[int] = NUMBERS, seed: int = 0
) -> tuple[FactorAnalysis, dict[int, float]]:
    """Fit with the number of factors that predicts hidden units of held-out bins best.

    One bin in five is held out, in four stretches; each of eight masks hides 10 to 50 % of the units. Numbers are tried
    from the least on, until the error has risen twice in a row.

    Args:
        x: ``(n, units)`` activity, NaN where absent.
        numbers: Numbers of factors that are tried.
        seed: Seed of the masks.

    Returns:
        The model, fitted to all bins, and for each number tried the masked error, in units' variances. No factors is
        one of the numbers; where there are fewer than ten bins or two units it is the only one.

    Raises:
        InputError: There is no bin, or a value is infinite.
    """
    inputs, z = _standardised(x)
    held = np.arange(len(z)) * 4 * _HELD_OUT // len(z) % _HELD_OUT == _HELD_OUT - 1
    if len(z) < 2 * _HELD_OUT or z.shape[1] < 2:
        return _on_scale_of(inputs, image_factors(z, 0)), {}
    train, test = z[~held], z[held]
    rng = np.random.default_rng(seed)
    keep = rng.random((_MASKS, z.shape[1])) >= rng.uniform(0.1, 0.5, (_MASKS, 1))
    groups, start = _groups(train), image_factors(train, max(numbers))
    errors: dict[int, float] = {}
    for number in sorted({0, *(min(n, start.loadings.shape[1]) for n in numbers)}):
        first = replace(start, loadings=start.loadings[:, :number])
        errors[number] = _masked_error(_maximise(groups, first), test, keep)
        last = list(errors.values())[-3:]
        if len(last) == 3 and last[0] < last[1] < last[2]:
            break
    number = min(errors, key=errors.__getitem__)
    return _on_scale_of(inputs, _maximise(_groups(z), image_factors(z, number))), errors


def image_factors(z: Floats, most: int) -> FactorAnalysis:
    """Image factor analysis (Guttman 1953) of standardised activity: a unit's noise is what the others cannot predict.

    In units of that noise, activity has principal components of variance 1 where there is noise alone. What is above 1
    is a factor.

    Args:
        z: ``(n, units)`` standardised activity; NaN counts as the mean, 0.
        most: At most so many factors, the largest.
    """
    z = np.nan_to_num(z, nan=0.0)
    n_units = z.shape[1]
    correlation = z.T @ z / max(1, len(z)) + _START_NOISE * np.eye(n_units)
    noise = 1 / np.diag(np.linalg.inv(correlation))
    values, vectors = np.linalg.eigh(correlation / np.sqrt(np.outer(noise, noise)))
    most = min(most, int((values > 1).sum()), len(z) - 1)
    values, vectors = values[::-1][:most], vectors[:, ::-1][:, :most]
    return FactorAnalysis(np.zeros(n_units), vectors * np.sqrt(values - 1) * np.sqrt(noise)[:, None], noise)


class _Group(NamedTuple):
    """Bins in which the same units are observed, as ``rows`` with the same second moments."""

    units: NDArray[np.intp]
    rows: Floats
    bins: int


def _standardised(x: Array) -> tuple[Standardizer, Floats]:
    """How activity is standardised, and the result, with its NaN."""
    values = to_floats(x)
    if values.ndim != 2 or not len(values) or np.isinf(values).any():
        raise InputError(
            expected="activity (bins, units) of at least one bin, without infinite values",
            found=f"shape {values.shape}, {int(np.isinf(values).sum())} infinite values",
            fix="Leave recordings without windows out, and correct infinite values.",
        )
    inputs = Standardizer.fit(values)
    return inputs, (values - inputs.mean) / inputs.std


def _on_scale_of(inputs: Standardizer, fitted: FactorAnalysis) -> FactorAnalysis:
    """Fitted to standardised activity; signs such that a factor's loadings have a positive sum."""
    order = np.argsort(-(fitted.loadings**2 / fitted.noise[:, None]).sum(0), kind="stable")
    loadings = fitted.loadings[:, order]
    loadings = loadings * np.where(loadings.sum(0) < 0, -1.0, 1.0)
    return FactorAnalysis(inputs.mean, loadings * inputs.std[:, None], fitted.noise * inputs.std**2)


def _patterns(observed: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Each set of units observed together, and the bins in which it is."""
    packed, which = np.unique(np.packbits(observed, axis=1), axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(packed)))
    for rows in np.split(order, ends[:-1]):
        yield np.flatnonzero(observed[rows[0]]), rows


def _groups(z: Floats) -> list[_Group]:
    groups = []
    for units, rows in _patterns(~np.isnan(z)):
        values = z[np.ix_(rows, units)]
        if len(rows) > len(units):  # a square root of their second moments does the same
            scale, axes = np.linalg.eigh(values.T @ values)
            values = np.sqrt(np.maximum(scale, 0))[:, None] * axes.T
        groups.append(_Group(units, values, len(rows)))
    return groups


def _posterior(loadings: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Gain (units, factors), the posterior mean of z being ``x @ gain``, and covariance (factors, factors)."""
    weighted = loadings / noise[:, None]
    factor = cho_factor(np.eye(loadings.shape[1]) + loadings.T @ weighted) if loadings.shape[1] else None
    covariance = cho_solve(factor, np.eye(loadings.shape[1])) if factor else np.zeros((0, 0))
    return weighted @ covariance, covariance


def _maximise(groups: list[_Group], model: FactorAnalysis) -> FactorAnalysis:
    """Expectation-maximisation until no loading moves; factors are rescaled after each step (Liu et al. 1998)."""
    loadings, noise = model.loadings, model.noise
    n_units, k = loadings.shape
    power, observed = np.zeros(n_units), np.zeros((n_units, len(groups)), dtype=bool)
    for j, (units, rows, _) in enumerate(groups):
        power[units] += (rows**2).sum(0)
        observed[units, j] = True
    bins = np.array([group.bins for group in groups])
    count = np.maximum(observed @ bins, 1)
    kinds, kind = np.unique(observed, axis=0, return_inverse=True)  # units observed in the same groups share a solve
    for _ in range(_STEPS):
        cross, moments = np.zeros((n_units, k)), np.zeros((len(groups), k, k))
        for j, (units, rows, n) in enumerate(groups):
            gain, covariance = _posterior(loadings[units], noise[units])
            scores = rows @ gain
            moments[j] = scores.T @ scores + n * covariance
            cross[units] += rows.T @ scores
        new = np.zeros((n_units, k))
        for j, shared in enumerate(kinds):
            if shared.any():
                of_kind = kind.reshape(-1) == j
                new[of_kind] = np.linalg.solve(np.tensordot(shared, moments, axes=(0, 0)), cross[of_kind].T).T
        noise = np.where(observed.any(1), power / count - (new * cross).sum(1) / count, 1.0)
        noise = np.maximum(noise, _LEAST_NOISE)
        new = new @ np.linalg.cholesky(moments.sum(0) / bins.sum())
        moved, loadings = np.abs(new - loadings).max(initial=0.0), new
        if moved < _TOLERANCE:
            break
    return replace(model, loadings=loadings, noise=noise)


def _masked_error(model: FactorAnalysis, test: Floats, keep: NDArray[np.bool_]) -> float:
    """Mean squared error of hidden units, in variances."""
    squared, count = 0.0, 0
    for kept in keep:
        asked = ~kept & ~np.isnan(test)
        predicted = model.posterior(test, np.broadcast_to(kept, test.shape))[0] @ model.loadings.T
        squared += float(((predicted - test)[asked] ** 2).sum())
        count += int(asked.sum())
    return squared / max(1, count)
