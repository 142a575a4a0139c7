"""How much each of several similarities should count, from queries whose candidate is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from neurobridge_tb.arrays import Floats
from neurobridge_tb.errors import InputError

_LARGEST = 100.0  # a temperature of 0.01, CLIP's lower bound, if one similarity bears all of it


@dataclass(frozen=True)
class SimilarityWeights:
    """A fitted conditional logit.

    Attributes:
        weights: ``(L,)``, 0 or more, adding up to 1.
        temperature: Divides the weighted sum of the similarities.
        losses: ``(n,)`` negative log-likelihood of each query's candidate, nats; the queries of one set after another.
    """

    weights: Floats
    temperature: float
    losses: Floats

    @property
    def loss(self) -> float:
        """Mean over the queries."""
        return float(self.losses.mean())


def fit_similarity_weights(similarities: Sequence[Floats], own: Sequence[np.ndarray]) -> SimilarityWeights:
    """Conditional logit (McFadden 1974) with coefficients of 0 or more: the likelihood has one maximum.

    Args:
        similarities: For each set of candidates, ``(queries, candidates, L)``.
        own: For each, ``(queries,)`` the index of each query's candidate.

    Raises:
        InputError: There is no query.
    """
    n = sum(map(len, own))
    if not n:
        raise InputError(expected="at least one query", found="none", fix="Give validation presentations.")

    def likelihoods(coefficients: Floats) -> tuple[Floats, Floats]:
        """Losses (n,), and the slope of their sum."""
        losses, slope = [], np.zeros_like(coefficients)
        for of_set, right in zip(similarities, own, strict=True):
            logits, rows = of_set @ coefficients, np.arange(len(right))
            evidence = logsumexp(logits, axis=1)
            losses.append(evidence - logits[rows, right])
            expected = np.exp(logits - evidence[:, None])
            slope += np.einsum("qc,qcl->l", expected, of_set) - of_set[rows, right].sum(0)
        return np.concatenate(losses), slope

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        losses, slope = likelihoods(coefficients)
        return float(losses.mean()), slope / n

    width = similarities[0].shape[2]
    start = np.full(width, 10.0 / width)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, _LARGEST)] * width)
    if not found.x.any():  # nothing tells the candidates apart
        return SimilarityWeights(np.full(width, 1 / width), 1.0, likelihoods(found.x)[0])
    return SimilarityWeights(found.x / found.x.sum(), float(1 / found.x.sum()), likelihoods(found.x)[0])
