"""From read-out queries to an image embedding."""

import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Module):
    """3-layer MLP (Linear, LayerNorm, GELU, dropout), then two heads.

    The *contrastive* head has unit norm and serves retrieval; the *regression* head is in the raw scale of the image
    embedding and serves generation (InfoNCE alone leaves the scale undefined).

    Args:
        dim_in: Width of the flattened read-out, K * D.
        dim_hidden: Hidden width.
        dim_out: Width of the image embedding, e.g. 768 for CLIP ViT-L/14.
        dropout: Dropout after each hidden layer.
    """

    def __init__(self, *, dim_in: int, dim_hidden: int, dim_out: int, dropout: float):
        super().__init__()
        widths = [dim_in, dim_hidden, dim_hidden, dim_hidden]
        self.mlp = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.GELU(), nn.Dropout(dropout))
                for a, b in zip(widths[:-1], widths[1:], strict=True)
            )
        )
        self.contrastive = nn.Linear(dim_hidden, dim_out)
        self.regression = nn.Linear(dim_hidden, dim_out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim_in) -> contrastive (B, dim_out), unit norm, and regression (B, dim_out), raw scale."""
        h = self.mlp(x)
        return F.normalize(self.contrastive(h), dim=-1), self.regression(h)
