"""Training conditions as a decoder of neural activity will give them: embeddings that are predicted, not true."""

import math

import torch
from torch import Tensor


def whitening(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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


class RandomObserver:
    """Codes as somebody would know them who read them from activity, each time at another level of noise.

    An observer's information M is what the activity adds to the precision of the codes' prior, which is standard
    normal: the posterior mean is then ``R c + (R (I - R))^(1/2) e`` with ``R = M (I + M)^-1`` and white noise e. A
    quarter of the codes is known exactly.

    Args:
        information: ``(A, K, K)``, of A observers at a usual level of noise; it is scaled by 0.1 to 30.
        device: Where the codes are. Default: the CPU.
    """

    def __init__(self, information: Tensor, device: str | torch.device = "cpu"):
        values, axes = torch.linalg.eigh(information.cpu().double())  # not every device has float64
        self._values, self._axes = values.clamp(min=0).float().to(device), axes.float().to(device)

    def __call__(self, codes: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Posterior means and reliabilities (shares of variance that they explain), both ``(B, K)``.

        Args:
            codes: ``(B, K)``.
            rng: Draws observer, scale and noise; on the CPU.
        """
        observer = int(torch.randint(len(self._values), (1,), generator=rng))
        axes, size = self._axes[observer], len(codes)
        low, high = math.log(0.1), math.log(30.0)
        scale = torch.exp(low + (high - low) * torch.rand(size, 1, generator=rng)).to(codes)
        share = scale * self._values[observer] / (1 + scale * self._values[observer])
        noise = torch.randn(codes.shape, generator=rng).to(codes)
        mean = (share * (codes @ axes) + (share * (1 - share)).sqrt() * noise) @ axes.T
        known = (torch.rand(size, 1, generator=rng) < 0.25).to(codes.device)
        return torch.where(known, codes, mean), torch.where(known, 1.0, share @ axes.square().T)
