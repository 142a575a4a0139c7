"""How often each unit fired in the training split: the null model of every score in bits/spike."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.arrays import Floats
from neurobridge_tb.data.activity import Activity
from neurobridge_tb.metrics.spikes import BitsPerSpikeScore, posterior_mean
from neurobridge_tb.models import NeuroBridgeModel


@dataclass(frozen=True)
class UnitRates:
    """Training spikes of each unit, by the model's unit index.

    Attributes:
        spikes: (units,).
        bins: (units,) bins that they were counted in; 0 for units of other recordings.
    """

    spikes: Floats
    bins: Floats

    @property
    def mean(self) -> Floats:
        """(units,) mean count a bin, half a spike added, see :func:`posterior_mean`."""
        return posterior_mean(self.spikes, self.bins)


def training_rates(model: NeuroBridgeModel, dataset: Dataset) -> UnitRates:
    """Count the spikes of each unit over the training intervals.

    Args:
        model: Knows the units of ``dataset``, and tells what is read and how wide bins are.
        dataset: Recordings of spikes or spike counts.
    """
    spikes, bins = np.zeros(len(model.unit_stats.weight)), np.zeros(len(model.unit_stats.weight))
    activity = Activity(model, dataset)
    for recording_id, intervals in dataset.get_sampling_intervals("train").items():
        recording = activity[recording_id]
        if recording.modality != "mua":
            index = model.unit_stats.tokenizer(recording.unit_ids)
            total, count = recording.totals(intervals)
            spikes[index] += total
            bins[index] += count
    return UnitRates(spikes, bins)


def inside(times: np.ndarray, intervals: Interval) -> np.ndarray:
    """(n,) bool: which times in s lie inside one of the intervals, which are in order."""
    which = np.searchsorted(intervals.start, times, side="right") - 1
    return (which >= 0) & (times < intervals.end[which])


def bits_cells(score: BitsPerSpikeScore) -> dict[str, Any]:
    """Cells of a table: bits/spike over all units, over those that fired in training, and the mean over units."""
    return {
        "bits/spike": score.spike_weighted,
        **{f"bits/spike ({units})": value for units, value in score.of_trained_units.items()},
        "mean over units": score.unit_mean,
        "Poisson D2": score.d2,
        "silent units left out": score.silent_units,
        "silent in training, not here": score.new_units,
    }
