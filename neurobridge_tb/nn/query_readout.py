"""Read a set of latents out with learned queries."""

import torch
from torch import Tensor, nn


class QueryReadout(nn.Module):
    """K learned queries cross-attend to the latents.

    Args:
        dim: Latent dimension D.
        num_queries: K. Default 8.
        heads: Attention heads. Default 4.
        dropout: Dropout of the attention. Default 0.
    """

    def __init__(self, *, dim: int, num_queries: int = 8, heads: int = 4, dropout: float = 0.0):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.atn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, D) latents -> (B, K, D)."""
        latents = self.norm(latents)
        queries = self.queries.expand(len(latents), -1, -1)
        return queries + self.atn(queries, latents, latents, need_weights=False)[0]
