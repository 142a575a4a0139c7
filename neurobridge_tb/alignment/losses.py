"""Losses that bring neural activity and image embeddings together."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext.contrastive import check_pair, info_nce

__all__ = ["Temperature", "info_nce", "regression_loss"]


class Temperature(nn.Module):
    """A learned softmax temperature between two bounds (after Radford et al. 2021, section 2.5).

    Its logarithm is learned; each forward pass first puts it back between the bounds, so that it
    can leave a bound again.

    Args:
        start: Temperature at the start, between the bounds.
        low: Lower bound; 0.01 is CLIP's.
        high: Upper bound.
    """

    def __init__(self, start: float = 0.07, low: float = 0.01, high: float = 1.0):
        super().__init__()
        if not 0 < low <= start <= high:
            raise InputError(
                expected="0 < low <= start <= high",
                found=f"low={low}, start={start}, high={high}",
                fix="Start the temperature between its bounds.",
            )
        self.low, self.high = math.log(low), math.log(high)
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def set(self, temperature: float) -> None:
        """Go on from this temperature."""
        with torch.no_grad():
            self.log.fill_(math.log(temperature))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        with torch.no_grad():
            self.log.clamp_(self.low, self.high)
        return self.log.exp()


def regression_loss(predicted: Tensor, target: Tensor, *, cosine_weight: float = 1.0) -> Tensor:
    """Mean squared error on the embedding's own scale plus mean cosine distance.

    Args:
        predicted: ``(B, D)``.
        target: ``(B, D)``, not normalised.
        cosine_weight: Weight of the cosine distance.

    Returns:
        Scalar.
    """
    check_pair(predicted, target)
    distance = 1 - F.cosine_similarity(predicted, target, dim=1).mean()
    return F.mse_loss(predicted, target) + cosine_weight * distance
