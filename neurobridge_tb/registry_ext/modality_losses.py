"""Losses that a modality can name, with upstream's call: ``loss(input, target, weights=None)``.

``input`` and ``target`` are (M, dim) (cross-entropy: target (M,)), ``weights`` is (M,) or None. They follow
``torch_brain.nn.loss`` of torch_brain 0.1.2, so that they serve POYO+ there as well.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from neurobridge_tb.registry_ext.contrastive import info_nce


def _weighted_mean(loss: Tensor, weights: Tensor | None) -> Tensor:
    return loss.mean() if weights is None else (weights * loss).sum() / weights.sum()


class MSELoss(nn.Module):
    """Mean squared error, averaged over ``dim`` and then over rows."""

    def forward(self, input: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        return _weighted_mean(F.mse_loss(input, target, reduction="none").mean(dim=1), weights)


class CrossEntropyLoss(nn.Module):
    """Cross-entropy of (M, dim) logits against (M,) class indices."""

    def forward(self, input: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        return _weighted_mean(F.cross_entropy(input, target, reduction="none"), weights)


class PoissonNLLLoss(nn.Module):
    """Poisson negative log-likelihood of counts under log-rates, in nats a bin, without the factorial term."""

    def forward(self, input: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        loss = F.poisson_nll_loss(input, target, log_input=True, full=False, reduction="none")
        return _weighted_mean(loss.mean(dim=1), weights)


class InfoNCELoss(nn.Module):
    """Symmetric InfoNCE between paired rows (van den Oord et al. 2018; CLIP, Radford et al. 2021).

    Both sides are normalised to unit length; the other rows of the batch are the negatives.

    Args:
        temperature: Softmax temperature of the cosine similarities.
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        return info_nce(input, target, temperature=self.temperature, weights=weights)
