"""Ridge regression from the units that are kept to those that are masked, for any mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, inv

from neurobridge_tb.arrays import Array, Floats, Standardizer, check_same_shape, to_floats, to_numpy
from neurobridge_tb.metrics.spikes import masked_mse


@dataclass(frozen=True)
class MaskedRidge:
    """Ridge regression from whichever units are kept to whichever are not, for any mask from one fit.

    With the covariance C of z-scored training activity, the ridge prediction of removed units R from kept units K is
    ``C_RK (C_KK + a I)^-1 x_K``: the conditional mean of a Gaussian. Bins are taken one by one.

    Attributes:
        inputs: Z-scoring by training statistics.
        covariance: ``(units, units)`` of z-scored training activity.
        penalty: The penalty a, on the scale of the covariance.
    """

    inputs: Standardizer
    covariance: Floats
    penalty: float

    def predict(self, values: Array, keep: Array) -> Floats:
        """Fill in what was removed.

        Args:
            values: ``(bins, units)``; NaN counts as removed.
            keep: bool ``(bins, units)``, True where the value may be used.

        Returns:
            ``(bins, units)``, the values where they were kept and predictions elsewhere, in units of ``values``; a bin
            without any kept unit gets the training mean.
        """
        raw = to_floats(values)
        kept = to_numpy(keep).astype(bool) & ~np.isnan(raw)
        z = np.where(kept, self.inputs(raw), 0.0)
        patterns, which = np.unique(kept, axis=0, return_inverse=True)
        which = which.reshape(-1)
        for index, pattern in enumerate(patterns):
            if pattern.any() and not pattern.all():
                rows = which == index
                z[np.ix_(rows, ~pattern)] = self._conditional(z[np.ix_(rows, pattern)], pattern)
        filled = z * self.inputs.std + self.inputs.mean
        return np.where(kept, raw, filled)

    @cached_property
    def _regularised(self) -> Floats:
        return self.covariance + self.penalty * np.eye(len(self.covariance))

    @cached_property
    def _precision(self) -> Floats:
        return inv(self._regularised)

    def _conditional(self, known: Floats, kept: np.ndarray) -> Floats:
        """z of the removed units from ``known`` ``(bins, kept units)``, solving on the smaller side of the mask."""
        if kept.sum() > (~kept).sum():
            precision = self._precision[~kept]
            return -cho_solve(cho_factor(precision[:, ~kept]), precision[:, kept] @ known.T).T
        covariance = self._regularised[kept]
        return cho_solve(cho_factor(covariance[:, kept]), known.T).T @ covariance[:, ~kept]


def fit_masked_ridge(
    train: Array,
    valid: Array,
    keep: Array,
    target: Array,
    *,
    penalties: Sequence[float] = tuple(np.logspace(-3, 2, 11)),
) -> MaskedRidge:
    """Fit on training bins, with the penalty of least masked MSE (of z-scored values) on masked validation bins.

    Args:
        train: ``(n, units)`` activity.
        valid: ``(m, units)`` activity; a few dozen different masks suffice to choose a penalty.
        keep: bool ``(m, units)``, True where the model may look.
        target: bool ``(m, units)``, True at the target positions.
        penalties: Penalties tried, all above 0.
    """
    check_same_shape("keep", to_numpy(keep), "valid", to_numpy(valid))
    inputs = Standardizer.fit(train)
    z = inputs(train)
    covariance, truth = z.T @ z / len(z), (to_floats(valid) - inputs.mean) / inputs.std
    unit = Standardizer(np.zeros(len(inputs.mean)), np.ones(len(inputs.std)))

    def error(penalty: float) -> float:
        return masked_mse(MaskedRidge(unit, covariance, penalty).predict(truth, keep), truth, target)

    return MaskedRidge(inputs, covariance, float(min(penalties, key=error)))
