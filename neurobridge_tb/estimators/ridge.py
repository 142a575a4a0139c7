"""Ridge regression over a whole path of penalties from one eigendecomposition.

With X standardised and X'X = V diag(e) V', the weights for penalty a are V diag(1 / (e + a)) V'X'Y (Hoerl and Kennard
1970). The eigenvectors are found on the smaller side, features or samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk

from neurobridge_tb.arrays import Array, Floats, RowBlocks, Standardizer, row_blocks, to_floats
from neurobridge_tb.errors import InputError

PENALTIES = tuple(np.logspace(-3, 7, 21))


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression.

    Attributes:
        inputs: How inputs are standardised.
        weights: ``(features, targets)``, for standardised inputs.
        offset: ``(targets,)``, the training mean of the targets.
        penalty: The penalty chosen, on the scale of the sum of squared errors.
    """

    inputs: Standardizer
    weights: Floats
    offset: Floats
    penalty: float

    def predict(self, x: Array | RowBlocks) -> Floats:
        """Predict ``(n, targets)`` from ``x`` ``(n, features)``; NaN inputs count as the training mean."""
        return np.concatenate([self.inputs(rows) @ self.weights + self.offset for rows in row_blocks(x)])

    def on_raw_inputs(self) -> tuple[Floats, Floats]:
        """Weights ``(features, targets)`` and bias ``(targets,)`` of the same map for inputs as they are."""
        weights = self.weights / self.inputs.std[:, None]
        return weights, self.offset - self.inputs.mean @ weights


def fit_ridge(
    x: Array,
    y: Array,
    x_valid: Array,
    y_valid: Array,
    *,
    penalties: Sequence[float] = PENALTIES,
    standardize: bool = True,
) -> Ridge:
    """Fit on the training set, with the one penalty that has the least squared error on the validation set.

    Args:
        x: ``(n, features)`` inputs, NaN set to the mean.
        y: ``(n, targets)`` targets, without NaN.
        x_valid: ``(m, features)``.
        y_valid: ``(m, targets)``.
        penalties: Penalties tried, all above 0.
        standardize: Scale inputs by their own deviations (True), or have the penalty bear on them as they are.

    Raises:
        InputError: The shapes do not fit one another, or a target is NaN.
    """
    return RidgePath.fit(x, x_valid, standardize=standardize).solve(y, y_valid, penalties=penalties)


