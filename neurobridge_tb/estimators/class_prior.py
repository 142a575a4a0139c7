"""Codes of images come in classes: a prior that sharpens what was read from activity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.arrays import Array, Floats, to_floats

_NEW = 0.5  # probability that an image is of none of the classes
_SHRINKAGE = 0.1  # of the covariance within classes towards its diagonal
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class ClassPrior:
    """A mixture of Gaussians, one a class of the training images, and the standard normal for images of no such class.

    Attributes:
        means: ``(C, K)``, of each class.
        within: ``(K, K)``, the covariance that all classes share, for a further image of one.
    """

    means: Floats
    within: Floats

    @classmethod
    def fit(cls, codes: Array, labels: NDArray[np.str_]) -> "ClassPrior | None":
        """Fit to the training images.

        Args:
            codes: ``(n, K)``, of deviation about one.
            labels: ``(n,)``, the class of each.

        Returns:
            None where there are too few images a class to tell how they vary.
        """
        values, (classes, index) = to_floats(codes), np.unique(labels, return_inverse=True)
        count = np.bincount(index)
        free = len(values) - len(classes)
        if free < values.shape[1]:
            return None
        means = np.zeros((len(classes), values.shape[1]))
        np.add.at(means, index, values)
        means /= count[:, None]
        around = values - means[index]
        within = around.T @ around / free
        within = (1 - _SHRINKAGE) * within + np.diag(_SHRINKAGE * np.diag(within) + _LEAST_VARIANCE)
        return cls(means, within * (1 + 1 / count.mean()))

    def update(self, mean: Array, information: Array) -> tuple[Floats, Floats]:
        """What was read under a standard normal prior, under this one.

        Args:
            mean: ``(m, K)``, posterior means under the standard normal.
            information: ``(K, K)``, what the observation adds to the precision of a prior.

        Returns:
            Posterior means ``(m, K)``, and the information ``(K, K)`` that takes the standard normal to the average
            image's precision within its class.
        """
        plain, known = to_floats(mean), to_floats(information)
        one = np.eye(len(known))
        precision = np.linalg.inv(self.within)
        covariance = np.linalg.inv(precision + known)
        evidence, pull = plain @ (one + known), self.means @ precision
        of_classes = covariance @ pull.T  # (K, C)
        scores = evidence @ of_classes + 0.5 * ((pull @ covariance - self.means) * pull).sum(1)
        scores += 0.5 * (((evidence @ covariance) * evidence).sum(1) - _log_det(one + self.within @ known))[:, None]
        new = 0.5 * ((plain * evidence).sum(1) - _log_det(one + known))
        scores = np.concatenate([new[:, None] + np.log(_NEW * len(self.means) / (1 - _NEW)), scores], 1)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        strange = weights[:, :1]
        updated = strange * plain + (1 - strange) * (evidence @ covariance) + weights[:, 1:] @ of_classes.T
        share = strange.mean()
        return updated, share * known + (1 - share) * _positive(precision + known - one)


def _log_det(matrix: Floats) -> float:
    return float(np.linalg.slogdet(matrix)[1])


def _positive(matrix: Floats) -> Floats:
    """The nearest symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clip(0)) @ vectors.T
