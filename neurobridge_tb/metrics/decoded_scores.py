"""Scores of decoded classes and values, each with its uncertainty."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.arrays import Floats
from neurobridge_tb.metrics.retrieval import bootstrap_interval

_PERMUTATIONS = 2000


def accuracy(predicted: NDArray, labels: NDArray) -> float:
    """Share of the rows that are right."""
    return float((predicted == labels).mean())


def balanced_accuracy(predicted: NDArray, labels: NDArray) -> float:
    """Mean over classes of the share of their rows that are right."""
    return float(np.mean([(predicted[labels == name] == name).mean() for name in np.unique(labels)]))


def area_under_curve(probabilities: Floats, labels: NDArray, classes: NDArray) -> float:
    """Area under the receiver operating characteristic, of each class against all others, averaged over classes.

    It is the probability that a row of the class is given a higher probability of it than another row (Hanley and
    McNeil 1982).

    Args:
        probabilities: (n, classes).
        labels: (n,).
        classes: Names of the columns.
    """
    from scipy.stats import rankdata

    areas = []
    for column, name in enumerate(classes):
        inside = labels == name
        n, m = int(inside.sum()), int((~inside).sum())
        if n and m:
            ranks = rankdata(probabilities[:, column])
            areas.append((ranks[inside].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas))


def confusion(predicted: NDArray, labels: NDArray, classes: NDArray) -> NDArray[np.int64]:
    """(true class, decoded class) number of rows."""
    pairs = np.searchsorted(classes, labels) * len(classes) + np.searchsorted(classes, predicted)
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), -1)


def permutation_p(predicted: NDArray, labels: NDArray, *, permutations: int = _PERMUTATIONS, seed: int = 0) -> float:
    """Probability of an accuracy as high where labels have nothing to do with what was decoded.

    The labels of the test rows are shuffled; the smallest value is 1 / (permutations + 1) (Phipson and Smyth 2010).
    """
    rng, observed = np.random.default_rng(seed), (predicted == labels).mean()
    shuffled = np.array([(predicted == rng.permutation(labels)).mean() for _ in range(permutations)])
    return float((1 + (shuffled >= observed - 1e-12).sum()) / (permutations + 1))


def class_scores(probabilities: Floats, labels: NDArray, classes: NDArray, *, seed: int = 0) -> dict[str, Any]:
    """Accuracy with a 95 % bootstrap interval over rows, balanced accuracy, area under the curve, permutation p."""
    predicted = classes[probabilities.argmax(1)]
    low, high = bootstrap_interval((predicted == labels).astype(float), seed=seed)
    return {
        "accuracy": {"value": accuracy(predicted, labels), "low": low, "high": high},
        "balanced": balanced_accuracy(predicted, labels),
        "AUC": area_under_curve(probabilities, labels, classes),
        "p": permutation_p(predicted, labels, seed=seed),
    }


def value_scores(predicted: Floats, values: Floats, *, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """R^2 with a 95 % bootstrap interval over rows, and the correlation."""
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    spread = ((values[draws] - values[draws].mean(1, keepdims=True)) ** 2).sum(1)
    sampled = 1 - ((predicted[draws] - values[draws]) ** 2).sum(1) / np.maximum(spread, 1e-300)
    low, high = np.percentile(sampled, [2.5, 97.5])
    total = ((values - values.mean()) ** 2).sum()
    moves = predicted.std() > 0
    return {
        "R2": {"value": float(1 - ((predicted - values) ** 2).sum() / total), "low": float(low), "high": float(high)},
        "r": float(np.corrcoef(predicted, values)[0, 1]) if moves else 0.0,
    }


def interval_of_difference(hits: Floats, others: Floats, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean difference of two scores of the same rows."""
    return bootstrap_interval(hits - others, seed=seed)