@dataclass(frozen=True)
class RidgePath:
    """The decomposition of training inputs, from which regressions to any targets follow.

    Inputs are read some rows at a time: besides them, memory holds a few matrices of (features, features).

    Attributes:
        inputs: How inputs are standardised.
        values: ``(r,)`` eigenvalues of X'X.
        axes: ``(features, r)`` eigenvectors.
        x: ``(n, features)`` training inputs.
        x_valid: ``(m, features)``.
    """

    inputs: Standardizer
    values: Floats
    axes: Floats
    x: Array | RowBlocks
    x_valid: Array | RowBlocks

    @classmethod
    def fit(cls, x: Array | RowBlocks, x_valid: Array | RowBlocks, *, standardize: bool = True) -> "RidgePath":
        """Decompose training inputs; see :func:`fit_ridge`."""
        if len(np.shape(x)) != 2 or len(np.shape(x_valid)) != 2 or np.shape(x)[1] != np.shape(x_valid)[1]:
            raise _unlike(x, x_valid)
        inputs = Standardizer.fit(x)
        if not standardize:
            inputs = replace(inputs, std=np.ones_like(inputs.std))
        return cls(inputs, *principal_axes(inputs, x), x, x_valid)

    def solve(self, y: Array, y_valid: Array, *, penalties: Sequence[float] = PENALTIES) -> Ridge:
        """The regression to targets ``(n, targets)`` with the one penalty of least squared error on ``y_valid``.

        Raises:
            InputError: The shapes do not fit one another, or a target is NaN.
        """
        target, target_valid = to_floats(y), to_floats(y_valid)
        if (
            target.ndim != 2
            or target_valid.ndim != 2
            or (len(target), len(target_valid)) != (len(self.x), len(self.x_valid))
            or target.shape[1] != target_valid.shape[1]
        ):
            raise _unlike(self.x, target, self.x_valid, target_valid)
        if not (np.isfinite(target).all() and np.isfinite(target_valid).all()):
            raise InputError(expected="finite targets", found="NaN or infinite ones", fix="Leave these rows out.")
        offset, projected = self.project(target)
        scores = np.concatenate([self.inputs(rows) @ self.axes for rows in row_blocks(self.x_valid)])
        residual = target_valid - offset

        def error(penalty: float) -> float:
            return float(((scores / (self.values + penalty) @ projected - residual) ** 2).sum())

        return self.with_penalty(min(penalties, key=error), offset, projected)

    def leave_one_out(self, y: Array, *, penalties: Sequence[float] = PENALTIES) -> Ridge:
        """The regression to targets ``(n, targets)`` with the one penalty of least squared leave-one-out error.

        Of a residual r with leverage h, the one without its own row is r / (1 - h) (Allen 1974).
        """
        target = to_floats(y)
        offset, projected = self.project(target)
        errors, first = np.zeros(len(penalties)), 0
        for rows in row_blocks(self.x):
            scores, own = self.inputs(rows) @ self.axes, target[first : first + len(rows)] - offset
            for k, penalty in enumerate(penalties):
                leverage = 1 / len(target) + (scores**2) @ (1 / (self.values + penalty))
                left = (own - scores / (self.values + penalty) @ projected) / np.maximum(1 - leverage, 1e-12)[:, None]
                errors[k] += (left**2).sum()
            first += len(rows)
        return self.with_penalty(penalties[int(np.argmin(errors))], offset, projected)

    def project(self, target: Floats) -> tuple[Floats, Floats]:
        """Mean ``(targets,)`` of the targets, and their product with the inputs along the axes, ``(r, targets)``."""
        offset, moment, first = target.mean(0), np.zeros((self.axes.shape[0], target.shape[1])), 0
        for rows in row_blocks(self.x):
            moment += self.inputs(rows).T @ (target[first : first + len(rows)] - offset)
            first += len(rows)
        return offset, self.axes.T @ moment

    def with_penalty(self, penalty: float, offset: Floats, projected: Floats) -> Ridge:
        """The regression with a penalty; ``offset`` and ``projected`` are from :meth:`project`."""
        weights = self.axes @ (projected / (self.values + penalty)[:, None])
        return Ridge(self.inputs, weights, offset, float(penalty))


def principal_axes(inputs: Standardizer, x: Array | RowBlocks) -> tuple[Floats, Floats]:
    """Eigenvalues ``(r,)``, rising, and eigenvectors ``(features, r)`` of X'X without its null space.

    Args:
        inputs: How rows are standardised.
        x: ``(n, features)`` raw inputs.
    """
    blocks = row_blocks(x)
    wide = blocks.shape[1] > blocks.shape[0]
    if wide:
        standard = np.concatenate([inputs(rows) for rows in blocks])
        gram = standard @ standard.T
    else:
        gram = np.zeros((blocks.shape[1],) * 2, order="F")
        for rows in blocks:  # the upper half, in place
            gram = dsyrk(1.0, inputs(rows).T, beta=1.0, c=gram, overwrite_c=True)
    values, vectors = eigh(gram, lower=False, overwrite_a=True, check_finite=False, driver="evr")
    first = int(np.searchsorted(values, values.max(initial=0.0) * 1e-12, side="right"))
    values, vectors = values[first:], vectors[:, first:]
    return values, standard.T @ vectors / np.sqrt(values) if wide else vectors


def _unlike(*arrays: Array | RowBlocks) -> InputError:
    return InputError(
        expected="x (n, features), y (n, targets), and a validation set (m, …) of the same widths",
        found=f"shapes {', '.join(str(tuple(np.shape(array))) for array in arrays)}",
        fix="Pass one row a sample; a single target is a column (n, 1).",
    )
