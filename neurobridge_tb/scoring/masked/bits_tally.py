"""Bits/spike of one recording or several, with intervals over windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.metrics.spikes import TRAINED, poisson_log_likelihood
from neurobridge_tb.scoring.unit_rates import UnitRates

_RESAMPLES = 2000

Rates = Sequence[np.ndarray]  # of each window (bins, units)


@dataclass(frozen=True)
class Tally:
    """What bits/spike are made of, for one recording.

    Attributes:
        gain: (windows, units) log-likelihood above the null model's, in bits, of the target units.
        spikes: (windows, units) spikes of the target units.
        training_spikes: (units,).
    """

    gain: Floats
    spikes: Floats
    training_spikes: Floats

    @classmethod
    def of(cls, rates: Rates, counts: Rates, trained: UnitRates) -> "Tally":
        """Sums over the bins of each window.

        Args:
            rates: For each window (target bins, target units).
            counts: As ``rates``; NaN are left out.
            trained: Of the target units; their mean rates are the null model.
        """

        def likelihood(rates: np.ndarray, counts: np.ndarray) -> Floats:
            return np.nansum(poisson_log_likelihood(rates, counts), axis=0) / np.log(2)

        gain = [likelihood(r, c) - likelihood(trained.mean, c) for r, c in zip(rates, counts, strict=True)]
        return cls(np.stack(gain), np.stack([np.nansum(c, axis=0) for c in counts]), trained.spikes)

    @classmethod
    def side_by_side(cls, tallies: Sequence["Tally"]) -> "Tally":
        """The units of several masks of the same windows."""
        gain, spikes = (np.hstack(x) for x in ([t.gain for t in tallies], [t.spikes for t in tallies]))
        return cls(gain, spikes, np.concatenate([t.training_spikes for t in tallies]))

    def by_window(self) -> list[float]:
        """Of each window, numbers whose mean is the bits/spike: its gain over the mean spikes of a window."""
        return (self.gain.sum(1) / self.spikes.sum(1).mean()).tolist()

    def at_least(self, spikes: int) -> "Tally":
        """Of the units with at least so many training spikes."""
        some = self.training_spikes >= spikes
        return Tally(self.gain[:, some], self.spikes[:, some], self.training_spikes[some])


def table_row(recording: str, task: str, tallies: Sequence[dict[str, Tally]], seed: int) -> dict[str, Any]:
    """A row of the table, over one recording or several.

    Args:
        recording: Its name.
        task: Name of the task.
        tallies: Of each recording, by the name of what predicts.
        seed: Of the bootstrap.
    """
    units = sum(len(next(iter(some.values())).training_spikes) for some in tallies)
    scores = {name: _bits_per_spike([some[name] for some in tallies], seed) for name in tallies[0]}
    return {"recording": recording, "task": task, "units": units, "scores": scores}


def _bits_per_spike(tallies: list[Tally], seed: int) -> dict[str, float]:
    """Spike-weighted, with a bootstrap interval over windows; over units that fired in training; mean over units."""
    gain = np.concatenate([t.gain.sum(1) for t in tallies])
    spikes = np.concatenate([t.spikes.sum(1) for t in tallies])
    draws = np.random.default_rng(seed).integers(0, len(gain), (_RESAMPLES, len(gain)))
    low, high = np.percentile(gain[draws].sum(1) / spikes[draws].sum(1), [2.5, 97.5])
    by_unit = np.concatenate([_ratio(t.gain.sum(0), t.spikes.sum(0)) for t in tallies])
    return {
        "value": float(gain.sum() / spikes.sum()),
        "low": float(low),
        "high": float(high),
        **{name: _spike_weighted([t.at_least(least) for t in tallies]) for name, least in TRAINED.items()},
        "mean over units": float(np.nanmean(by_unit)),
    }


def _spike_weighted(tallies: list[Tally]) -> float:
    spikes = sum(t.spikes.sum() for t in tallies)
    return float(sum(t.gain.sum() for t in tallies) / spikes) if spikes else float("nan")


def _ratio(gain: Floats, spikes: Floats) -> Floats:
    return np.divide(gain, spikes, out=np.full(len(gain), np.nan), where=spikes > 0)
