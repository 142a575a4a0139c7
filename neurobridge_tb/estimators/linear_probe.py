"""Linear probes: what can be read linearly from frozen latents?

Report a probe beside the same probe on a randomly initialised encoder and on the raw binned activity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats, to_numpy
from neurobridge_tb.estimators.ridge import PENALTIES, fit_ridge
from neurobridge_tb.metrics.spikes import r2

Split = tuple[Array, Array]


@dataclass(frozen=True)
class ProbeScore:
    """A probe's test score.

    Attributes:
        score: ``(targets,)`` R^2 of a regression, or ``(1,)`` accuracy of a classification.
        predicted: Test predictions, ``(n, targets)`` or ``(n,)`` labels.
        penalty: The penalty chosen on the validation set.
    """

    score: Floats
    predicted: np.ndarray
    penalty: float


def regression_probe(train: Split, valid: Split, test: Split, *, penalties: Sequence[float] = PENALTIES) -> ProbeScore:
    """Ridge regression from latents to continuous targets, scored by R^2.

    Args:
        train: Latents ``(n, d)`` and targets ``(n, targets)``.
        valid: As ``train``; chooses the penalty.
        test: As ``train``; scored once.
        penalties: Penalties tried.
    """
    ridge = fit_ridge(*train, *valid, penalties=penalties)
    predicted = ridge.predict(test[0])
    return ProbeScore(r2(predicted, test[1]), predicted, ridge.penalty)


def classification_probe(
    train: Split,
    valid: Split,
    test: Split,
    *,
    penalties: Sequence[float] = tuple(np.logspace(-3, 3, 7)),
) -> ProbeScore:
    """Multinomial logistic regression from latents to classes, scored by accuracy.

    Args:
        train: Latents ``(n, d)`` and labels ``(n,)``.
        valid: As ``train``; chooses the penalty by accuracy, the larger one of equals.
        test: As ``train``; scored once.
        penalties: L2 penalties tried (1 / C of scikit-learn).
    """
    from sklearn.linear_model import LogisticRegression

    inputs = Standardizer.fit(train[0])
    x, x_valid, x_test = (inputs(to_floats(split[0])) for split in (train, valid, test))
    y, y_valid, y_test = (to_numpy(split[1]) for split in (train, valid, test))
    fitted = {
        penalty: LogisticRegression(C=1 / penalty, max_iter=1000).fit(x, y)
        for penalty in sorted(penalties, reverse=True)
    }
    best = max(fitted, key=lambda penalty: fitted[penalty].score(x_valid, y_valid))
    predicted = fitted[best].predict(x_test)
    return ProbeScore(np.array([(predicted == y_test).mean()]), predicted, float(best))
