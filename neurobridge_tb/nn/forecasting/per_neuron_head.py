"""From the state of a time bin to each unit's log-rate."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_AT_ONCE = 2**20  # hidden activations that are in memory at a time: they fit into a processor's cache


class PerNeuronHead(nn.Module):
    """One MLP for all units on [bin state, unit embedding, how its rate drifts, its own recent activity].

    A linear read-out of the bin state by the unit embedding is added, a short way for what units share, and one of the
    recent activity. All of them start at zero. The first layer of the MLP is the sum of a part that depends on the bin
    and one that depends on the unit (:meth:`of_units`), so that no concatenation exists. Its hidden activations (bins
    x units x ``dim_hidden``) are made for a few bins at a time, in the backward pass once more: that takes a fraction
    of the memory and, on a processor, less time.

    Args:
        dim: Width of the bin states and of the unit embeddings.
        dim_own: Numbers about a unit's own recent activity.
        dim_drift: Numbers about how a unit's rate drifts.
        dim_hidden: Hidden width of the MLP.
        dropout: Dropout of the bin states.
        read_out: Factor of the linear read-out at the start, 0 where unit embeddings do not start at 0. Default 0.
    """

    def __init__(
        self, *, dim: int, dim_own: int, dim_drift: int, dim_hidden: int, dropout: float, read_out: float = 0.0
    ):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.from_state = nn.Linear(dim, dim_hidden)
        self.from_unit = nn.Linear(dim, dim_hidden, bias=False)
        self.from_own = nn.Linear(dim_own, dim_hidden, bias=False)
        self.from_drift = nn.Linear(dim_drift, dim_hidden, bias=False)
        self.out = nn.Linear(dim_hidden, 1)
        self.own = nn.Linear(dim_own, 1, bias=False)
        for parameter in (self.out.weight, self.out.bias, self.own.weight):
            nn.init.zeros_(parameter)
        self.shared = nn.Parameter(torch.tensor(read_out))  # of the linear read-out

    def of_units(self, units: Tensor, drift: Tensor) -> Tensor:
        """(B, N, H) the part of units, of all bins: made once for a batch.

        Args:
            units: (B or 1, N, D) unit embeddings.
            drift: (B, N, F) how their rates drift.
        """
        return self.from_unit(units) + self.from_drift(drift)

    def forward(self, states: Tensor, units: Tensor, own: Tensor, of_units: Tensor) -> Tensor:
        """What is added to each unit's log-rate.

        Args:
            states: (B, T, D).
            units: (B or 1, N, D) unit embeddings.
            own: (B, T, N, C) recent activity of each unit before each bin.
            of_units: (B, N, H) from :meth:`of_units`.

        Returns:
            (B, T, N).
        """
        states = self.dropout(self.norm(states))
        per_bin, per_unit = self.from_state(states)[:, :, None], of_units[:, None]
        n_bins = max(1, _AT_ONCE // (per_bin[:, 0].numel() * own.shape[2]))
        rates = []
        for parts in zip(per_bin.split(n_bins, 1), own.split(n_bins, 1), strict=True):
            if torch.is_grad_enabled():
                rates.append(checkpoint(self._mlp, *parts, per_unit, use_reentrant=False, preserve_rng_state=False))
            else:
                rates.append(self._mlp(*parts, per_unit))
        return torch.cat(rates, dim=1) + self.shared * (states @ units.mT) + self.own(own).squeeze(-1)

    def _mlp(self, per_bin: Tensor, own: Tensor, per_unit: Tensor) -> Tensor:
        return self.out(F.relu(self.from_own(own).add_(per_bin).add_(per_unit))).squeeze(-1)
