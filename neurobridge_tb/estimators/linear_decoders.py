"""Linear decoders of classes and of values, with the penalty chosen by cross-validation within the training rows."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.arrays import Floats, Standardizer

PENALTIES = tuple(np.logspace(-3, 3, 7))  # for features whose squares add up to 1 a row; the largest: the mean
_FOLDS = 3


@dataclass(frozen=True)
class LogisticDecoder:
    """A fitted multinomial logistic regression.

    Attributes:
        inputs: How features are standardised.
        axes: (features, r) rotation to the axes along which the training rows vary; the penalty does not see it.
        model: scikit-learn's.
        penalty: The penalty chosen.
        held_out: (n, classes) probabilities of the training rows, by decoders of that penalty fitted to other rows.
    """

    inputs: Standardizer
    axes: Floats
    model: Any
    penalty: float
    held_out: Floats

    @property
    def classes(self) -> NDArray[np.str_]:
        return self.model.classes_

    def probabilities(self, x: NDArray) -> Floats:
        """(n, classes) of features (n, d)."""
        return self.model.predict_proba(self.inputs(x) @ self.axes)


def fit_logistic(
    x: NDArray, labels: NDArray[np.str_], *, penalties: Sequence[float] = PENALTIES, seed: int = 0
) -> LogisticDecoder:
    """L2-penalised logistic regression, with the penalty of least log-loss in stratified folds of the training rows.

    Args:
        x: (n, d) features.
        labels: (n,).
        penalties: Tried; 1 / C of scikit-learn.
        seed: Of the folds.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(_fold_count(labels), shuffle=True, random_state=seed)
    classes, known = np.unique(labels, return_inverse=True)
    held_out = np.zeros((len(penalties), len(labels), len(classes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folds in which the solver stops at its limit
        for train, held in folds.split(labels, labels):
            inputs, axes = _axes(x[train])
            projected = inputs(x) @ axes
            for of_penalty, penalty in zip(held_out, penalties, strict=True):
                model = _fit(projected[train], labels[train], penalty)
                at = np.ix_(held, np.searchsorted(classes, model.classes_))
                of_penalty[at] = model.predict_proba(projected[held])
        best = int(np.argmin([_log_loss(of_penalty, known) for of_penalty in held_out]))
        inputs, axes = _axes(x)
        fitted = _fit(inputs(x) @ axes, labels, penalties[best])
        return LogisticDecoder(inputs, axes, fitted, float(penalties[best]), held_out[best])


@dataclass(frozen=True)
class RidgeDecoder:
    """A fitted ridge regression to one value.

    Attributes:
        inputs: How features are standardised.
        weights: (features,).
        offset: Mean of the training values.
        penalty: The penalty chosen.
        held_out: (n,) predictions of the training rows, by decoders of that penalty fitted to other rows.
    """

    inputs: Standardizer
    weights: Floats
    offset: float
    penalty: float
    held_out: Floats

    def predict(self, x: NDArray) -> Floats:
        """(n,) of features (n, d)."""
        return self.inputs(x) @ self.weights + self.offset


def fit_value_ridge(
    x: NDArray, values: Floats, *, penalties: Sequence[float] = PENALTIES, seed: int = 0
) -> RidgeDecoder:
    """Ridge regression to one value, with the penalty of least squared error in folds of the training rows.

    Args:
        x: (n, d) features.
        values: (n,).
        penalties: Tried, on the scale of the sum of squared errors.
        seed: Of the folds.
    """
    from sklearn.model_selection import KFold

    held_out = np.zeros((len(penalties), len(values)))
    for train, held in KFold(min(_FOLDS, len(values)), shuffle=True, random_state=seed).split(values):
        inputs, weights = _ridges(x[train], values[train], penalties)
        held_out[:, held] = weights @ inputs(x[held]).T + values[train].mean()
    best = int(np.argmin(((held_out - values) ** 2).sum(1)))
    inputs, weights = _ridges(x, values, [penalties[best]])
    return RidgeDecoder(inputs, weights[0], float(values.mean()), float(penalties[best]), held_out[best])


def _ridges(x: NDArray, values: Floats, penalties: Sequence[float]) -> tuple[Standardizer, Floats]:
    """How features are standardised, and weights (penalties, features)."""
    inputs = _standardizer(x)
    left, spread, right = np.linalg.svd(inputs(x), full_matrices=False)
    projected = left.T @ (values - values.mean())
    return inputs, np.stack([right.T @ (spread / (spread**2 + p) * projected) for p in penalties])


def _standardizer(x: NDArray) -> Standardizer:
    """To mean 0, with squares that add up to 1 a row on average, however many features there are."""
    fitted = Standardizer.fit(x)
    return replace(fitted, std=fitted.std * np.sqrt(x.shape[1]))


def _fold_count(labels: NDArray[np.str_]) -> int:
    return int(np.clip(np.unique(labels, return_counts=True)[1].min(), 2, _FOLDS))


def _axes(x: NDArray) -> tuple[Standardizer, Floats]:
    """An orthogonal rotation to at most as many axes as there are rows: quicker, and the same fit."""
    inputs = _standardizer(x)
    z = inputs(x)
    if z.shape[1] <= z.shape[0]:
        return inputs, np.eye(z.shape[1])
    return inputs, np.linalg.svd(z, full_matrices=False)[2].T


def _fit(x: Floats, labels: NDArray[np.str_], penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / penalty, max_iter=100, tol=1e-3).fit(x, labels)


def _log_loss(probabilities: Floats, known: NDArray[np.intp]) -> float:
    """Mean negative log-probability, nats, that (n, classes) ``probabilities`` give to the classes (n,) by number."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(known)), known], 1e-12)).mean())
