"""A decoder over future bins that looks at the latents of the past and at the bins before its own."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurobridge_tb._upstream import FeedForward, RotaryCrossAttention, RotaryTimeEmbedding

KeysValues = tuple[Tensor, Tensor]  # (B, H, n, d) each, keys rotated by their times


def keys_values(atn: RotaryCrossAttention, context: Tensor, rotary: Tensor) -> KeysValues:
    """Keys and values of ``context`` (B, n, D) with rotary embeddings (B, n, 2d): ``atn``'s own parameters."""
    k, v = atn.to_kv(atn.norm_context(context)).chunk(2, dim=-1)
    k, v = (x.unflatten(-1, (atn.heads, -1)).transpose(1, 2) for x in (k, v))
    return RotaryTimeEmbedding.rotate(k, rotary, unsqueeze_dim=1), v


def attend(atn: RotaryCrossAttention, x: Tensor, rotary: Tensor, context: KeysValues, *, causal: bool) -> Tensor:
    """``atn(x, context, …)`` on keys and values made before (``rotate_value=False``).

    Args:
        atn: The layer.
        x: (B, T, D) queries.
        rotary: (B, T, 2d).
        context: From :func:`keys_values`.
        causal: Query t sees keys up to t only.

    Returns:
        (B, T, D).
    """
    q = atn.to_q(atn.norm(x)).unflatten(-1, (atn.heads, -1)).transpose(1, 2)
    q = RotaryTimeEmbedding.rotate(q, rotary, unsqueeze_dim=1)
    dropout = atn.dropout if atn.training else 0.0
    out = F.scaled_dot_product_attention(q, *context, dropout_p=dropout, is_causal=causal)
    return atn.to_out(out.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Cross-attention to the latents, causal self-attention over bins, feed-forward (pre-norm, residual).

    Args:
        dim: Model dimension D.
        dim_head: Dimension of an attention head.
        heads: Attention heads.
        ffn_dropout: Dropout in the feed-forward network.
        atn_dropout: Dropout in the attention.
    """

    def __init__(self, *, dim: int, dim_head: int, heads: int, ffn_dropout: float, atn_dropout: float):
        super().__init__()
        self.cross, self.past = (
            RotaryCrossAttention(dim=dim, heads=heads, dim_head=dim_head, dropout=atn_dropout, rotate_value=False)
            for _ in range(2)
        )
        self.ffn = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim=dim, mult=2, dropout=ffn_dropout))

    def forward(
        self, x: Tensor, rotary: Tensor, latents: KeysValues, cache: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """One layer over all bins, or over one more bin.

        Args:
            x: (B, T, D) bin states.
            rotary: (B, T, 2d).
            latents: Keys and values of the latents.
            cache: Keys and values of the bins before, when T is 1; None: ``x`` holds all bins from the first on.

        Returns:
            (B, T, D), and the keys and values of all bins so far.
        """
        x = x + attend(self.cross, x, rotary, latents, causal=False)
        keys, values = keys_values(self.past, x, rotary)
        if cache is not None:
            keys, values = torch.cat([cache[0], keys], dim=2), torch.cat([cache[1], values], dim=2)
        x = x + attend(self.past, x, rotary, (keys, values), causal=cache is None)
        return x + self.ffn(x), (keys, values)


class CausalDecoder(nn.Module):
    """States of future bins, one query a bin.

    Args:
        dim: Model dimension D.
        depth: Number of layers.
        dim_head: Dimension of an attention head.
        heads: Attention heads.
        ffn_dropout: Dropout in the feed-forward networks.
        atn_dropout: Dropout in the attention.
    """

    def __init__(self, *, dim: int, depth: int, dim_head: int, heads: int, ffn_dropout: float, atn_dropout: float):
        super().__init__()
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(dim=dim, dim_head=dim_head, heads=heads, ffn_dropout=ffn_dropout, atn_dropout=atn_dropout)
            for _ in range(depth)
        )

    def latent_context(self, latents: Tensor, rotary: Tensor) -> list[KeysValues]:
        """Keys and values of the latents (B, L, D) for each layer, made once for a window."""
        return [keys_values(cast(DecoderLayer, layer).cross, latents, rotary) for layer in self.layers]

    def forward(
        self, feedback: Tensor, rotary: Tensor, context: list[KeysValues], cache: list[KeysValues] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Bin states from what is fed back.

        Args:
            feedback: (B, T, D) of each bin: what happened in the bin before.
            rotary: (B, T, 2d) of the bins' times.
            context: From :meth:`latent_context`.
            cache: What an earlier call returned, to go on by one bin (T = 1). Default: from the first bin.

        Returns:
            (B, T, D), and the cache.
        """
        x = self.query + feedback
        caches = []
        for i, layer in enumerate(self.layers):
            x, kept = layer(x, rotary, context[i], None if cache is None else cache[i])
            caches.append(kept)
        return x, caches
