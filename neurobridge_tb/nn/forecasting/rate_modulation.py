"""How units depart from the rates that their own filters give: fitted in closed form to the windows of a reference."""

from typing import NamedTuple

import torch
from torch import Tensor

from neurobridge_tb.nn.unit_rows import FixedRows, rows_of

_COMPONENTS = 10  # of the population's past
_PAST_PARTS, _FUTURE_PARTS = 2, 4  # of a window, of bins that are taken together
_SHRINKAGE = 20.0  # spikes: prior of the regression
_LEAST = 0.02  # counts a bin that are added to a variance
_LARGEST_SCORE, _LARGEST = 3.0, 1.5
_LAGS = (1, 5, 15)  # windows
_WIDTHS = (
    _PAST_PARTS * _COMPONENTS,  # loadings
    _PAST_PARTS,  # centre
    _FUTURE_PARTS * (_COMPONENTS + 1),  # coefficients
    2 + len(_LAGS),  # variability
)
VARIABILITY = _WIDTHS[-1]


class Windows(NamedTuple):
    """Windows of one recording in order of time.

    Attributes:
        past: (B, P, N) counts.
        present: (B, P, N) which of them exist.
        mean: (B, 1, N) what the mean counts a bin are by then (:meth:`RateFilter.drifted_mean`).
        start: (B, T, N) log-rates of the filter.
        future: (B, T, N) counts.
        scored: (B, T, N) which of them exist.
    """

    past: Tensor
    present: Tensor
    mean: Tensor
    start: Tensor
    future: Tensor
    scored: Tensor


class RateModulation(FixedRows):
    """A row for each unit, fitted to the windows of its reference: nothing is trained, so units may be unseen.

    - How its rate varies with the population and within a window. The standardised activity of both halves of a
      window's past has ten principal components over all units; for each quarter of the future, Poisson regression
      (one Newton step from the filter's rates, shrunk as if 20 spikes agreed with these) gives the log-rate's offset
      and slopes on them. The offset is the unit's mean time course within a trial where windows begin with trials.
    - How variable it is: variance over mean of a window's spikes, their autocorrelation over 1, 5 and 15 windows, and
      the covariance of past with future.

    What these are worth on windows after the reference is for a gain and a network to learn. Units without a fit have
    zeros.

    Args:
        n_future: Bins of future that are fitted to; those beyond are like the last.
    """

    def __init__(self, n_future: int) -> None:
        super().__init__(torch.zeros(sum(_WIDTHS)))
        self.n_future = n_future

    def set(self, unit_ids: list[str], rows: Tensor) -> None:
        """Set the rows of ``unit_ids`` to ``rows`` from :meth:`fit`."""
        with torch.no_grad():
            self.weight[rows_of(self, unit_ids)] = rows.to(self.weight)

    def variability(self, index: Tensor) -> Tensor:
        """(..., ``VARIABILITY``) how variable the units of ``index`` (...) are."""
        return self(index)[..., -VARIABILITY:]

    def modulation(self, index: Tensor, past: Tensor, present: Tensor, mean: Tensor, n_bins: int) -> Tensor:
        """What the regression adds to each unit's log-rate, at most 1.5 to either side.

        Args:
            index: (B, N) units.
            past: (B, P, N) counts.
            present: (B, P, N) which of them exist.
            mean: (B, 1, N) from :meth:`RateFilter.drifted_mean`.
            n_bins: Bins of future T.

        Returns:
            (B, T, N).
        """
        loadings, centre, coefficients, _ = self(index).split(_WIDTHS, -1)
        scores = _scores(*_standardized(past, present, mean), loadings, centre)
        offsets = torch.einsum("bnfk,bk->bfn", coefficients.unflatten(-1, (_FUTURE_PARTS, -1)), _with_one(scores))
        bins = torch.arange(n_bins, device=past.device).clamp_max(self.n_future - 1)
        return offsets.clamp(-_LARGEST, _LARGEST)[:, bins * _FUTURE_PARTS // self.n_future]

    @staticmethod
    def fit(windows: Windows) -> Tensor:
        """(N, row) rows of the units of a recording from the windows of its reference."""
        z, there = _standardized(windows.past, windows.present, windows.mean)
        centre = z.sum(0) / there.sum(0).clamp_min(1)
        flat = torch.where(there, z - centre, 0.0).flatten(1).double()
        power, directions = torch.linalg.eigh(flat @ flat.T)
        power, directions = power.flip(0)[:_COMPONENTS], directions.flip(1)[:, :_COMPONENTS]
        scale = torch.where(power > 1e-9 * power[0].clamp_min(1e-9), len(flat) ** 0.5 / power, 0.0)  # unit variance
        loadings = z.new_zeros(z.shape[2], _PAST_PARTS, _COMPONENTS)
        of_units = (flat.T @ directions * scale).float().view(_PAST_PARTS, -1, len(power))
        loadings[..., : len(power)] = of_units.transpose(0, 1)
        rows = loadings.flatten(1), centre.T
        scores = _with_one(_scores(z, there, *(x.expand(len(z), -1, -1) for x in rows)))
        return torch.cat([*rows, _regression(scores, windows), _variability(windows)], dim=1)


def _sums(x: Tensor, parts: int) -> Tensor:
    """(B, bins, N) -> (B, parts, N), parts of equal length."""
    member = torch.eye(parts, device=x.device)[torch.arange(x.shape[1], device=x.device) * parts // x.shape[1]]
    return member.T @ x.float()


def _standardized(past: Tensor, present: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(B, parts, N) mean counts above the expected, in standard deviations of a bin's count; which of them exist."""
    width = _sums(present, _PAST_PARTS)
    count = _sums(past * present, _PAST_PARTS) / width.clamp_min(1)
    return torch.where(width > 0, (count - mean) / (mean + _LEAST).sqrt(), 0.0), width > 0


def _scores(z: Tensor, there: Tensor, loadings: Tensor, centre: Tensor) -> Tensor:
    """(B, components) of activity (B, parts, N); where units are absent the others stand for them."""
    loadings, centre = loadings.unflatten(-1, (_PAST_PARTS, -1)), centre.mT
    power = loadings.square()
    seen, whole = torch.einsum("bpn,bnpk->bk", there.float(), power), power.sum((1, 2))
    scores = torch.einsum("bpn,bnpk->bk", torch.where(there, z - centre, 0.0), loadings)
    return (scores * whole / seen.clamp_min(1e-9)).clamp(-_LARGEST_SCORE, _LARGEST_SCORE)


def _with_one(scores: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(scores[:, :1]), scores], dim=1)


def _regression(scores: Tensor, windows: Windows) -> Tensor:
    """(N, parts x components) a Newton step of each unit's Poisson regression from the filter's rates."""
    scored = windows.scored.float()
    expected = _sums(windows.start.exp() * scored, _FUTURE_PARTS)
    excess = _sums(windows.future * scored, _FUTURE_PARTS) - expected
    square = torch.einsum("bk,bl->bkl", scores, scores)
    hessian = torch.einsum("bfn,bkl->nfkl", expected, square)
    hessian = hessian + _SHRINKAGE * torch.eye(scores.shape[1], device=scores.device)
    return torch.linalg.solve(hessian, torch.einsum("bfn,bk->nfk", excess, scores)).flatten(1)


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
