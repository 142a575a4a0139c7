"""A signed, linear view of the whole population for the latents.

An attention head reads a convex combination of value tokens, so little of a window's activity passes through few heads.
Here each latent step also receives a linear map of ``sum_u (v_u G_u + K_u) / sqrt(kept units)`` over its bins: G and K
are rows of the units, so units stay exchangeable, ragged and maskable.
"""

import torch
from torch import Tensor

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.nn.step_embedding import StepEmbedding
from neurobridge_tb.nn.unit_rows import sum_by_row


class PopulationEmbedding(StepEmbedding):
    """Add to each latent a linear map of its step's population vector.

    Args:
        dim: Latent dimension D.
        dim_population: Width P of the population vector.
        num_latents_per_step: Each latent of a step has its own map from P to D.
        latent_step: Seconds between latent steps.
    """

    def __init__(self, *, dim: int, dim_population: int, num_latents_per_step: int, latent_step: float):
        super().__init__(
            dim=dim, dim_input=dim_population, num_latents_per_step=num_latents_per_step, latent_step=latent_step
        )
        self.value_rows = InfiniteVocabEmbedding(dim_population, init_scale=1.0)
        self.presence_rows = InfiniteVocabEmbedding(dim_population, init_scale=0.02)

    def forward_grid(
        self, values: Tensor, keep: Tensor, timestamps: Tensor, rows: Tensor, index: Tensor, n_steps: int
    ) -> Tensor:
        """Population term of every latent.

        Args:
            values: (B, T, N) standardised values.
            keep: (B, T, N) which cells exist.
            timestamps: (B, T) in s.
            rows: (R,) unit indices, and
            index: (B, N) which of them is each unit's, see :func:`neurobridge_tb.nn.unit_rows.batch_rows`.
            n_steps: Number of latent steps S.

        Returns:
            (B, S * J, D), latents of one step side by side as upstream lays them.
        """
        kept = keep.to(values.dtype)
        seen = torch.stack([values * kept, kept])  # (2, B, T, N)
        if len(rows) <= 4 * index.shape[1]:  # one product for the batch costs less than rows for each item
            seen = sum_by_row(seen, index, len(rows))
        else:
            rows = rows[index]
        vector = seen[0] @ self.value_rows(rows) + seen[1] @ self.presence_rows(rows)
        vector = vector / kept.sum(-1, keepdim=True).clamp_min(1).sqrt()  # (B, T, P)
        return self.forward(vector, kept.amax(-1), timestamps, n_steps)

    def forward_events(self, timestamps: Tensor, mask: Tensor, rows: Tensor, index: Tensor, n_steps: int) -> Tensor:
        """The same for events (value 1): ``timestamps``, ``mask`` and ``index`` are (B, n); returns (B, S * J, D)."""
        weight = self.membership(timestamps, n_steps).to(self.to_latents.dtype) * mask[:, None]  # (B, S, n)
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1).sqrt()
        if len(rows) * n_steps <= 64 * index.shape[1]:  # few rows: sum the events of each unit first
            weight = sum_by_row(weight, index, len(rows))
        else:
            rows = rows[index]
        return self.spread(weight @ (self.value_rows(rows) + self.presence_rows(rows)))
