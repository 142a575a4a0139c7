"""What happened in the bins before, as a forecasting decoder is told it."""

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding


class PopulationFeedback(nn.Module):
    """A signed vector of the population's activity in one bin: ``sum_u (v_u G_u + K_u) / sqrt(units)``, then linear.

    G and K are rows of the units, so units are exchangeable and may be absent; see
    :class:`neurobridge_tb.nn.population.PopulationEmbedding`. Observed and predicted activity are marked apart: a
    predicted rate lacks the noise of a count.

    Args:
        dim: Model dimension D.
        dim_population: Width of the population vector.
    """

    def __init__(self, *, dim: int, dim_population: int):
        super().__init__()
        self.value_rows = InfiniteVocabEmbedding(dim_population, init_scale=1.0)
        self.presence_rows = InfiniteVocabEmbedding(dim_population, init_scale=0.02)
        self.to_state = nn.Linear(dim_population, dim)
        self.predicted = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Tensor, present: Tensor, predicted: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
        """One vector a bin.

        Args:
            values: (B, T, N) standardised activity.
            present: (B, T, N) which of it exists.
            predicted: (B, T) where it was predicted rather than observed.
            rows: From :meth:`unit_rows`.

        Returns:
            (B, T, D).
        """
        present = present.to(values.dtype)
        vector = (values * present) @ rows[0] + present @ rows[1]
        vector = vector / present.sum(-1, keepdim=True).clamp_min(1).sqrt()
        return self.to_state(vector) + predicted[..., None] * self.predicted

    def unit_rows(self, unit_index: Tensor) -> tuple[Tensor, Tensor]:
        """G and K, (b, N, P) each, of units (b, N); made once for a batch."""
        return self.value_rows(unit_index), self.presence_rows(unit_index)


class OwnHistory:
    """Each unit's own recent activity: exponential averages with several time constants, carried from bin to bin.

    An average is ``sum w v / (1 + sum w)`` with ``w = exp(-age / time constant)``, so that one with little behind it is
    drawn to 0, the unit's mean.

    Args:
        time_constants: In s.
        bin_size: In s.
    """

    def __init__(self, time_constants: tuple[float, ...], bin_size: float):
        self.decay = torch.exp(-bin_size / torch.tensor(time_constants))

    def start(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """State after bins (B, T, N): weighted sum and weight, (B, N, C) each."""
        age = torch.arange(values.shape[1] - 1, -1, -1, device=values.device)
        weight = self.decay.to(values) ** age[:, None]  # (T, C)
        present = present.to(values.dtype)
        total = torch.einsum("btn,tc->bnc", values * present, weight)
        return total, torch.einsum("btn,tc->bnc", present, weight)

    def step(self, state: tuple[Tensor, Tensor], values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """State after one more bin (B, N)."""
        decay, present = self.decay.to(values), present.to(values.dtype)[..., None]
        return state[0] * decay + values[..., None] * present, state[1] * decay + present

    @staticmethod
    def read(state: tuple[Tensor, Tensor]) -> Tensor:
        """(B, N, C) averages."""
        return state[0] / (1 + state[1])
