"""What a past says of a future through factors that follow each other in time: linear, in few directions."""

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis


def forecast_maps(
    model: FactorAnalysis, dynamics: Floats, *, bins: tuple[int, int], parts: tuple[int, int], directions: int
) -> tuple[Floats, Floats, Floats]:
    """The posterior mean of standardised activity in parts of the future, given that of a past.

    Factors have covariance ``A^(t-s)`` between bins t > s; the units seen tell of those of a past bin with precision
    ``P = sum_u (L_u L_u' / psi_u + I / n_u)``. With C of past bins, F of future and past ones, the future's mean is
    ``F (I + P C)^-1 h`` for ``h = sum_u L_u v_u / psi_u``, and its covariance ``I - F (I + P C)^-1 P F'``.

    Args:
        model: Factors of a bin of N units.
        dynamics: ``(factors, factors)`` A.
        bins: Of the past, and of the future.
        parts: The past, and the future, in so many parts of equal length; an empty one is like the one before. A part's
            mean stands for its bins.
        directions: At most so many in which a past tells of a future, those that tell most.

    Returns:
        ``(N, past parts, directions)`` weights of sums of activity over parts of the past, ``(N, future parts,
        directions)`` weights of what they add up to, and ``(N, future parts)`` standard deviations of what is
        predicted.
    """
    (n_past, n_future), (past_parts, future_parts) = bins, parts
    n_units, k = model.loadings.shape
    first, second = np.zeros((n_units, past_parts, directions)), np.zeros((n_units, future_parts, directions))
    if not k:
        return first, second, np.zeros((n_units, future_parts))
    weighted = model.loadings / model.noise[:, None]
    precision = weighted.T @ model.loadings + (1 / model.bins).sum() * np.eye(k)
    powers = [np.eye(k)]
    for _ in range(n_past + n_future):
        powers.append(dynamics @ powers[-1])
    past = np.arange(n_past)
    c = np.block([[powers[t - s] if t >= s else powers[s - t].T for s in past] for t in past])
    f = np.block([[powers[n_past + t - s] for s in past] for t in range(n_future)])
    told = np.einsum("ij,pjl->pil", precision, c.reshape(n_past, k, -1)).reshape(c.shape)  # P C
    gain = np.linalg.solve((np.eye(len(c)) + told).T, f.T).T.reshape(n_future, k, n_past, k)
    covariance = np.eye(k) - np.einsum("tapb,bd,tcpd->tac", gain, precision, f.reshape(gain.shape), optimize=True)
    of_past, of_future = _membership(n_past, past_parts), _membership(n_future, future_parts)
    variance = np.einsum("na,tab,nb,tf->nf", model.loadings, covariance, model.loadings, of_future, optimize=True)
    of_units = np.einsum("na,tapb,tf,pq->nfqb", model.loadings, gain, of_future, of_past, optimize=True)
    flat = of_units.reshape(n_units * future_parts, -1)
    best = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :directions]
    first[..., : best.shape[1]] = np.einsum("nb,qbr->nqr", weighted, best.reshape(past_parts, k, -1))
    second[..., : best.shape[1]] = (flat @ best).reshape(n_units, future_parts, -1)
    return first, second, np.sqrt(np.maximum(variance, 0))


def _membership(n_bins: int, parts: int) -> Floats:
    """(bins, parts) share of each bin in a part's mean."""
    part = np.arange(n_bins) * parts // n_bins
    member = (part[:, None] == np.arange(parts)).astype(float)
    for k in range(1, parts):
        if not member[:, k].any():
            member[:, k] = member[:, k - 1]
    return member / member.sum(0)
