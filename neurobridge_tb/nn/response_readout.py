"""A linear read-out of a window's responses: one row of weights a unit."""

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding


class ResponseReadout(nn.Module):
    """Linear map from the standardised responses of a window, averaged within each latent step, to a vector.

    It starts at zero, and is what a ridge regression fits in closed form: ``sum_us (x_us - mean_us) W_us + bias``.
    Weights and means belong to units, so recordings with other units get rows of their own. An absent value counts as
    the unit's mean.

    Args:
        dim_out: Width E of the output.
        num_steps: Latent steps of a window, S.
        latent_step: Seconds between them.
    """

    def __init__(self, *, dim_out: int, num_steps: int, latent_step: float):
        super().__init__()
        self.dim_out, self.num_steps, self.latent_step = dim_out, num_steps, latent_step
        self.unit_rows = InfiniteVocabEmbedding(num_steps * dim_out, init_scale=0.0)
        self.mean_rows = InfiniteVocabEmbedding(num_steps, init_scale=0.0)  # set by a fit, not trained
        self.bias = nn.Parameter(torch.zeros(dim_out))

    def initialize_vocab(self, unit_ids: list[str]) -> None:
        """Name the units."""
        self.unit_rows.initialize_vocab(unit_ids)
        self.mean_rows.initialize_vocab(unit_ids)
        self.mean_rows.requires_grad_(False)

    def forward(self, values: Tensor, keep: Tensor, timestamps: Tensor, unit_index: Tensor) -> Tensor:
        """Predictions (B, E) from windows as :func:`step_means` takes them; ``unit_index`` is (B, N)."""
        means, exists = step_means(values, keep, timestamps, num_steps=self.num_steps, latent_step=self.latent_step)
        means = (means - self.mean_rows(unit_index).transpose(1, 2)) * exists
        weight = self.unit_rows.weight  # (U, S * E)
        every = means.new_zeros(len(means), self.num_steps, len(weight))
        every = every.scatter_add(2, unit_index[:, None].expand_as(means), means)  # padded units add nothing
        return every.transpose(1, 2).flatten(1) @ weight.view(-1, self.dim_out) + self.bias


def step_means(
    values: Tensor, keep: Tensor, timestamps: Tensor, *, num_steps: int, latent_step: float
) -> tuple[Tensor, Tensor]:
    """Mean of each unit's values in each latent step of a window.

    Args:
        values: (B, T, N) standardised values.
        keep: (B, T, N) which of them exist.
        timestamps: (B, T) in s from the window's start.
        num_steps: Latent steps of a window, S.
        latent_step: Seconds between them.

    Returns:
        (B, S, N), 0 where there is no value; and (B, S, N), whether there is one.
    """
    step = torch.floor(timestamps / latent_step + 1e-6).long().clamp(0, num_steps - 1)
    member = (step[:, None] == torch.arange(num_steps, device=step.device)[:, None]).to(values)  # (B, S, T)
    kept = keep.to(values)
    count = member @ kept
    return (member @ (values * kept)) / count.clamp_min(1), count > 0
