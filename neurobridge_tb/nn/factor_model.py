"""What the population shares: a factor model whose loadings are rows of the units.

A bin of standardised activity is ``v_u = L_u . z + noise of variance psi_u`` with z standard normal. For the units O
that are kept in a bin,

    precision  P = I + sum_{u in O} (L_u L_u' / psi_u + I / n_u)
    mean       z = P^-1 sum_{u in O} L_u v_u / psi_u            variance  diag(P^-1)

is exact for any mask, and ``L_u . z`` predicts any unit, hidden or not; n_u, the bins that L_u was fitted to, says how
much of it is chance. Bins that share a mask share these sums. Units stay exchangeable, ragged and maskable. In windows
of several bins the factors also follow each other in time (:mod:`neurobridge_tb.nn.factor_dynamics`), so hidden bins
are predicted too. :mod:`neurobridge_tb.estimators.factor_analysis` fits all of it in closed form.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis
from neurobridge_tb.nn.factor_dynamics import smooth
from neurobridge_tb.nn.unit_rows import FixedRows, batch_rows, rows_of, sum_by_row

_KNOWN = 40.0  # log of so many bins that loadings fitted to them are certain
_SOFTNESS = 0.2  # of the floor of a predicted rate, in mean rates


class Factors(NamedTuple):
    """Posterior of the factors in each bin, given its window.

    Attributes:
        mean: (B, T, K) z; 0, the prior's, where nothing is known.
        variance: (B, T, K) the diagonal of its covariance; there 1.
    """

    mean: Tensor
    variance: Tensor

    def at(self, timestamps: Tensor, bin_times: Tensor) -> "Factors":
        """Both (B, K', K) in the bins nearest to times (B, K') of bins that begin at (B, T) times, in s."""
        n_bins = bin_times.shape[1]
        if n_bins == 1:
            return Factors(*(x.expand(-1, timestamps.shape[1], -1) for x in self))
        gap = (timestamps[:, :, None] - bin_times[:, None]).abs()
        gap = gap + 1e-6 * torch.arange(n_bins, device=gap.device)  # the first bin before padding, which has time 0
        window, nearest = torch.arange(len(gap), device=gap.device)[:, None], gap.argmin(-1)
        return Factors(*(x[window, nearest] for x in self))


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
        self.log_bins_rows = FixedRows(torch.tensor([_KNOWN]))
        self.curve_rows = InfiniteVocabEmbedding(1, init_scale=0.0) if predicts_units else None
        self.dynamics_rows = FixedRows(torch.zeros(num_factors**2))

    @property
    def tables(self) -> list[InfiniteVocabEmbedding]:
        """Its rows of units: what :meth:`set` sets, and how each unit's response curves, which training finds."""
        tables = [self.loading_rows, self.log_noise_rows, self.log_bins_rows, self.curve_rows]
        return [table for table in tables if table is not None]

    @property
    def session_tables(self) -> list[InfiniteVocabEmbedding]:
        """Its rows of recordings: how factors follow each other from bin to bin; 0: not at all."""
        return [self.dynamics_rows]

    @torch.no_grad()
    def set(self, unit_ids: list[str], loadings: Tensor, noise: Tensor, bins: Tensor) -> None:
        """Set the rows of ``unit_ids``.

        Args:
            unit_ids: N units of the vocabulary.
            loadings: (N, k), k at most K; the other factors are left unused.
            noise: (N,) own variances, above 0.
            bins: (N,) numbers of bins that the loadings were fitted to.
        """
        index = rows_of(self.loading_rows, unit_ids)
        rows = torch.zeros(len(unit_ids), self.loading_rows.embedding_dim, dtype=loadings.dtype)
        rows[:, : loadings.shape[1]] = loadings
        self.loading_rows.weight[index] = rows.to(self.loading_rows.weight)
        self.log_noise_rows.weight[index] = noise.log()[:, None].to(self.log_noise_rows.weight)
        self.log_bins_rows.weight[index] = bins.log()[:, None].to(self.log_bins_rows.weight)

    @torch.no_grad()
    def as_fitted(self, unit_index: Tensor) -> FactorAnalysis:
        """The rows of units (N,) as a factor analysis of standardised activity."""
        tables = (self.loading_rows, self.log_noise_rows, self.log_bins_rows)
        loadings, log_noise, log_bins = (table(unit_index).double().cpu().numpy() for table in tables)
        return FactorAnalysis(np.zeros(len(unit_index)), loadings, np.exp(log_noise[:, 0]), np.exp(log_bins[:, 0]))

    @torch.no_grad()
    def set_dynamics(self, recording_ids: list[str], dynamics: Tensor) -> None:
        """Set how the factors of some recordings follow each other.

        Args:
            recording_ids: Recordings of the vocabulary.
            dynamics: (K, K) A, of singular values below 1.
        """
        index = self.dynamics_rows.tokenizer(recording_ids)
        self.dynamics_rows.weight[index] = dynamics.flatten().to(self.dynamics_rows.weight)

    def forward(
        self,
        values: Tensor,
        keep: Tensor,
        unit_index: Tensor,
        session_index: Tensor,
        patterns: Tensor | None = None,
        pattern_index: Tensor | None = None,
    ) -> Factors:
        """Posterior of the factors given the units kept, in float32 at least.

        Args:
            values: (B, T, N) standardised values; finite, also where hidden.
            keep: (B, T, N) which of them are kept; False for padded units.
            unit_index: (B, N).
            session_index: (B,) recordings, whose dynamics couple the bins.
            patterns: (B, P, N) the different sets of units that a window's bins keep. Default: one for each bin.
            pattern_index: (B, T) which of them is each bin's.

        Returns:
            The mean with exact gradients, the variance with none.
        """
        with torch.autocast(values.device.type, enabled=False):
            patterns = keep if patterns is None else patterns
            rows, index = batch_rows(unit_index, self.loading_rows)
            loadings = self.loading_rows(rows)
            exact = torch.promote_types(loadings.dtype, torch.float32)
            loadings = loadings.to(exact)
            weighted = loadings * torch.exp(-self.log_noise_rows(rows).to(exact))
            chance = torch.exp(-self.log_bins_rows(rows).to(exact))  # (R, 1)
            values, seen, patterns = values.to(exact) * keep, keep.to(exact), patterns.to(exact)
            if len(rows) <= 4 * index.shape[1]:  # all windows' activity laid out by rows costs less than rows for each
                values, seen, patterns = (sum_by_row(x, index, len(rows)) for x in (values, seen, patterns))
            else:
                loadings, weighted, chance = loadings[index], weighted[index], chance[index]
            with torch.no_grad():
                precision = _precision(loadings, weighted, chance, patterns)
                if pattern_index is not None and patterns.shape[1] > 1:
                    precision = precision[torch.arange(len(values), device=values.device)[:, None], pattern_index]
                precision = precision * keep.any(-1)[..., None, None]  # padded bins have no pattern of their own

            def observe(mean: Tensor) -> Tensor:
                return ((mean @ weighted.mT) * seen) @ loadings + (seen @ chance) * mean

            dynamics = self.dynamics_rows(session_index).to(exact).unflatten(1, precision.shape[-2:])
            return Factors(*smooth(values @ weighted, precision, observe, dynamics))

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

    def spread(self, variance: Tensor, unit_index: Tensor) -> Tensor:
        """Standard deviations (B, T, M) of what factors of variance (B, T, K), taken alone, predict of units (B, M)."""
        with torch.autocast(variance.device.type, enabled=False), torch.no_grad():
            return (variance @ self.loading_rows(unit_index).to(variance.dtype).square().mT).clamp_min(0).sqrt()


