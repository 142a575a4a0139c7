"""How units depart from the rates that their own filters give: fitted in closed form to the windows of a reference."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb.estimators.factor_forecast import forecast_maps
from neurobridge_tb.estimators.rate_correction import HIGHEST, fit_correction
from neurobridge_tb.estimators.window_factors import window_factors_to_forecast
from neurobridge_tb.metrics.spikes import posterior_mean
from neurobridge_tb.nn.factor_model import log_rate_ratio, relative_deviation
from neurobridge_tb.nn.unit_rows import FixedRows, rows_of

_SLOW, _FAST = 16, 48  # factors, at most
_DIRECTIONS = 64  # in which a past tells of the future, at most
_PAST_PARTS, _FUTURE_PARTS = 8, 4  # of a window, at most, of bins that are taken together
_OFFSET_SPIKES = 5.0  # a unit's time course is drawn to its filter's rates as by so many spikes
_LAGS = (1, 5, 15)  # windows
VARIABILITY = 2 + len(_LAGS)
RECENT = 4  # numbers about a unit's recent activity
FEATURES = 6 + VARIABILITY + RECENT  # what the response reads of a cell
_CENTER, _SCALE = (0.0, 0.0, 0.0, 0.0, 0.5, 4.0), (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)  # of the first ones
_LARGEST = 3.0  # beyond it a scaled feature, or a bin's activity in standard deviations, counts as this
_LEAST_STD = 1e-3
_PRIOR = 200.0  # the response's weights are drawn to 0 as by so many spikes
_OWN_PRIOR = 5000.0  # those of a recording's own response to these


class Windows(NamedTuple):
    """Windows of one recording in order of time.

    Attributes:
        past: (B, P, N) counts.
        present: (B, P, N) which of them exist.
        mean: (B, 1, N) what the mean counts a bin are by then (:meth:`RateFilter.drifted_mean`).
        start: (B, T, N) log-rates of the filter.
        future: (B, T, N) counts.
        scored: (B, T, N) which of them exist.
        apart: (B,) windows that do not overlap.
    """

    past: Tensor
    present: Tensor
    mean: Tensor
    start: Tensor
    future: Tensor
    scored: Tensor
    apart: Tensor


class Cells(NamedTuple):
    """Bins to forecast of units, in windows after the reference that their rows were fitted to.

    Attributes:
        features: (cells, ``FEATURES``) from :meth:`RateModulation.features`.
        log_rates: (cells,) of the filter.
        counts: (cells,).
    """

    features: Tensor
    log_rates: Tensor
    counts: Tensor


class RateModulation(nn.Module):
    """A row for each unit, fitted to the windows of its reference, and one response to all: units may be unseen.

    - What the population's past tells of a unit's future. Slow and fast factors, and how they follow each other, are
      fitted to the reference (:mod:`neurobridge_tb.estimators.window_factors`). The posterior of future factors is
      linear in the past's activity, so for a unit it is a few weights for each unit and part of the past. The past is
      read as it departs from the rates by then (drifted means), and as it departs from those of the reference.
    - The unit's mean time course over the future, where windows begin with trials, and how uncertain factors are.
    - How variable it is: variance over mean of a window's spikes, their covariance of past with future, and their
      autocorrelation over 1, 5 and 15 windows.

    What these are worth on windows after a reference is one function of them and of a unit's recent activity,
    quadratic, the same for all units, fitted to simulated strangers (:meth:`fit_response`). A recording's own response
    departs from it as far as its reference tells: its later windows, with rows fitted to the earlier ones
    (:meth:`own_response`). Units without a fit have zeros.

    Args:
        n_past: Bins of past.
        n_future: Bins of future that are fitted to; those beyond are like the last.
    """

    response: Tensor

    def __init__(self, n_past: int, n_future: int) -> None:
        super().__init__()
        self.n_future, self.past_parts = n_future, min(n_past, _PAST_PARTS)
        self.widths = [
            self.past_parts * _DIRECTIONS,
            _FUTURE_PARTS * _DIRECTIONS,
            _FUTURE_PARTS,
            _FUTURE_PARTS,
            3,
            VARIABILITY,
        ]
        self.rows = FixedRows(torch.zeros(sum(self.widths)))
        self.departure = FixedRows(torch.zeros((1 + FEATURES) ** 2))  # of a recording, in the row of each of its units
        self.register_buffer("response", torch.zeros(1 + FEATURES, 1 + FEATURES))

    @torch.no_grad()
    def set(self, unit_ids: list[str], rows: Tensor, departure: Tensor | None = None) -> None:
        """Set what is known of a recording's units.

        Args:
            unit_ids: Units of the vocabulary.
            rows: Their rows from :meth:`fit`.
            departure: From :meth:`own_response`. Default: the response is that of all recordings.
        """
        index = rows_of(self.rows, unit_ids)
        self.rows.weight[index] = rows.to(self.rows.weight)
        self.departure.weight[index] = 0 if departure is None else departure.flatten().to(self.departure.weight)

    def variability(self, index: Tensor) -> Tensor:
        """(..., ``VARIABILITY``) how variable the units of ``index`` (...) are."""
        return self.rows(index)[..., -VARIABILITY:]

    def features(
        self, index: Tensor, past: Tensor, present: Tensor, mean: Tensor, start: Tensor, recent: Tensor
    ) -> Tensor:
        """What the response reads of each cell of the future.

        Args:
            index: (B, N) units.
            past: (B, P, N) counts.
            present: (B, P, N) which of them exist.
            mean: (B, 1, N) from :meth:`RateFilter.drifted_mean`.
            start: (B, T, N) log-rates of the filter over those of the reference.
            recent: (B, N, ``RECENT``) how a unit's recent activity, and the population's, compare with what was
                expected.

        Returns:
            (B, T, N, ``FEATURES``): ``start``, the log-rate over the mean that factors predict, from the past as it
            departs from ``mean`` and as it departs from the reference's means, the time course's log, the deviation of
            the factors' prediction, in mean rates, the log of the reference's spikes, variability, and ``recent``.
        """
        loadings, coefficients, offset, spread, scale, variability = self.rows(index).split(self.widths, -1)
        spikes, mean_count, std = scale[:, None].unbind(-1)
        means = torch.stack([mean.expand_as(mean_count), mean_count])  # by now, and of the reference
        excess = torch.where(present, (past - means) / std.clamp_min(_LEAST_STD), 0.0).clamp(-_LARGEST, _LARGEST)
        loadings = loadings.unflatten(-1, (self.past_parts, -1))
        scores = torch.einsum("mbpn,bnpk->mbk", _sums(excess, self.past_parts), loadings)
        power = loadings.square()
        there = _sums(present, self.past_parts) / _sums(torch.ones_like(present), self.past_parts)
        seen, whole = torch.einsum("bpn,bnpk->bk", there, power), power.sum((1, 2))
        scores = scores * whole / seen.clamp_min(1e-9)  # where units are absent the others stand for them
        predicted = torch.einsum("bnfk,mbk->mbfn", coefficients.unflatten(-1, (_FUTURE_PARTS, -1)), scores)
        ratios = log_rate_ratio(predicted, mean_count, std)
        bins = torch.arange(start.shape[1], device=past.device).clamp_max(self.n_future - 1)
        part = bins * _FUTURE_PARTS // self.n_future
        of_parts = (*ratios[:, :, part], offset.mT[:, part], spread.mT[:, part])
        numbers = (spikes[:, 0], *variability.unbind(-1), *recent.unbind(-1))
        per_unit = (x[:, None].expand(-1, len(part), -1) for x in numbers)
        return torch.stack([start, *of_parts, *per_unit], dim=-1)

    def forward(self, index: Tensor, features: Tensor) -> Tensor:
        """What is added to the filter's log-rates.

        Args:
            index: (B, N) units; those of a window are of one recording.
            features: (B, T, N, ``FEATURES``).

        Returns:
            (B, T, N).
        """
        z = _scaled(features)
        response = self.response + self.departure(index[:, :1]).unflatten(-1, self.response.shape)
        return ((z @ response) * z).sum(-1).clamp(-HIGHEST, HIGHEST)

    @torch.no_grad()
    def fit_response(self, cells: Cells) -> None:
        """Fit the response of all recordings to windows after their units' reference."""
        self.response.copy_(_fit(cells, torch.zeros_like(self.response), _PRIOR))

    @torch.no_grad()
    def own_response(self, cells: Cells) -> Tensor:
        """How a recording's response departs from that of all, to which it is drawn as by 5,000 spikes.

        Args:
            cells: Of the recording.

        Returns:
            ``(1 + FEATURES, 1 + FEATURES)``.
        """
        return _fit(cells, self.response, _OWN_PRIOR) - self.response

    def fit(self, windows: Windows) -> Tensor:
        """(N, row) rows of the units of a recording from the windows of its reference."""
        counts, there = torch.cat([windows.past, windows.future], 1), torch.cat([windows.present, windows.scored], 1)
        some, kept = counts[windows.apart].double().numpy(), there[windows.apart].numpy()
        n_bins = np.maximum(kept.sum((0, 1)), 1)
        mean = posterior_mean(np.where(kept, some, 0).sum((0, 1)), n_bins)
        variance = (np.where(kept, some - mean, 0) ** 2).sum((0, 1)) / n_bins
        std = np.where(variance > 0, np.sqrt(variance), 1.0)
        z = np.where(kept, (some - mean) / std, np.nan)
        lengths = [z.shape[1]] * len(z)
        model, dynamics = window_factors_to_forecast(z.reshape(-1, len(mean)), lengths, slow=_SLOW, fast=_FAST)
        maps = forecast_maps(
            model,
            dynamics,
            bins=(windows.past.shape[1], windows.future.shape[1]),
            parts=(self.past_parts, _FUTURE_PARTS),
            directions=_DIRECTIONS,
        )
        loadings, coefficients, spread = (x.reshape(len(mean), -1) for x in maps)
        deviation = relative_deviation(torch.from_numpy(mean), torch.from_numpy(std)).numpy()
        scored = windows.scored.float()
        expected, found = (_sums(x * scored, _FUTURE_PARTS).sum(0) for x in (windows.start.exp(), windows.future))
        offset = ((_OFFSET_SPIKES + found) / (_OFFSET_SPIKES + expected)).log()
        scale = np.stack([np.log(mean * n_bins), mean, std], axis=1)
        of_units = (loadings, coefficients, offset.mT.numpy(), spread * deviation[:, None], scale)
        return torch.cat([torch.from_numpy(np.hstack(of_units)).float(), _variability(windows)], dim=1)


