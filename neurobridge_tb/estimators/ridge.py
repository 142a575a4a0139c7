"""Ridge regression over a whole path of penalties from one eigendecomposition.

With X standardised and X'X = V diag(e) V', the weights for penalty a are V diag(1 / (e + a)) V'X'Y (Hoerl and Kennard
1970). The eigenvectors are found on the smaller side, features or samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats
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

    def predict(self, x: Array) -> Floats:
        """Predict ``(n, targets)`` from ``x`` ``(n, features)``; NaN inputs count as the training mean."""
        return self.inputs(x) @ self.weights + self.offset

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
    target, target_valid = to_floats(y), to_floats(y_valid)
    shapes = [np.shape(x), target.shape, np.shape(x_valid), target_valid.shape]
    if (
        any(len(shape) != 2 for shape in shapes)
        or [shapes[0][0], shapes[2][0]] != [shapes[1][0], shapes[3][0]]
        or [shapes[0][1], shapes[1][1]] != [shapes[2][1], shapes[3][1]]
    ):
        raise InputError(
            expected="x (n, features), y (n, targets), and a validation set (m, …) of the same widths",
            found=f"shapes {', '.join(map(str, shapes))}",
            fix="Pass one row a sample; a single target is a column (n, 1).",
        )
    if not (np.isfinite(target).all() and np.isfinite(target_valid).all()):
        raise InputError(expected="finite targets", found="NaN or infinite ones", fix="Leave these rows out.")
    inputs, offset = Standardizer.fit(x), target.mean(0)
    if not standardize:
        inputs = replace(inputs, std=np.ones_like(inputs.std))
    train, valid = inputs(x), inputs(x_valid)
    values, vectors = principal_axes(train)
    projected = vectors.T @ (train.T @ (target - offset))
    valid_scores, residual = valid @ vectors, target_valid - offset

    def error(penalty: float) -> float:
        return float(((valid_scores / (values + penalty) @ projected - residual) ** 2).sum())

    best = min(penalties, key=error)
    return Ridge(inputs, (vectors / (values + best)) @ projected, offset, float(best))


def principal_axes(x: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues ``(r,)``, rising, and eigenvectors ``(features, r)`` of X'X without its null space."""
    wide = x.shape[1] > x.shape[0]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = values > values.max(initial=0.0) * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    return values, x.T @ vectors / np.sqrt(values) if wide else vectors
