"""As a recording that was not trained goes on, its reference moves along: what came later tells of its units, too."""

from collections.abc import Iterable, Iterator

import numpy as np

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.datasets.reference_features import window_features
from neurobridge_tb.engine.references import Reference, introduce, length
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.progress import say

_NEW = 1 / 16  # of a reference: one that is new by this share is fitted anew; and of the test, as that takes time
_SPLITS = ("train", "valid", "test")


class MovingReferences:
    """The references of recordings that were not trained, each from some time on.

    The first is given. Later ones are the latest seconds, as many as a reference may have, of what lies in the
    recording's splits before a window to forecast, once that is longer than the first by a sixteenth of a reference; a
    new one each time that another sixteenth has passed, of it and of the test. Rows and features are those of the new
    reference; the recording's own response stays that of the first.

    Args:
        model: With ``unit_identity="features"``, and a response, where the references are to be fitted.
        dataset: The recordings.
        loaders: Of their windows.
    """

    def __init__(self, model: NeuroHorizonModel, dataset: Dataset, loaders: ForecastLoaders) -> None:
        self.model, self.dataset, self.loaders = model, dataset, loaders
        self._found: dict[str, list[tuple[float, Reference]]] = {}
        self._unit_ids: dict[str, list[str]] = {}

    def introduce(self, recording_id: str, first: Reference, *, seconds: float) -> None:
        """Make the units of a recording known, and fit its references until the end of its test windows.

        Args:
            recording_id: The recording.
            first: Its first reference.
            seconds: Of a reference, at most.
        """
        recording = self.dataset.get_recording(recording_id)
        introduce(self.model, recording, recording_id, self.loaders, first)
        self._unit_ids[recording_id] = recording.units.id.astype(str).tolist()
        self._found[recording_id] = [(-np.inf, first)]
        known = first.seconds
        splits = self._splits(recording_id)
        continuous = self.loaders.config.windows == "continuous"
        for index in self.loaders.sampler({recording_id: splits[-1]}):
            before = passed(splits, index.start, cut=continuous)
            window, total = latest(before, seconds, cut=continuous), length(before)
            if total - known < _NEW * max(length(window), length(splits[-1])):
                continue
            try:
                reference = Reference(window_features(recording, window), window, departure=first.departure)
                reference.fit(self.model, self._unit_ids[recording_id], self.loaders, recording_id)
            except InputError:
                continue  # without a spike, or in parts that are shorter than a past and a future
            say(f"Fitted the factors of {recording_id} as of {index.start:.0f} s")
            self._found[recording_id].append((index.start, reference))
            known = total

    def _splits(self, recording_id: str) -> list[Interval]:
        """Intervals of each split, those of the test last; recordings that are not trained need none to validate on."""
        found = []
        for split in _SPLITS:
            try:
                found.append(self.dataset.get_sampling_intervals(split)[recording_id])
            except InputError:
                if split != "valid":
                    raise
        return found

    def follow(self, batches: Iterable[dict]) -> Iterator[dict]:
        """Batches; when one is at hand, the model knows its units by what came before all of its windows.

        Args:
            batches: Collated, with ``session_id`` and ``absolute_start``.
        """
        assert self.model.identity is not None
        current: dict[str, Reference] = {}
        for batch in batches:
            sessions, starts = np.array(batch["session_id"]), batch["absolute_start"].numpy()
            for recording_id in np.unique(sessions).tolist():
                begins = starts[sessions == recording_id].min()
                reference = [found for since, found in self._found[recording_id] if since <= begins][-1]
                if current.get(recording_id) is not reference:
                    reference.identify(self.model, self._unit_ids[recording_id])
                    self.model.identity.precompute()
                    current[recording_id] = reference
            yield batch


def passed(splits: Iterable[Interval], time: float, *, cut: bool) -> Interval:
    """Intervals of all splits that ended by a time, in order; with ``cut`` also the part before it of one that lasts.

    Args:
        splits: Intervals of each, none of which overlap.
        time: In s.
        cut: Whether an interval may be divided.
    """
    start, end = (np.concatenate([getattr(split, name) for split in splits]) for name in ("start", "end"))
    order = np.argsort(start)
    start, end = start[order], np.minimum(end, time)[order] if cut else end[order]
    by_then = (end <= time + 1e-6) & (start < end)
    return Interval(start=start[by_then], end=end[by_then])


def latest(intervals: Interval, seconds: float, *, cut: bool) -> Interval:
    """The last ``seconds`` of intervals: whole ones, or with ``cut`` the last part of one before them, too."""
    lengths = intervals.end - intervals.start
    room = seconds - (np.cumsum(lengths[::-1])[::-1] - lengths)  # left to each interval by those after it
    kept = room > 1e-6 if cut else lengths <= room + 1e-6
    return Interval(start=np.maximum(intervals.start, intervals.end - room)[kept], end=intervals.end[kept])
