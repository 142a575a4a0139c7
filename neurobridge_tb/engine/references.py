"""Reference windows of recordings: their early parts, and what is learned from windows that come after these."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb._upstream import Data, Interval
from neurobridge_tb.data.forecast_windows import ForecastLoaders, ForecastSampler
from neurobridge_tb.datasets.reference_features import window_features
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.nn.forecasting.rate_modulation import Cells

_SHARES = (0.3, 0.5, 0.7, 0.85)  # of intervals that may be an early reference
_LONG = 2  # early references, the longest ones, whose later windows tell what they are worth
MOST_CELLS = 2**19


@dataclass
class Reference:
    """A reference window and what comes after it.

    Attributes:
        features: (N, 33).
        window: The window.
        later: Intervals after it. Default: none.
        rows: Of :class:`RateModulation`, once they are fitted.
        departure: Of the recording's own response, once it is fitted.
    """

    features: NDArray[np.float32]
    window: Interval
    later: Interval = field(default_factory=lambda: Interval(start=np.zeros(0), end=np.zeros(0)))
    rows: Tensor | None = None
    departure: Tensor | None = None

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return length(self.window)

    def identify(self, model: NeuroHorizonModel, unit_ids: list[str]) -> None:
        """Let a model know units by this reference."""
        model.set_reference(unit_ids, self.features, self.seconds)
        if self.rows is not None and model.modulation is not None:
            model.modulation.set(unit_ids, self.rows, self.departure)

    def fit(self, model: NeuroHorizonModel, unit_ids: list[str], loaders: ForecastLoaders, recording_id: str) -> None:
        """Fit rows to its windows; the model knows units by it from now on."""
        model.set_reference(unit_ids, self.features, self.seconds)
        self.rows = model.fit_modulation(unit_ids, loaders.of_reference({recording_id: self.window}))
        self.identify(model, unit_ids)


def early_references(
    recording: Data, recording_id: str, intervals: Interval, sampler: ForecastSampler
) -> list[Reference]:
    """The first 30, 50, 70 and 85 % of intervals, where they and what is left hold a window each.

    Args:
        recording: Its units' activity.
        recording_id: Its id.
        intervals: Those to divide.
        sampler: Of such windows.
    """
    found = []
    for share in _SHARES:
        early, later = divide(intervals, share * length(intervals))
        if all(sampler.holds_windows({recording_id: part}) for part in (early, later)):
            try:
                features = window_features(recording, early)
            except InputError:
                continue  # too short, or without a spike
            found.append(Reference(features, early, later))
    return found


def cells_after(
    model: NeuroHorizonModel,
    unit_ids: list[str],
    loaders: ForecastLoaders,
    recording_id: str,
    early: list[Reference],
    most: int = MOST_CELLS,
) -> Cells:
    """What comes after the longest early references, as a model that knows the units by them meets it.

    Args:
        model: A model of these units.
        unit_ids: The recording's.
        loaders: Of its windows.
        recording_id: Its id.
        early: Its early references, at least one.
        most: About so many cells of each, evenly spread. Default 524,288.
    """
    parts = []
    for reference in early[-_LONG:]:
        if reference.rows is None:
            reference.fit(model, unit_ids, loaders, recording_id)
        else:
            reference.identify(model, unit_ids)
        found = joined(map(model.modulation_cells, loaders.of_reference({recording_id: reference.later})))
        parts.append(Cells(*(x[:: 1 + _LONG * len(x) // most] for x in found)))
    return joined(parts)


def introduce(
    model: NeuroHorizonModel, recording: Data, recording_id: str, loaders: ForecastLoaders, reference: Reference
) -> None:
    """Make the units of a recording that was not trained known by a reference, and fit what its windows tell of them.

    Its own response stays that of all recordings where no part of the reference can be an early one.

    Args:
        model: With ``unit_identity="features"``, and a response.
        recording: The recording.
        recording_id: Its id.
        loaders: Of its windows.
        reference: Of the recording.
    """
    assert model.modulation is not None
    unit_ids = recording.units.id.astype(str).tolist()
    model.add_units(unit_ids, reference.features, seconds=reference.seconds)
    sampler = loaders.sampler({recording_id: reference.window})
    if early := early_references(recording, recording_id, reference.window, sampler):
        cells = cells_after(model, unit_ids, loaders, recording_id, early)
        reference.departure = model.modulation.own_response(cells)
    reference.fit(model, unit_ids, loaders, recording_id)


def length(intervals: Interval) -> float:
    """Seconds of all intervals together."""
    return float((intervals.end - intervals.start).sum())


def joined(cells: Iterable[Cells]) -> Cells:
    """Cells after one another."""
    return Cells(*map(torch.cat, zip(*cells, strict=True)))


def divide(intervals: Interval, seconds: float) -> tuple[Interval, Interval]:
    """The first ``seconds`` of intervals, and the rest; trials stay whole, a single interval is cut."""
    lengths = intervals.end - intervals.start
    if len(lengths) == 1:
        cut = intervals.start + seconds
        return Interval(start=intervals.start, end=cut), Interval(start=cut, end=intervals.end)
    first = int(np.searchsorted(np.cumsum(lengths), seconds + 1e-6, side="right"))
    parts = (slice(0, max(first, 1)), slice(max(first, 1), None))
    early, later = (Interval(start=intervals.start[part], end=intervals.end[part]) for part in parts)
    return early, later
