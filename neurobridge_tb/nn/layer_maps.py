"""Embeddings made of several layers side by side: each layer has a map and a norm of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerMaps(nn.Module):
    """A square linear map of each layer's part of an embedding.

    Args:
        widths: Width of each layer, in the embedding's order.
        gain: Each map starts at this multiple of the identity.
    """

    def __init__(self, widths: Sequence[int], *, gain: float):
        super().__init__()
        self.widths = list(widths)
        self.maps = nn.ParameterList([gain * torch.eye(width) for width in widths])

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E) -> (B, E)."""
        parts = embedding.split(self.widths, dim=-1)
        return torch.cat([part @ weight.T for part, weight in zip(parts, self.maps, strict=True)], dim=-1)


def weighted_parts(embedding: Tensor, widths: Sequence[int], weights: Tensor) -> Tensor:
    """Each layer's part with a norm of the root of its weight.

    The dot product of two such embeddings is the sum of the layers' cosines, each times its weight.

    Args:
        embedding: (B, E).
        widths: Width of each layer, adding up to E.
        weights: (L,), 0 or more; where they add up to 1, so do the squares of the whole.
    """
    parts = embedding.split(list(widths), dim=-1)
    return torch.cat([F.normalize(part, dim=-1) * w for part, w in zip(parts, weights.sqrt(), strict=True)], dim=-1)
