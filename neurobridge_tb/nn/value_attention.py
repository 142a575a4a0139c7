"""Value tokens, and attention to a grid of them that never builds the tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding, RotaryCrossAttention, RotaryTimeEmbedding
from neurobridge_tb.nn.bin_attention import bin_attention
from neurobridge_tb.nn.rotary import rotate


def value_token_rows(
    value_map: nn.Linear, unit_emb: InfiniteVocabEmbedding, gain_emb: InfiniteVocabEmbedding | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope and offset of each unit's token: ``token(u, v) = v * slope_u + offset_u``.

    CaPOYO's token is ``[value_map(v) || unit_emb(u)]`` with one value direction for all units; ``gain_emb`` adds a
    direction of the unit's own (zero-initialised, it is CaPOYO's token exactly).

    Args:
        value_map: Linear(1, D/2).
        unit_emb: Unit embeddings of width D/2.
        gain_emb: Value directions of width D/2, or None for CaPOYO's shared one.
        index: (…) unit indices.

    Returns:
        slope (…, D) and offset (…, D).
    """
    identity = unit_emb(index)
    slope = value_map.weight[:, 0].expand_as(identity)
    if gain_emb is not None:
        slope = slope + gain_emb(index)
    slope = torch.cat([slope, torch.zeros_like(identity)], dim=-1)
    offset = torch.cat([value_map.bias.expand_as(identity), identity], dim=-1)
    return slope, offset


def grid_value_attention(
    atn: RotaryCrossAttention,
    latents: Tensor,
    latent_timestamps: Tensor,
    values: Tensor,
    keep: Tensor,
    timestamps: Tensor,
    slope: Tensor,
    offset: Tensor,
    index: Tensor,
    rotary_emb: RotaryTimeEmbedding,
) -> Tensor:
    """Cross-attention of latents to the T*N value tokens of a grid: ``atn``'s own function and parameters.

    LayerNorm followed by a bias-free projection W of the token ``v * slope_u + offset_u`` is
    ``r * (v * A_u + B_u) + E`` with r = 1 / sqrt(var + eps), a scalar for each (v, u); A_u and B_u are one row a unit,
    E = W bias. The rotation by a bin's time is shared by its units: it moves to the query, and to the bin's output. The
    softmax over all cells is that over the units of each bin, and that over bins of its denominators. So no
    [B, T*N, D] activation exists, and no [B, H, L, T, N] scores either (:mod:`neurobridge_tb.nn.bin_attention`).
    Accumulates the token variance in float32 at least.

    Args:
        atn: The layer (``rotate_value=True``).
        latents: (B, L, D) queries.
        latent_timestamps: (B, L) in s.
        values: (B, T, N) values (anything where not kept).
        keep: (B, T, N) which cells exist; each item needs at least one.
        timestamps: (B, T) bin times in s.
        slope: (R, D) rows of units, and
        offset: (R, D), see :func:`value_token_rows`.
        index: (B, N) which of the R rows is each unit's.
        rotary_emb: Makes rotary embeddings from times.

    Returns:
        (B, L, D), what ``atn(latents, tokens, …)`` would return.
    """
    norm = atn.norm_context
    high = torch.promote_types(latents.dtype, torch.float32)
    with torch.autocast(latents.device.type, enabled=False):
        # Token statistics: var(v, u) = a v^2 + 2 b v + c
        v = values.masked_fill(~keep, 0.0).to(high)
        slope, offset = (x.to(high) - x.to(high).mean(-1, keepdim=True) for x in (slope, offset))
        moments = torch.stack([(slope**2).mean(-1), (slope * offset).mean(-1), (offset**2).mean(-1)], dim=-1)
        a, b, c = F.embedding(index, moments)[:, None].unbind(-1)  # (B, 1, N)
        r = torch.rsqrt(a * v**2 + 2 * b * v + c + norm.eps)

        # Rows (2, H, d, R) for keys and values: A, B; and E (2, H, d)
        weight = atn.to_kv.weight.to(high).unflatten(0, (2, atn.heads, -1))
        slope, offset = (torch.einsum("khdi,ri->khdr", weight, norm.weight * x) for x in (slope, offset))
        e_key, e_value = (weight @ norm.bias.to(high))[:, None]  # (1, H, d)

    # Queries (B, T, H, L, d), rotated by the time between latent and bin
    latent_rotary = rotary_emb(latent_timestamps)[:, None]  # (B, 1, L, 2d)
    bin_rotary = rotary_emb(timestamps)[:, :, None, None]  # (B, T, 1, 1, 2d)
    q = atn.to_q(atn.norm(latents)).unflatten(-1, (atn.heads, -1)).transpose(1, 2)
    q = rotate(q * q.shape[-1] ** -0.5, latent_rotary)[:, None]
    q = rotate(q, bin_rotary, inverse=True)

    dropout = atn.dropout if atn.training else 0.0
    seed = torch.randint(2**62, ()) if dropout else torch.zeros((), dtype=torch.long)
    out, log_sum, mass = bin_attention(q, v, r, slope, offset, keep, index, dropout, seed)
    bins = (log_sum + (q * e_key[..., None, :]).sum(-1)).softmax(dim=1)  # (B, T, H, L)
    out = out + mass[..., None] * e_value[..., None, :]
    out = (bins[..., None] * rotate(out, bin_rotary)).sum(1)  # (B, H, L, d)
    out = rotate(out, latent_rotary, inverse=True)
    return atn.to_out(out.transpose(1, 2).flatten(2))
