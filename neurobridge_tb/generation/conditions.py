"""Training conditions as a decoder of neural activity will give them: embeddings that are predicted, not true."""

import torch
from torch import Tensor


def principal_axes(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(E,)``, principal axes ``(E, E)`` in columns, and standard deviation along each ``(E,)``.

    Args:
        embeddings: ``(n, E)``.
    """
    mean = embeddings.mean(0)
    centred = (embeddings - mean).double()
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    return mean, axes.float(), variances.clamp(min=0).sqrt().float()


def degrade(codes: Tensor, spread: Tensor, minimum: float, rng: torch.Generator) -> Tensor:
    """Replace half of the codes by what a calibrated regression of that reliability would predict.

    A prediction that explains a share ``a`` of a component's variance is shrunken by ``a`` and
    carries noise of variance ``a (1 - a)``, so that it is itself the best guess of the truth. ``a``
    is drawn for each item from [minimum, 1].

    Args:
        codes: ``(B, K)``.
        spread: Standard deviation ``(K,)`` of each component over the training set.
        minimum: Lowest reliability.
        rng: Draws the noise.

    Returns:
        A new tensor ``(B, K)``.
    """
    a = minimum + (1 - minimum) * torch.rand(len(codes), 1, generator=rng)
    a = torch.where(torch.rand(len(codes), 1, generator=rng) < 0.5, a, torch.ones_like(a))
    noise = torch.randn(codes.shape, generator=rng) * spread
    return a * codes + (a * (1 - a)).sqrt() * noise
