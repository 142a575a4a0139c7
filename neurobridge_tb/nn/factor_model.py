"""What the population shares: a factor model whose loadings are rows of the units.

A bin of standardised activity is ``v_u = L_u . z + noise of variance psi_u`` with z standard normal. For the units O
that are kept in a bin,

    precision  P = I + sum_{u in O} (L_u L_u' / psi_u + I / n_u)
    mean       z = P^-1 sum_{u in O} L_u v_u / psi_u            variance  diag(P^-1)

is exact for any mask, and ``L_u . z`` predicts any unit, hidden or not; n_u, the bins that L_u was fitted to, says how
much of it is chance. Bins that share a mask share P. Units stay
exchangeable, ragged and maskable. :mod:`neurobridge_tb.estimators.factor_analysis` fits the rows in closed form.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.nn.unit_rows import batch_rows

_KNOWN = 40.0  # log of so many bins that loadings fitted to them are certain
_SOFTNESS = 0.2  # of the floor of a predicted rate, in mean rates


class Factors(NamedTuple):
    """Posterior of the factors in each bin.

    Attributes:
        mean: (B, T, K) z; 0, the prior's, in a bin without any unit kept.
        variance: (B, T, K) the diagonal of its covariance; there 1.
    """

    mean: Tensor
    variance: Tensor

    def at(self, timestamps: Tensor, bin_times: Tensor) -> Tensor:
        """(B, K', K) mean in the bins nearest to times (B, K') of bins that begin at (B, T) times, in s."""
        n_bins = bin_times.shape[1]
        if n_bins == 1:
            return self.mean.expand(-1, timestamps.shape[1], -1)
        gap = (timestamps[:, :, None] - bin_times[:, None]).abs()
        gap = gap + 1e-6 * torch.arange(n_bins, device=gap.device)  # the first bin before padding, which has time 0
        return self.mean[torch.arange(len(gap), device=gap.device)[:, None], gap.argmin(-1)]


class FactorModel(nn.Module):
    """Posterior of the factors, and predictions from it.

    Args:
        num_factors: K.
        predicts_units: With False there is the posterior alone, and no parameters of predictions. Default True.
    """

    def __init__(self, num_factors: int, *, predicts_units: bool = True):
        super().__init__()
        self.loading_rows = InfiniteVocabEmbedding(num_factors, init_scale=0.02)
        self.log_noise_rows = InfiniteVocabEmbedding(1, init_scale=0.0)
        self.log_bins_rows = InfiniteVocabEmbedding(1, init_scale=0.0)
        self.curve_rows = InfiniteVocabEmbedding(1, init_scale=0.0) if predicts_units else None

    @property
    def tables(self) -> list[InfiniteVocabEmbedding]:
        """Its rows of units: what :meth:`set` sets, and how each unit's response curves, which training finds."""
        tables = [self.loading_rows, self.log_noise_rows, self.log_bins_rows, self.curve_rows]
        return [table for table in tables if table is not None]

    @torch.no_grad()
    def set(self, unit_ids: list[str], loadings: Tensor, noise: Tensor, bins: Tensor) -> None:
        """Set the rows of ``unit_ids``.

        Args:
            unit_ids: N units of the vocabulary.
            loadings: (N, k), k at most K; the other factors are left unused.
            noise: (N,) own variances, above 0.
            bins: (N,) numbers of bins that the loadings were fitted to.
        """
        index = torch.tensor(self.loading_rows.tokenizer(unit_ids), device=self.loading_rows.weight.device)
        rows = torch.zeros(len(unit_ids), self.loading_rows.embedding_dim, dtype=loadings.dtype)
        rows[:, : loadings.shape[1]] = loadings
        self.loading_rows.weight[index] = rows.to(self.loading_rows.weight)
        self.log_noise_rows.weight[index] = noise.log()[:, None].to(self.log_noise_rows.weight)
        self.log_bins_rows.weight[index] = bins.log()[:, None].to(self.log_bins_rows.weight)

    def forward(
        self,
        values: Tensor,
        keep: Tensor,
        unit_index: Tensor,
        patterns: Tensor | None = None,
        pattern_index: Tensor | None = None,
    ) -> Factors:
        """Posterior of the factors given the units kept, in float32 at least.

        Args:
            values: (B, T, N) standardised values; finite, also where hidden.
            keep: (B, T, N) which of them are kept; False for padded units.
            unit_index: (B, N).
            patterns: (B, P, N) the different sets of units that a window's bins keep. Default: one for each bin.
            pattern_index: (B, T) which of them is each bin's.
        """
        with torch.autocast(values.device.type, enabled=False):
            patterns = keep if patterns is None else patterns
            rows, index = batch_rows(unit_index, self.loading_rows)
            loadings = self.loading_rows(rows)
            exact = torch.promote_types(loadings.dtype, torch.float32)
            loadings = loadings.to(exact)
            weighted = loadings * torch.exp(-self.log_noise_rows(rows).to(exact))
            information = (values.to(exact) * keep) @ weighted[index]  # (B, T, K)
            patterns = patterns.to(exact)
            doubt = (patterns @ torch.exp(-self.log_bins_rows(rows).to(exact))[index])[..., None]  # (B, P, 1, 1)
            prior = (1 + doubt) * torch.eye(loadings.shape[1], dtype=exact, device=values.device)
            covariance = _stable_inverse(prior + self._information(loadings, weighted, patterns, index))
            if patterns.shape[1] == 1:
                mean, variance = information @ covariance[:, 0], covariance.diagonal(dim1=-2, dim2=-1)
                return Factors(mean, variance.expand_as(mean))
            if pattern_index is not None:
                batch = torch.arange(len(values), device=values.device)[:, None]
                covariance = covariance[batch, pattern_index]  # (B, T, K, K)
            mean = (information[:, :, None] @ covariance)[:, :, 0]
            return Factors(mean, covariance.diagonal(dim1=-2, dim2=-1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As ever; models from before the number of bins counted take loadings as known, and responses as straight."""
        noise = f"{prefix}log_noise_rows."
        for name, value in (("log_bins_rows", _KNOWN), ("curve_rows", 0.0)):
            rows = f"{prefix}{name}."
            has = getattr(self, name) is not None
            if has and noise + "weight" in state_dict and rows + "weight" not in state_dict:
                state_dict[rows + "weight"] = torch.full_like(state_dict[noise + "weight"], value)
                state_dict[rows + "vocab"] = state_dict[noise + "vocab"].copy()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def predict(self, mean: Tensor, unit_index: Tensor) -> Tensor:
        """Standardised values (B, T, M) of units (B, M) that factors (B, T, K) predict.

        A response may rise faster above the mean than below it, as rectified ones do, or slower: with ``d = L_u . z``
        it is ``d + c_u (sqrt(1 + d^2) - 1)``.
        """
        with torch.autocast(mean.device.type, enabled=False):
            assert self.curve_rows is not None, "made with predicts_units=False"
            drive = mean @ self.loading_rows(unit_index).to(mean.dtype).mT
            return drive + self.curve_rows(unit_index).to(drive).mT * ((1 + drive.square()).sqrt() - 1)

    @staticmethod
    def _information(loadings: Tensor, weighted: Tensor, patterns: Tensor, index: Tensor) -> Tensor:
        """(B, P, K, K) sum over the units of each pattern of L_u L_u' / psi_u."""
        k = loadings.shape[1]
        if len(loadings) <= 4 * index.shape[1]:  # one product for the batch, from the outer products of all rows
            place = index[:, None].expand_as(patterns)
            kept = patterns.new_zeros(*patterns.shape[:2], len(loadings)).scatter_add(2, place, patterns)
            outer = (loadings[:, :, None] * weighted[:, None]).flatten(1)
            return (kept @ outer).unflatten(2, (k, k))
        return (loadings[index][:, None] * patterns[..., None]).mT @ weighted[index][:, None]


def _stable_inverse(precision: Tensor) -> Tensor:
    """Inverse of matrices that are the identity plus a positive semidefinite one.

    By Cholesky, without gradient; a step of Newton's method (Schulz 1933) refines it and carries the exact gradient.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(precision.detach()).L)  # no look at the values
    return 2 * inverse - inverse @ precision @ inverse


def log_rate_ratio(predicted: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log of the rate, in mean rates, of standardised counts that a linear model predicts.

    The rate is ``mean + std * predicted``, which may fall below zero: a smooth floor keeps it above. It is exactly the
    mean rate where the prediction is 0, and for units that hardly fired in training.

    Args:
        predicted: (…) predictions in standard deviations.
        mean: (…) training mean counts a bin.
        std: (…) training standard deviations.
    """
    rate = 1 + predicted * torch.where(mean < 1e-3, 0.0, std / mean.clamp_min(1e-3))
    return torch.asinh(rate / _SOFTNESS) - math.asinh(1 / _SOFTNESS)  # log of rate + sqrt(rate^2 + softness^2)