def _precision(loadings: Tensor, weighted: Tensor, chance: Tensor, patterns: Tensor) -> Tensor:
    """(B, P, K, K) sum over the units of each pattern of L_u L_u' / psi_u + I / n_u.

    Args:
        loadings: (R, K), or (B, R, K) of each window; so are
        weighted: L_u / psi_u, and
        chance: 1 / n_u, of last size 1.
        patterns: (B, P, R) units that are kept.
    """
    k = loadings.shape[-1]
    if loadings.ndim == 2 and k <= patterns.shape[:2].numel():  # outer products once, where patterns are many
        precision = (patterns @ (loadings[:, :, None] * weighted[:, None]).flatten(1)).unflatten(2, (k, k))
    else:
        precision = (loadings.unsqueeze(-3) * patterns[..., None]).mT @ weighted.unsqueeze(-3)
    return precision + (patterns @ chance)[..., None] * torch.eye(k, dtype=loadings.dtype, device=loadings.device)


def log_rate_ratio(predicted: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log of the rate, in mean rates, of standardised counts that a linear model predicts.

    The rate is ``mean + std * predicted``, which may fall below zero: a smooth floor keeps it above. It is exactly the
    mean rate where the prediction is 0, and for units that hardly fired in training.

    Args:
        predicted: (…) predictions in standard deviations.
        mean: (…) training mean counts a bin.
        std: (…) training standard deviations.
    """
    rate = 1 + predicted * relative_deviation(mean, std)
    return torch.asinh(rate / _SOFTNESS) - math.asinh(1 / _SOFTNESS)  # log of rate + sqrt(rate^2 + softness^2)


def relative_deviation(mean: Tensor, std: Tensor) -> Tensor:
    """Training standard deviations in mean rates; 0 of units that hardly fired."""
    return torch.where(mean < 1e-3, 0.0, std / mean.clamp_min(1e-3))
