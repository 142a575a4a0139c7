"""What happened in the bins before, as input of a forecasting decoder."""

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding

_PRIOR_SPIKES = 1.0  # k of OwnHistory


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
    """How each unit's recent counts compare with its mean rate, over several time constants, carried from bin to bin.

    With ``w = exp(-age / time constant)``, counts n and the mean count m of a bin, it is the log of
    ``(k + sum w n) / (k + sum w m)``: by how much a unit that is drawn to its mean by k spikes (the posterior mean of a
    Poisson rate under a Gamma prior) fires more or less than that. So it means the same for busy and for quiet units.

    Args:
        time_constants: In s.
        bin_size: In s.
    """

    def __init__(self, time_constants: tuple[float, ...], bin_size: float):
        self.decay = torch.exp(-bin_size / torch.tensor(time_constants))

    def start(self, counts: Tensor, present: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """State after bins (B, T, N) of counts; weighted sums of counts and of means (B or 1, 1, N), (B, N, C) each."""
        age = torch.arange(counts.shape[1] - 1, -1, -1, device=counts.device)
        weight = self.decay.to(counts) ** age[:, None]  # (T, C)
        present = present.to(counts.dtype)
        observed = torch.einsum("btn,tc->bnc", counts * present, weight)
        return observed, torch.einsum("btn,tc->bnc", mean * present, weight)

    def step(
        self, state: tuple[Tensor, Tensor], counts: Tensor, present: Tensor, mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        """State after one more bin (B, N); ``mean`` (B or 1, N)."""
        decay, present = self.decay.to(counts), present.to(counts.dtype)
        added = ((x * present)[..., None] for x in (counts, mean))
        observed, expected = (before * decay + new for before, new in zip(state, added, strict=True))
        return observed, expected

    @staticmethod
    def read(state: tuple[Tensor, Tensor]) -> Tensor:
        """(..., N, 2 C) log-ratios: each unit's own, and those of all units together; of states (..., N, C)."""
        observed, expected = state
        own, shared = (
            ((_PRIOR_SPIKES + o) / (_PRIOR_SPIKES + e)).log()
            for o, e in (state, (observed.sum(-2, keepdim=True), expected.sum(-2, keepdim=True)))
        )
        return torch.cat([own, shared.expand_as(own)], dim=-1)
