"""What :mod:`neurobridge_tb.datasets.validation.examination` finds in a recording, and what it finds wrong."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets.validation.scans import GridScan, TimesScan

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a recording.

    Attributes:
        place: Where in the file, e.g. ``"spikes/timestamps"``.
        found: What is wrong there.
        fix: What to do about it.
        is_error: False for what a recording may have, but should be looked at.
    """

    place: str
    found: str
    fix: str
    is_error: bool = True


@dataclass
class Contents:
    """What a recording holds, as far as it could be read.

    Attributes:
        descriptions: ``"brainset.id"``, ``"brainset.origin_version"`` and so on to their values.
        domain: Starts and ends in s, (n, 2).
        unit_ids: (N,).
        areas: Area of each unit, (N,); None without a column ``area``.
        spikes_per_unit: (N,), None without spikes.
        grids: Counts, MUA and other regular series: shape of the values, rate in Hz, statistics.
        events: Timestamps of irregular series, with the shapes of what belongs to them.
        intervals: Starts and ends in s, (n, 2), and the names of further columns.
    """

    descriptions: dict[str, str] = field(default_factory=dict)
    domain: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    unit_ids: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=str))
    areas: NDArray[np.str_] | None = None
    spikes_per_unit: NDArray[np.int64] | None = None
    grids: dict[str, tuple[tuple[int, ...], float, GridScan]] = field(default_factory=dict)
    events: dict[str, tuple[TimesScan, dict[str, tuple[int, ...]]]] = field(default_factory=dict)
    intervals: dict[str, tuple[NDArray[np.float64], list[str]]] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, NDArray[np.float64]]:
        """Starts and ends in s, (n, 2), of each split that is there."""
        bounds = {s: self.intervals[f"{s}_domain"][0] for s in SPLITS if f"{s}_domain" in self.intervals}
        return {split: its for split, its in bounds.items() if len(its)}
