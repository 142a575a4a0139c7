"""Poisson regression of counts on lagged activity, one for each unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from neurobridge_tb.arrays import Array, Floats, RowBlocks, Standardizer, row_blocks, to_floats, to_numpy
from neurobridge_tb.estimators.ridge import principal_axes
from neurobridge_tb.metrics.spikes import PRIOR_SPIKES, poisson_log_likelihood

_HIGHEST = 20.0  # log-rate
_MOST_VALUES = 2**26  # of the inputs that are kept along their axes (512 MB); larger ones are read block by block
_FLATTEST = 1e-12  # curvature, of a unit without counts


def fit_poisson_glm(
    x: Array | RowBlocks,
    counts: Array,
    x_valid: Array | RowBlocks,
    counts_valid: Array,
    x_test: Array | RowBlocks,
    *,
    prior: Array | None = None,
    penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
) -> Floats:
    """Rates of one Poisson GLM a unit, each with the penalty of best validation likelihood.

    Penalties are tried from the strongest down, for a unit as long as its validation likelihood rises.

    The estimator is scikit-learn's ``PoissonRegressor``; all units are fitted together, in coordinates where that takes
    a fraction of the time. Along the principal axes of the inputs (as many as there are bins, if these are fewer than
    the features) an L2 penalty is the same, and the second derivatives are nearly ``rate * variance + penalty`` along
    each axis and nothing between axes: L-BFGS starts from these. A rate is at most the unit's largest training count
    (1 if that is less): an exponential that is extrapolated can cost more than all else.

    ``prior`` counts are added to each bin: without features the rate would be the mean of the null model
    (:func:`neurobridge_tb.metrics.spikes.posterior_mean`), also of a unit that is silent in training.

    Args:
        x: ``(n, features)`` inputs, e.g. from :func:`lagged`; standardised, NaN set to the training mean. Those that do
            not fit into memory may be made some rows at a time.
        counts: ``(n, units)`` counts to predict; NaN are left out.
        x_valid: ``(m, features)``.
        counts_valid: ``(m, units)``; NaN are left out.
        x_test: ``(k, features)``.
        prior: ``(units,)`` counts added to each training bin. Default: half a spike, spread over the training bins.
            Give ``PRIOR_SPIKES / bins`` where the null model's span has more bins than ``x``.
        penalties: L2 penalties tried, on the scale of scikit-learn's mean deviance.

    Returns:
        ``(k, units)`` expected counts a bin on the test inputs.
    """
    inputs = Standardizer.fit(x)
    observed, observed_valid = to_floats(counts), to_floats(counts_valid)
    present = ~np.isnan(observed)
    n = np.maximum(present.sum(0), 1)
    most = np.max(observed, axis=0, where=present, initial=1.0)
    added = np.broadcast_to(PRIOR_SPIKES / n if prior is None else to_floats(prior), n.shape)
    mean = np.sum(observed, axis=0, where=present) / n + added
    observed = np.where(present, observed + added, 0.0)
    share = present / n  # of each bin in a unit's mean
    with threadpool_limits(1):  # the products are small: more threads only wait for one another
        values, axes = principal_axes(inputs, x)
        train, valid, test = (_Rotated.of(inputs, rows, axes) for rows in (x, x_valid, x_test))
        weights = np.vstack([np.zeros((len(values), len(mean))), np.log(mean)])
        likelihood, rates = np.full(len(mean), -np.inf), np.empty((len(x_test), len(mean)))
        rising = np.arange(len(mean))
        for penalty in sorted(penalties, reverse=True):
            weights = _fit_weights(train, values / len(x), observed[:, rising], share[:, rising], penalty, weights)
            gained = poisson_log_likelihood(valid.rates(weights, most[rising]), observed_valid[:, rising])
            reached = np.nansum(gained, axis=0)
            better = reached > likelihood[rising]
            rising, weights = rising[better], weights[:, better]
            if not len(rising):
                break
            likelihood[rising], rates[:, rising] = reached[better], test.rates(weights, most[rising])
    return rates


@dataclass(frozen=True)
class _Rotated:
    """Standardised inputs along their axes, all at once or block by block.

    Attributes:
        x: ``(n, features)`` raw inputs, or what they are along the axes where these are small.
        inputs: How raw inputs are standardised.
        axes: ``(features, r)``; None: ``x`` lies along them.
    """

    x: RowBlocks
    inputs: Standardizer
    axes: Floats | None

    @classmethod
    def of(cls, inputs: Standardizer, x: Array | RowBlocks, axes: Floats) -> "_Rotated":
        if len(x) * axes.shape[1] > _MOST_VALUES:
            return cls(row_blocks(x), inputs, axes)
        rotated = np.concatenate([inputs(rows) @ axes for rows in row_blocks(x)])
        return cls(RowBlocks([lambda: rotated], rotated.shape), inputs, None)

    def log_rates(self, weights: Floats) -> Iterator[tuple[Floats, Floats]]:
        """For each block its standardised rows, and log-rates; ``weights`` are (r + 1, units)."""
        along = weights[:-1] if self.axes is None else self.axes @ weights[:-1]
        for rows in self.x:
            standard = rows if self.axes is None else self.inputs(rows)
            yield standard, standard @ along + weights[-1]

    def rates(self, weights: Floats, most: Floats) -> Floats:
        """(n, units), at most ``most``."""
        return np.concatenate([np.exp(np.minimum(x, np.log(most))) for _, x in self.log_rates(weights)])

    def gradient(self, moment: Floats) -> Floats:
        """(r, units) from the product (columns, units) of standardised rows with what belongs to each."""
        return moment if self.axes is None else self.axes.T @ moment


def _fit_weights(z: _Rotated, variance: Floats, counts: Floats, share: Floats, penalty: float, start: Floats) -> Floats:
    """Weights (r + 1, units), the last row an offset, that minimise the penalised mean deviance.

    ``share`` (n, units) is what each bin counts in the mean.
    """
    ridge = np.append(np.full(len(variance), penalty), 0.0)[:, None]
    curvature = np.append(variance, 1.0)[:, None] * (share * counts).sum(0) + ridge
    scale = np.maximum(curvature, _FLATTEST) ** -0.5

    def deviance(scaled: Floats) -> tuple[float, Floats]:
        weights = scaled.reshape(scale.shape) * scale
        value, moment, total, first = 0.0, np.zeros(1), np.zeros(1), 0
        for standard, log_rates in z.log_rates(weights):
            rows = slice(first, first + len(log_rates))
            observed, weight = counts[rows], share[rows]
            rates = np.exp(np.minimum(log_rates, _HIGHEST))
            residual = (rates - observed) * weight
            value += ((rates - observed * log_rates) * weight).sum()
            moment, total = moment + standard.T @ residual, total + residual.sum(0)
            first += len(log_rates)
        gradient = np.vstack([z.gradient(moment), total]) + ridge * weights
        return float(value + 0.5 * (ridge * weights**2).sum()), (gradient * scale).ravel()

    settings = {"maxiter": 500, "maxfun": 1000, "gtol": 1e-4, "ftol": 1e-12}
    found = minimize(deviance, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=settings)
    return found.x.reshape(scale.shape) * scale


def lagged(values: Array, lags: Sequence[int], *, starts: Array | None = None) -> Floats:
    """Each bin beside its neighbours, never across a trial's border.

    Args:
        values: ``(bins, units)``.
        lags: Offsets in bins; -2 is the bin two earlier.
        starts: First bin of each trial, rising from 0; default: one trial.

    Returns:
        ``(bins, len(lags) * units)``; NaN where a neighbour lies outside of the trial.
    """
    activity = to_floats(values)
    bins = np.arange(len(activity))
    first = np.zeros(1, np.int64) if starts is None else to_numpy(starts)
    trial = np.searchsorted(first, bins, side="right")
    out = np.full((len(bins), len(lags), activity.shape[1]), np.nan)
    for position, lag in enumerate(lags):
        other = bins + lag
        inside = (other >= 0) & (other < len(bins))
        inside[inside] &= trial[other[inside]] == trial[inside]
        out[inside, position] = activity[other[inside]]
    return out.reshape(len(bins), -1)