def _fit(cells: Cells, start: Tensor, prior: float) -> Tensor:
    """Poisson regression; (1 + ``FEATURES``, 1 + ``FEATURES``), above the diagonal what two features make together."""
    z, log_rates, counts = (x.double().cpu().numpy() for x in (_scaled(cells.features), *cells[1:]))
    first, second = np.triu_indices(1 + FEATURES)
    of_pairs = start.double().cpu().numpy()[first, second]
    weights = fit_correction(z[:, first] * z[:, second], log_rates, counts, start=of_pairs, prior=prior)
    response = torch.zeros_like(start)
    response[first, second] = torch.from_numpy(weights).to(response)
    return response


def _scaled(features: Tensor) -> Tensor:
    """(..., 1 + ``FEATURES``) 1 and the scaled features; the response is quadratic in them."""
    z = list(features.unbind(-1))
    for k, (center, scale) in enumerate(zip(_CENTER, _SCALE, strict=True)):
        z[k] = (z[k] - center) / scale
    return torch.stack([torch.ones_like(z[0]), *(x.clamp(-_LARGEST, _LARGEST) for x in z)], dim=-1)


def _sums(x: Tensor, parts: int) -> Tensor:
    """(…, bins, N) -> (…, parts, N), parts of equal length."""
    member = torch.eye(parts, device=x.device)[torch.arange(x.shape[-2], device=x.device) * parts // x.shape[-2]]
    return member.T @ x.float()


def _variability(windows: Windows) -> Tensor:
    """(N, ``VARIABILITY``), see :class:`RateModulation`."""
    past, future = (windows.past * windows.present).sum(1), (windows.future * windows.scored).sum(1)
    total = past + future
    deviation = total - total.mean(0)
    variance = deviation.square().mean(0)
    fano = ((variance + 0.1) / (total.mean(0) + 0.1)).log()
    covariance = ((past - past.mean(0)) * (future - future.mean(0))).mean(0)
    lagged = [
        (deviation[lag:] * deviation[:-lag]).mean(0) if len(total) > lag + 3 else torch.zeros_like(fano)
        for lag in _LAGS
    ]
    return torch.stack([fano, *(x / (variance + 0.05) for x in (covariance, *lagged))], dim=1)
