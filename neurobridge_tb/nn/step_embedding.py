"""What a vector a bin adds to the latents of its step."""

import torch
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Linear map of the vectors within each latent step; each latent of a step has a map of its own.

    Args:
        dim: Latent dimension D.
        dim_input: Width P of the vectors.
        num_latents_per_step: J.
        latent_step: Seconds between latent steps.
    """

    def __init__(self, *, dim: int, dim_input: int, num_latents_per_step: int, latent_step: float):
        super().__init__()
        self.latent_step = latent_step
        self.to_latents = nn.Parameter(torch.randn(num_latents_per_step, dim_input, dim) * dim_input**-0.5)

    def forward(self, vectors: Tensor, weights: Tensor, timestamps: Tensor, n_steps: int) -> Tensor:
        """Term of every latent: the sum of a step's vectors, over the root of how many there are.

        Args:
            vectors: (B, T, P).
            weights: (B, T) 1 for a bin that counts, 0 for one that does not.
            timestamps: (B, T) in s.
            n_steps: Number of latent steps S.

        Returns:
            (B, S * J, D), latents of one step side by side as upstream lays them.
        """
        weight = self.membership(timestamps, n_steps).to(vectors) * weights[:, None]  # (B, S, T)
        return self.spread(weight / weight.sum(-1, keepdim=True).clamp_min(1).sqrt() @ vectors)

    def membership(self, timestamps: Tensor, n_steps: int) -> Tensor:
        """(B, S, T) which times lie in which step."""
        step = torch.floor(timestamps / self.latent_step + 1e-6).long().clamp(0, n_steps - 1)
        return step[:, None] == torch.arange(n_steps, device=step.device)[:, None]

    def spread(self, vector: Tensor) -> Tensor:
        """From a vector a step (B, S, P) to its latents (B, S * J, D)."""
        return torch.einsum("bsp,jpd->bsjd", vector, self.to_latents.to(vector.dtype)).flatten(1, 2)
