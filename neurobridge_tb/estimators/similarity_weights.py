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
        loss: Mean negative log-likelihood of the queries' candidates, nats.
    """

    weights: Floats
    temperature: float
    loss: float


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

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        total, slope = 0.0, np.zeros_like(coefficients)
        for of_set, right in zip(similarities, own, strict=True):
            logits, rows = of_set @ coefficients, np.arange(len(right))
            evidence = logsumexp(logits, axis=1)
            total += float((evidence - logits[rows, right]).sum())
            expected = np.exp(logits - evidence[:, None])
            slope += np.einsum("qc,qcl->l", expected, of_set) - of_set[rows, right].sum(0)
        return total / n, slope / n

    width = similarities[0].shape[2]
    start = np.full(width, 10.0 / width)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, _LARGEST)] * width)
    if not found.x.any():  # nothing tells the candidates apart
        return SimilarityWeights(np.full(width, 1 / width), 1.0, float(found.fun))
    return SimilarityWeights(found.x / found.x.sum(), float(1 / found.x.sum()), float(found.fun))
