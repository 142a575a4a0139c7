"""Value tokens, and attention to a grid of them that never builds the tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding, RotaryCrossAttention, RotaryTimeEmbedding
from neurobridge_tb.nn.unit_rows import shared_rows


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
    rotary_emb: RotaryTimeEmbedding,
) -> Tensor:
    """Cross-attention of latents to the T*N value tokens of a grid: ``atn``'s own function and parameters.

    LayerNorm followed by a bias-free projection W of the token ``v * slope_u + offset_u`` is
    ``r * (v * A_u + B_u) + E`` with r = 1 / sqrt(var + eps), a scalar for each (v, u); A_u and B_u are one row a unit,
    E = W bias. The rotation by a bin's time is shared by its units and moves to the query. So no [B, T*N, D] activation
    exists. Accumulates the token variance in float32 at least.

    Args:
        atn: The layer (``rotate_value=True``).
        latents: (B, L, D) queries.
        latent_timestamps: (B, L) in s.
        values: (B, T, N) values (anything where not kept).
        keep: (B, T, N) which cells exist; each item needs at least one.
        timestamps: (B, T) bin times in s.
        slope: (B or 1, N, D) and
        offset: (B or 1, N, D), see :func:`value_token_rows`.
        rotary_emb: Makes rotary embeddings from times.

    Returns:
        (B, L, D), what ``atn(latents, tokens, …)`` would return.
    """
    heads, n_bins = atn.heads, values.shape[1]
    norm = atn.norm_context
    values = values.masked_fill(~keep, 0.0)

    # Token statistics: var(v, u) = a v^2 + 2 b v + c
    high = torch.promote_types(values.dtype, torch.float32)
    slope, offset = (x.to(high) - x.to(high).mean(-1, keepdim=True) for x in (slope, offset))
    v = values.to(high)
    a, b, c = (slope**2).mean(-1), (slope * offset).mean(-1), (offset**2).mean(-1)
    r = torch.rsqrt(a[:, None] * v**2 + 2 * b[:, None] * v + c[:, None] + norm.eps)  # (B, T, N)

    # Rows: (B or 1, H, N, d) for keys (A_k, B_k) and values (A_v, B_v)
    def rows(x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = F.linear((norm.weight * x).to(atn.to_kv.weight.dtype), atn.to_kv.weight).chunk(2, dim=-1)
        return tuple(y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (k, v))  # type: ignore[return-value]

    (a_key, a_value), (b_key, b_value) = rows(slope), rows(offset)
    e_key, e_value = (
        x.unflatten(-1, (heads, -1)) for x in F.linear(norm.bias, atn.to_kv.weight).chunk(2, dim=-1)
    )  # (H, d)

    # Queries, rotated by the time between latent and bin: (B or 1, H, L * T, d)
    latents, latent_timestamps, timestamps = (shared_rows(x) for x in (latents, latent_timestamps, timestamps))
    q = atn.to_q(atn.norm(latents)).unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, H, L, d)
    lag = rotary_emb(latent_timestamps[:, :, None] - timestamps[:, None, :])  # (b, L, T, 2d)
    q = RotaryTimeEmbedding.rotate(q[:, :, :, None], lag, unsqueeze_dim=1)  # (b, H, L, T, d)
    n_latents, dim_head = q.shape[2], q.shape[-1]
    q = q.flatten(2, 3) * dim_head**-0.5

    def on_grid(x: Tensor) -> Tensor:  # (b, H, L * T, …) -> (b, H, L, T, …)
        return x.unflatten(2, (n_latents, n_bins))

    r_, v_ = (x.to(q.dtype)[:, None, None] for x in (r, v))
    score = r_ * (v_ * on_grid(q @ a_key.mT) + on_grid(q @ b_key.mT)) + on_grid(q @ e_key[:, :, None])
    score = score.masked_fill(~keep[:, None, None], float("-inf"))  # (B, H, L, T, N)
    p = F.softmax(score.flatten(3), dim=-1).view_as(score)
    p = F.dropout(p, atn.dropout, atn.training)

    pr = p * r_
    out = (pr * v_).flatten(2, 3) @ a_value + pr.flatten(2, 3) @ b_value  # (B, H, L * T, d)
    out = on_grid(out) + p.sum(-1, keepdim=True) * e_value[:, None, None]
    out = RotaryTimeEmbedding.rotate(out, RotaryTimeEmbedding.invert(lag), unsqueeze_dim=1).sum(dim=3)
    return atn.to_out(out.transpose(1, 2).flatten(2))
