"""What each unit's rate will be, from its own spikes alone: reference, recent past, last bins; learned weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RECENT = (1.0, 4.0, 8.0, 16.0, 32.0, 128.0)  # s: time constants over which the running past is averaged
_LEAST = 1e-3  # of a weight: smaller ones would not learn
_DECAY, _STRENGTH, _PRIOR = 0.2, 0.5, 0.6  # s: where the weights start


class RateFilter(nn.Module):
    """Each unit's rate as the posterior mean of a Poisson rate, twice.

    1. The mean of the reference window m is a Gamma prior of k bins, and the running past (the recording up to the
       window; S and W are its spikes and bins, weighted by ``exp(-age / time constant)``) is what is observed:
       ``E = (k m + sum_c a_c S_c) / (k + sum_c a_c W_c)``: a mean that follows a rate that drifts.
    2. E is the prior, of ``s_t`` bins, of the bins n of the window's past: ``r_t = (s_t E + sum_j w_tj n_j) / (s_t +
       sum_j w_tj)``: the last smoothed rate, with weights for each bin t of the future.

    k, a, s and w are positive and learned, shared by all units.

    Args:
        n_past: Bins of past.
        n_future: Bins of future.
        bin_size: In s.
    """

    def __init__(self, n_past: int, n_future: int, bin_size: float):
        super().__init__()
        age = torch.arange(n_past - 1, -1, -1) * bin_size
        nearest = torch.tensor(RECENT).log().sub(torch.tensor(8.0).log()).abs()
        self.prior = nn.Parameter(_inverse(torch.tensor(_PRIOR / bin_size)))
        self.recent = nn.Parameter(_inverse((-2 * nearest).exp()))
        self.strength = nn.Parameter(_inverse(torch.full((n_future,), _STRENGTH / bin_size)))
        self.past = nn.Parameter(_inverse((-age / _DECAY).exp().clamp_min(_LEAST)).repeat(n_future, 1))

    @torch.no_grad()
    def set_to(self, *, constant: int, prior: float, decay: float, strength: float) -> None:
        """Make it the smoothed rate drawn to the recent mean, for each bin of the future alike.

        Args:
            constant: Which of ``RECENT`` alone counts.
            prior: k in bins.
            decay: Of the weights of the past, in bins.
            strength: s in bins.
        """
        age = torch.arange(self.past.shape[1] - 1, -1, -1)
        self.prior.copy_(_inverse(torch.tensor(prior)))
        self.recent.fill_(float(_inverse(torch.tensor(_LEAST))))
        self.recent[constant] = _inverse(torch.tensor(1.0))
        self.strength.fill_(float(_inverse(torch.tensor(strength))))
        self.past.copy_(_inverse((-age / decay).exp().clamp_min(_LEAST)))

    def drifted_mean(self, mean: Tensor, spikes: Tensor, bins: Tensor) -> Tensor:
        """E, the mean count a bin of each unit by now.

        Args:
            mean: (B or 1, 1, N) mean count a bin of the reference window.
            spikes: (B, C, N) weighted spikes of the running past, for each of ``RECENT``.
            bins: (B, C, N) weighted bins.

        Returns:
            (B, 1, N).
        """
        prior, weight = F.softplus(self.prior), F.softplus(self.recent)[:, None]
        observed, width = ((weight * x).sum(1, keepdim=True) for x in (spikes, bins))
        return (prior * mean + observed) / (prior + width)

    def evidence(self, mean: Tensor, drifted: Tensor, spikes: Tensor, bins: Tensor) -> Tensor:
        """What a network may read of how a rate has drifted, for :meth:`drifted_mean`'s arguments and its result.

        Returns:
            (B, N, C + 2): logs of m (centred), of E / m, and of the rate by each time constant alone over E.
        """
        prior = F.softplus(self.prior)
        alone = ((prior * mean + spikes) / ((prior + bins) * drifted)).log()
        return torch.cat([mean.log().add(3).expand_as(drifted), (drifted / mean).log(), alone], dim=1).mT

    def forward(self, drifted: Tensor, past: Tensor, present: Tensor, n_future: int) -> Tensor:
        """Log-rates of each future bin.

        Args:
            drifted: (B, 1, N) from :meth:`drifted_mean`.
            past: (B, T, N) counts.
            present: (B, T, N) which of them exist.
            n_future: Bins of future; those beyond the ones that were learned are like the last.

        Returns:
            (B, n_future, N).
        """
        step = torch.arange(n_future, device=past.device).clamp_max(len(self.strength) - 1)
        strength, weight = F.softplus(self.strength)[step, None], F.softplus(self.past)[step]
        present = present.to(drifted)
        observed, width = (weight @ x for x in (past.to(drifted) * present, present))
        return ((strength * drifted + observed) / (strength + width)).log()


def _inverse(x: Tensor) -> Tensor:
    """Inverse of softplus."""
    return x + torch.log(-torch.expm1(-x))
