"""Embeddings to the tokens of Stable Diffusion's cross-attention."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenAdapter(nn.Module):
    """``(B, E)`` to ``(B, T, D)``: the empty prompt's tokens plus what the embedding says.

    Embeddings are centred and scaled by their training set's statistics, so that the encoder's units drop out. Their
    projection to a few tokens is read by T queries (cross-attention), and refined by a feed-forward layer. The last
    layer starts at zero: before training, Stable Diffusion gets no condition, rather than one that it cannot read.

    Args:
        embedding_dim: Size E of the image embedding.
        tokens: Number T of tokens; Stable Diffusion's prompts have 77.
        token_dim: Size D of a token.
        slots: Tokens that the embedding is projected to first.
        heads: Attention heads.
    """

    mean: Tensor
    scale: Tensor
    empty: Tensor

    def __init__(self, *, embedding_dim: int, tokens: int = 77, token_dim: int = 768, slots: int = 8, heads: int = 8):
        super().__init__()
        self.config: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "tokens": tokens,
            "token_dim": token_dim,
            "slots": slots,
            "heads": heads,
        }
        self.slots = slots
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("empty", torch.zeros(tokens, token_dim))
        self.project = nn.Linear(embedding_dim, slots * token_dim)
        self.norm_slots = nn.LayerNorm(token_dim)
        self.queries = nn.Parameter(torch.randn(tokens, token_dim))
        self.attention = nn.MultiheadAttention(token_dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(token_dim)
        self.widen, self.out = nn.Linear(token_dim, 2 * token_dim), nn.Linear(2 * token_dim, token_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def fit(self, embeddings: Tensor, empty: Tensor) -> None:
        """Take the statistics of training embeddings ``(n, E)``, and the empty prompt's tokens ``(T, D)``."""
        self.mean.copy_(embeddings.mean(0))
        self.scale.copy_((embeddings - self.mean).square().mean().sqrt().clamp(min=1e-6))
        self.empty.copy_(empty)

    def forward(self, embedding: Tensor) -> Tensor:
        """Tokens ``(B, T, D)`` of embeddings ``(B, E)`` on the encoder's own scale."""
        slots = self.project((embedding - self.mean) / self.scale).unflatten(1, (self.slots, -1))
        slots = self.norm_slots(slots)
        queries = self.queries.expand(len(embedding), -1, -1)
        tokens = queries + self.attention(queries, slots, slots, need_weights=False)[0]
        return self.empty + self.out(F.gelu(self.widen(self.norm(tokens))))
