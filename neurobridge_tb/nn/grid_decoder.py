"""Predict from latents what each unit did at each time of a grid."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import (
    FeedForward,
    InfiniteVocabEmbedding,
    RotaryCrossAttention,
    RotaryTimeEmbedding,
)
from neurobridge_tb.nn.rotary import precise


class Cells(NamedTuple):
    """Cells of a batch of unit x time grids (B, K, M), as three lists of one length P.

    Attributes:
        window: (P,) index into B.
        time: (P,) index into K.
        unit: (P,) index into M.
    """

    window: Tensor
    time: Tensor
    unit: Tensor

    @classmethod
    def listed(cls, cells: Tensor, count: Tensor) -> "Cells":
        """From (P, 2) time and unit of each, window by window, and (B,) how many there are in each window."""
        windows = torch.arange(len(count), device=count.device)
        window = torch.repeat_interleave(windows, count, output_size=len(cells))  # else it would wait for the sum
        return cls(window, *cells.long().unbind(-1))


def grid_cross_attention(
    atn: RotaryCrossAttention,
    queries: Tensor,
    timestamps: Tensor,
    latents: Tensor,
    latent_timestamps: Tensor,
    rotary_emb: RotaryTimeEmbedding,
    cells: Cells | None = None,
) -> Tensor:
    """Cross-attention of (time, unit) queries to the latents: ``atn``'s own function and parameters.

    A query depends on the unit alone and is then rotated by the time, so M rows are projected instead of K*M, and the
    rotation moves to the keys.

    Args:
        atn: The layer (``rotate_value=False``).
        queries: (B, M, D) one row a unit.
        timestamps: (B, K) in s.
        latents: (B, L, D).
        latent_timestamps: (B, L) in s.
        rotary_emb: Makes rotary embeddings from times.
        cells: The P cells that are computed. Default: all.

    Returns:
        (P, D), or (B, K, M, D) of all cells.
    """
    q = atn.to_q(atn.norm(queries)).unflatten(-1, (atn.heads, -1)).transpose(1, 2)  # (B, H, M, d)
    k, v = atn.to_kv(atn.norm_context(latents)).chunk(2, dim=-1)
    k, v = (x.unflatten(-1, (atn.heads, -1)).transpose(1, 2) for x in (k, v))  # (B, H, L, d)
    lag = rotary_emb(precise(latent_timestamps)[:, None, :] - precise(timestamps)[:, :, None])  # (B, K, L, 2d)
    k = RotaryTimeEmbedding.rotate(k[:, :, None], lag, unsqueeze_dim=1)  # (B, H, K, L, d)
    score = q[:, :, None] @ k.mT * q.shape[-1] ** -0.5  # (B, H, K, M, L)
    p = nn.functional.dropout(score.softmax(dim=-1), atn.dropout, atn.training)
    out = (p @ v[:, :, None]).permute(0, 2, 3, 1, 4)  # (B, K, M, H, d)
    return atn.to_out((out if cells is None else out[cells.window, cells.time, cells.unit]).flatten(-2))


class GridDecoder(nn.Module):
    """Decode a unit x time grid from latents, in two ways that are added.

    - A query for each (time, unit) cross-attends to the latents, and a small MLP makes one number of it. (A GEGLU
      feed-forward there took half of a training step; there are T * N queries.)
    - One query for each time cross-attends too and gives, after a GEGLU feed-forward, a *bin state*, which each unit
      reads with a row of its own, as neural data transformers do (Ye and Pandarinath 2021, arXiv:2108.01210). It is a
      short way for what units share.

    Args:
        dim: Model dimension D.
        dim_unit: Width of the unit embeddings.
        dim_head: Dimension of an attention head.
        heads: Number of attention heads of the unit queries.
        state_heads: Number of attention heads of the bin states.
        ffn_dropout: Dropout in the feed-forward networks.
        atn_dropout: Dropout in the attention.
        starts_at_zero: It learns a residual: all that it decodes is 0 at first. Default False.
        predicts_units: With False there are :meth:`bin_states` alone, and no parameters for units. Default True.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_unit: int,
        dim_head: int,
        heads: int,
        state_heads: int,
        ffn_dropout: float,
        atn_dropout: float,
        starts_at_zero: bool = False,
        predicts_units: bool = True,
    ):
        super().__init__()

        def attention(heads: int) -> RotaryCrossAttention:
            return RotaryCrossAttention(
                dim=dim, heads=heads, dim_head=dim_head, dropout=atn_dropout, rotate_value=False
            )

        self.state_rows = None
        if predicts_units:
            self.unit_query = nn.Linear(dim_unit, dim)
            self.atn = attention(heads)
            self.readout = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(ffn_dropout), nn.Linear(dim, 1)
            )
        self.state_query = nn.Parameter(torch.randn(dim) * 0.02)
        self.state_atn = attention(state_heads)
        self.state_ffn = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim=dim, mult=2, dropout=ffn_dropout))
        self.state_norm = nn.LayerNorm(dim)
        if predicts_units:
            self.state_rows = InfiniteVocabEmbedding(dim, init_scale=0.0 if starts_at_zero else 0.02)
            if starts_at_zero:
                for parameter in self.readout[-1].parameters():
                    nn.init.zeros_(parameter)

    def forward(
        self,
        *,
        latents: Tensor,
        latent_timestamps: Tensor,
        states: Tensor,
        unit_emb: Tensor,
        unit_index: Tensor,
        session_emb: Tensor,
        timestamps: Tensor,
        rotary_emb: RotaryTimeEmbedding,
        cells: Cells | None = None,
    ) -> Tensor:
        """Prediction of each (time, unit).

        Args:
            latents: (B, L, D).
            latent_timestamps: (B, L) in s.
            states: (B, K, D) from :meth:`bin_states`.
            unit_emb: (B, M, D_unit) embeddings of the units.
            unit_index: (B, M) indices of the units.
            session_emb: (B, D).
            timestamps: (B, K) in s.
            rotary_emb: Makes rotary embeddings from times.
            cells: The cells that are predicted; the number of them is known without a look at the values of a mask,
                which would wait for a GPU. Default: all.

        Returns:
            (B, K, M), 0 in the other cells.
        """
        assert self.state_rows is not None, "made with predicts_units=False"
        queries = self.unit_query(unit_emb) + session_emb[:, None]
        shared = states @ self.state_rows(unit_index).mT  # (B, K, M)
        attended = grid_cross_attention(self.atn, queries, timestamps, latents, latent_timestamps, rotary_emb, cells)
        if cells is None:
            return shared + self.readout(queries[:, None] + attended).squeeze(-1)
        n_times, n_units = shared.shape[1:]
        query = nn.functional.embedding(cells.window * n_units + cells.unit, queries.flatten(0, 1))
        place = (cells.window * n_times + cells.time) * n_units + cells.unit
        predicted = self.readout(query + attended).squeeze(-1) + shared.flatten()[place]
        return predicted.new_zeros(shared.numel()).index_copy(0, place, predicted).view_as(shared)

    def bin_states(
        self,
        latents: Tensor,
        latent_timestamps: Tensor,
        session_emb: Tensor,
        timestamps: Tensor,
        rotary_emb: RotaryTimeEmbedding,
    ) -> Tensor:
        """State of the whole population at each time, (B, K, D); other arguments as in :meth:`forward`."""
        query = (self.state_query + session_emb)[:, None].expand(-1, timestamps.shape[1], -1)
        state = query + self.state_atn(query, latents, rotary_emb(timestamps), rotary_emb(latent_timestamps))
        return self.state_norm(state + self.state_ffn(state))
