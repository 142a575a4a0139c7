"""Each recording the unseen one once: a row for each, and their mean, with intervals and paired differences."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from neurobridge_tb.metrics.spikes import TRAINED
from neurobridge_tb.scoring.forecasts import BASELINES, FORCED, ROLLED
from neurobridge_tb.scoring.paired_gains import bits_per_spike_of


def leave_one_out_rows(unseen: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """The table of a forecast whose every recording was the stranger once.

    The difference is paired, window by window, with the smoothed rate whose mean over recordings is best. Intervals (95
    %) are over the windows of these recordings; they say nothing of other animals.

    Args:
        unseen: For each recording, the arrays of :func:`neurobridge_tb.scoring.forecasts.forecast_scores` from the
            model that did not see it.
    """
    names = next(iter(unseen.values()))["forecasts"].tolist()
    gains = {r: dict(zip(x["forecasts"].tolist(), x["window_gain"].sum(2).T, strict=True)) for r, x in unseen.items()}
    spikes = {r: x["window_spikes"].sum(1) for r, x in unseen.items()}

    def estimate(recordings: list[str], name: str, minus: str | None = None) -> dict[str, float]:
        some = [gains[r][name] - (gains[r][minus] if minus else 0) for r in recordings]
        return asdict(bits_per_spike_of(some, [spikes[r] for r in recordings]))

    def score(recordings: list[str], name: str) -> dict[str, float]:
        """With the values over units that fired in training."""
        place, found = names.index(name), [unseen[r] for r in recordings]
        values = [x["trained_gain"].sum(0)[place] / x["trained_spikes"].sum(0) for x in found]
        return estimate(recordings, name) | dict(zip(TRAINED, np.mean(values, axis=0).tolist(), strict=True))

    best = max(BASELINES, key=lambda name: estimate(list(unseen), name)["value"])
    rows = []
    for label, recordings in ({r: [r] for r in unseen} | {"mean": list(unseen)}).items():
        scores = {name: score(recordings, name) for name in names if name != FORCED}
        rows.append(
            {
                "unseen": label,
                "scores": scores,
                "difference": {f"rolled out - {best}": estimate(recordings, ROLLED, best)},
                "ratio": scores[ROLLED]["value"] / scores[best]["value"],
            }
        )
    return rows
