"""A signed, linear view of the whole population for the latents.

An attention head reads a convex combination of value tokens, so little of a window's activity passes through few heads.
Here each latent step also receives a linear map of ``sum_u (v_u G_u + K_u) / sqrt(kept units)`` over its bins: G and K
are rows of the units, so units stay exchangeable, ragged and maskable.
"""

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.nn.unit_rows import shared_rows


class PopulationEmbedding(nn.Module):
    """Add to each latent a linear map of its step's population vector.

    Args:
        dim: Latent dimension D.
        dim_population: Width P of the population vector.
        num_latents_per_step: Each latent of a step has its own map from P to D.
        latent_step: Seconds between latent steps.
    """

    def __init__(self, *, dim: int, dim_population: int, num_latents_per_step: int, latent_step: float):
        super().__init__()
        self.latent_step = latent_step
        self.value_rows = InfiniteVocabEmbedding(dim_population, init_scale=1.0)
        self.presence_rows = InfiniteVocabEmbedding(dim_population, init_scale=0.02)
        scale = dim_population**-0.5
        self.to_latents = nn.Parameter(torch.randn(num_latents_per_step, dim_population, dim) * scale)

    def forward_grid(
        self, values: Tensor, keep: Tensor, timestamps: Tensor, unit_index: Tensor, n_steps: int
    ) -> Tensor:
        """Population term of every latent.

        Args:
            values: (B, T, N) standardised values.
            keep: (B, T, N) which cells exist.
            timestamps: (B, T) in s.
            unit_index: (B, N).
            n_steps: Number of latent steps S.

        Returns:
            (B, S * J, D), latents of one step side by side as upstream lays them.
        """
        unit_index = shared_rows(unit_index)
        kept = keep.to(values.dtype)
        vector = (values * kept) @ self.value_rows(unit_index) + kept @ self.presence_rows(unit_index)
        vector = vector / kept.sum(-1, keepdim=True).clamp_min(1).sqrt()  # (B, T, P)
        weight = self._membership(timestamps, n_steps).to(vector) * kept.amax(-1)[:, None]  # (B, S, T)
        return self._spread(weight / weight.sum(-1, keepdim=True).clamp_min(1).sqrt() @ vector)

    def forward_events(self, timestamps: Tensor, unit_index: Tensor, mask: Tensor, n_steps: int) -> Tensor:
        """The same for events (value 1): ``timestamps``, ``unit_index``, ``mask`` are (B, n); returns (B, S * J, D)."""
        rows = self.value_rows(unit_index) + self.presence_rows(unit_index)  # (B, n, P)
        weight = self._membership(timestamps, n_steps).to(rows) * mask[:, None]
        return self._spread(weight / weight.sum(-1, keepdim=True).clamp_min(1).sqrt() @ rows)

    def _membership(self, timestamps: Tensor, n_steps: int) -> Tensor:
        step = torch.floor(timestamps / self.latent_step + 1e-6).long().clamp(0, n_steps - 1)
        return step[:, None] == torch.arange(n_steps, device=step.device)[:, None]  # (B, S, T)

    def _spread(self, vector: Tensor) -> Tensor:  # (B, S, P) -> (B, S * J, D)
        return torch.einsum("bsp,jpd->bsjd", vector, self.to_latents).flatten(1, 2)
