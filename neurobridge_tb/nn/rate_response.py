"""How a unit's rate answers to what the factors predict of it: a response that all units share.

The factors are fitted to the training activity, and so are each unit's loadings: on later activity they say too much of
units that fired little, and too little of others. How much to believe does not depend on which unit it is, but on what
is predicted, how uncertain that is, and how many spikes the unit's loadings were fitted to. So the correction is one
function of these three, the same for all units and recordings, fitted where loadings were not.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb.arrays import Floats
from neurobridge_tb.estimators.rate_correction import HIGHEST, fit_correction
from neurobridge_tb.nn.unit_rows import FixedRows, rows_of

_CENTER, _SCALE = (0.0, 0.5, 4.0), (1.0, 1.0, 2.0)  # of the features
_LEAST, _MOST = (-3.0, -0.5, -2.0), (3.0, 2.5, 2.0)  # beyond them a scaled feature counts as this
_PAIRS = tuple((a, b) for a in range(3) for b in range(a, 3))
_PRIORS = (200.0, 1000.0, 5000.0, 20_000.0)  # the weights are drawn to others' as by so many spikes, to 0 by the least


class LaterCells(NamedTuple):
    """Masked bins of units, in windows that their factors were not fitted to.

    Attributes:
        features: (cells, 4) what the response reads.
        log_rates: (cells,) before the correction, counts a bin.
        counts: (cells,).
    """

    features: Floats
    log_rates: Floats
    counts: Floats


class RateResponse(nn.Module):
    """A correction of log-rates that is quadratic in three features and linear in a fourth; 0 until it is fitted.

    The features of a cell: the log of its predicted rate over the mean rate, the standard deviation of that prediction
    in mean rates, the log of the spikes that the unit's loadings were fitted to, and the log of the unit's recent rate
    over its mean. It is not trained: on the activity that loadings are fitted to, all that they predict looks right.
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(5 + len(_PAIRS)))
        self.recent_rows = FixedRows(torch.zeros(1))

    @torch.no_grad()
    def set_recent(self, unit_ids: list[str], log_ratio: Tensor) -> None:
        """Set the recent rates of units: (N,) logs of them over the mean rates."""
        index = rows_of(self.recent_rows, unit_ids)
        self.recent_rows.weight[index] = log_ratio[:, None].to(self.recent_rows.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(…) what is added to log-rates, given features (…, 4)."""
        added = self.weights[0] + sum(w * term for w, term in zip(self.weights[1:], _terms(features), strict=True))
        return added.clamp(-HIGHEST, HIGHEST)

    @torch.no_grad()
    def fit(self, cells: LaterCells, valid: LaterCells) -> None:
        """Poisson regression of counts, drawn to the weights that are there as strongly as serves validation; the
        weights stay unless that gains there.

        Args:
            cells: Of training, 4 features each.
            valid: Of validation.
        """
        start = self.weights.double().cpu().numpy()
        tried = [start] + [
            fit_correction(_columns(cells), cells.log_rates, cells.counts, start=start, prior=prior)
            for prior in (_PRIORS if start.any() else _PRIORS[:1])
        ]
        x = _columns(valid)
        best = min(tried, key=lambda weights: _loss(x, valid.log_rates, valid.counts, weights))
        self.weights.copy_(torch.from_numpy(best))


def _columns(cells: LaterCells) -> Floats:
    """(cells, terms)"""
    return np.column_stack([np.ones(len(cells.counts)), *_terms(torch.from_numpy(cells.features))])


def _terms(features: Tensor) -> list[Tensor]:
    """What the response is linear in, each (…) of features (…, 4): three of them scaled, their products, the last."""
    z = [((features[..., k] - _CENTER[k]) / _SCALE[k]).clamp(_LEAST[k], _MOST[k]) for k in range(3)]
    return [*z, *(z[a] * z[b] for a, b in _PAIRS), features[..., 3]]


def _loss(x: Floats, log_rates: Floats, counts: Floats, weights: Floats) -> float:
    """Negative log-likelihood in nats, but for a constant."""
    corrected = log_rates + np.clip(x @ weights, -HIGHEST, HIGHEST)
    return float((np.exp(corrected) - counts * corrected).sum())
