"""What units share, without what is each unit's own: factor scores, estimated from responses alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.arrays import Standardizer

_INDEPENDENT = 0.05  # variance added to every unit: correlations are estimated, and may be singular


@dataclass(frozen=True)
class FactorScores:
    """Image factor analysis (Guttman 1953): a unit's own variance is what the other units cannot predict of it.

    In units of their own deviation, responses have principal components with variance 1 where there is noise alone.
    What is above 1 is a factor; its score is its posterior mean where factors have variance 1. A prior that treats
    factors alike so expects what tells images apart in the many small ones as much as in the few large ones, and
    nothing of it in the noise. No image has to be known for the responses that this is fitted to.

    Attributes:
        inputs: How responses are standardised.
        weights: (features, factors), for standardised responses.
    """

    inputs: Standardizer
    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, x: NDArray) -> "FactorScores":
        """From responses ``(n, features)``; NaN counts as the mean."""
        inputs = Standardizer.fit(x)
        z = inputs(x)
        correlation = z.T @ z / len(z)
        correlation[np.diag_indices(len(correlation))] += _INDEPENDENT
        own = np.sqrt(1 / np.diag(np.linalg.inv(correlation)))
        values, vectors = np.linalg.eigh(correlation / np.outer(own, own))
        shared = np.flatnonzero(values > 1)
        gain = np.sqrt(values[shared] - 1) / values[shared]
        return cls(inputs, vectors[:, shared] * gain / own[:, None])

    def __call__(self, x: NDArray) -> NDArray[np.float64]:
        """Scores ``(n, factors)`` of responses ``(n, features)``."""
        return self.inputs(x) @ self.weights
