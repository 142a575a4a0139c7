"""Factors in time: a linear dynamical system, and its exact posterior over a window of bins.

The factors of a bin follow those of the bin before, ``z_t = A z_{t-1} + noise of covariance I - A A'``, so that each
bin alone is standard normal. Bins t then have the posterior precision

    D_t on the diagonal    J_t, what is observed, and the prior's own: I, Q^-1 or A' Q^-1 A and their sums
    -Q^-1 A below it       Q = I - A A'

a block tridiagonal matrix: one Cholesky factorisation a bin, forwards, and one pass backwards (Rauch et al. 1965, in
the information form).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class _Pivots(NamedTuple):
    """A block tridiagonal matrix, factorised.

    Attributes:
        inverse: Of each bin t (B, K, K), the posterior covariance given the bins up to t.
        gain: Of each bin but the last (B, K, K), how it follows the bin after it.
    """

    inverse: list[Tensor]
    gain: list[Tensor]


def smooth(
    information: Tensor, precision: Tensor, observe: Callable[[Tensor], Tensor], dynamics: Tensor
) -> tuple[Tensor, Tensor]:
    """Posterior of the factors in each bin, given all bins of its window.

    Args:
        information: (B, T, K) sum of ``L_u v_u / psi_u`` over the units kept in a bin.
        precision: (B, T, K, K) J, the sum of ``L_u L_u' / psi_u`` over them; both 0 where all is hidden.
        observe: J times factors (B, T, K), bin by bin, with gradients: so J itself needs none.
        dynamics: (B, K, K) A of each window, of singular values below 1. No gradient.

    Returns:
        Mean (B, T, K), with exact gradients, and the diagonal of the covariance (B, T, K), without.
    """
    diagonal, coupling = _prior(dynamics.detach(), precision.shape[1])
    pivots = _factorize(diagonal + precision, coupling)
    mean = _solve(pivots, information.detach())
    # One step of refinement: it carries the gradient, and makes up for what rounding lost
    left = information - observe(mean) - (diagonal @ mean[..., None])[..., 0]
    left[:, 1:] += mean[:, :-1] @ coupling.mT
    left[:, :-1] += mean[:, 1:] @ coupling
    return mean + _solve(pivots, left), _variance(pivots)


def _prior(dynamics: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """Diagonal blocks (B, T, K, K) of the prior precision, and Q^-1 A (B, K, K)."""
    identity = torch.eye(dynamics.shape[-1], dtype=dynamics.dtype, device=dynamics.device)
    if n_bins == 1:
        return identity.expand_as(dynamics)[:, None], dynamics  # no bin follows
    steady = _inverse(identity - dynamics @ dynamics.mT)
    coupling = steady @ dynamics
    diagonal = torch.stack([identity.expand_as(steady)] + [steady] * (n_bins - 1), dim=1)
    diagonal[:, :-1] += (dynamics.mT @ coupling)[:, None]
    return diagonal, coupling


@torch.no_grad()
def _factorize(diagonal: Tensor, coupling: Tensor) -> _Pivots:
    inverse, gain = [_inverse(diagonal[:, 0])], []
    for block in diagonal[:, 1:].unbind(1):
        gain.append(inverse[-1] @ coupling.mT)
        inverse.append(_inverse(block - coupling @ gain[-1]))
    return _Pivots(inverse, gain)


def _solve(pivots: _Pivots, right: Tensor) -> Tensor:
    """(B, T, K) solution for right-hand sides (B, T, K)."""
    forward = [right[:, 0, :, None]]
    for gain, block in zip(pivots.gain, right[:, 1:, :, None].unbind(1), strict=True):
        forward.append(block + gain.mT @ forward[-1])
    solution = [pivots.inverse[-1] @ forward[-1]]
    for inverse, gain, block in zip(pivots.inverse[-2::-1], pivots.gain[::-1], forward[-2::-1], strict=True):
        solution.append(inverse @ block + gain @ solution[-1])
    return torch.stack(solution[::-1], dim=1)[..., 0]


@torch.no_grad()
def _variance(pivots: _Pivots) -> Tensor:
    """(B, T, K) diagonal of the inverse."""
    covariance = [pivots.inverse[-1]]
    for inverse, gain in zip(pivots.inverse[-2::-1], pivots.gain[::-1], strict=True):
        covariance.append(inverse + gain @ covariance[-1] @ gain.mT)
    return torch.stack([c.diagonal(dim1=-2, dim2=-1) for c in covariance[::-1]], dim=1)


def _inverse(matrix: Tensor) -> Tensor:
    """Of positive definite matrices; no look at the values, which would wait for a GPU."""
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)
