"""Simulated strangers: in training, units are identified by another reference window than the whole of their past."""

from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.forecast_windows import ForecastLoaders, ForecastSampler
from neurobridge_tb.datasets.reference_features import window_features
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.forecasts import rolled_out_loss

SHARES = (0.3, 0.5, 0.7, 0.85)  # of the training intervals that may be a reference window
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the modulation, at the start
_LONG = 2  # references, the longest ones, whose later windows tell what they are worth
_MOST_CELLS = 2**19


@dataclass
class Reference:
    """A reference window and what comes after it.

    Attributes:
        features: (N, 33).
        window: The window.
        later: Training intervals after it. Default: none.
        modulation: Rows of :class:`RateModulation`, once they are fitted.
    """

    features: NDArray[np.float32]
    window: Interval
    later: Interval = field(default_factory=lambda: Interval(start=np.zeros(0), end=np.zeros(0)))
    modulation: Tensor | None = None

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return float((self.window.end - self.window.start).sum())


class SimulatedStrangers(L.Callback):
    """Every epoch each recording plays the unseen session: a reference window that ends early identifies its units.

    The window is the first part of the recording's training intervals (a share drawn from ``SHARES``), and the epoch's
    windows come after it, half as many as there are in all. So identities and mean rates are as wrong as those of a
    session that was never trained, and what a rate or a feature is worth some time later is learned. In validation the
    reference is the whole again.

    Args:
        model: With ``unit_identity="features"``, fitted on the whole reference.
        dataset: The recordings to train on.
        sampler: Draws the training windows.
        whole: Each recording's reference in validation.
        seed: With the epoch it decides what is drawn.

    Raises:
        InputError: A recording has no part that can be a reference with a window after it.
    """

    def __init__(
        self,
        model: NeuroHorizonModel,
        dataset: Dataset,
        sampler: ForecastSampler,
        whole: dict[str, Reference],
        seed: int,
    ):
        self.model, self.sampler, self.whole, self.seed = model, sampler, whole, seed
        self.unit_ids = {r: dataset.get_recording(r).units.id.astype(str).tolist() for r in dataset.recording_ids}
        self.length = max(len(sampler) // 2, 1)
        self.references = {r: self._references(dataset, r) for r in dataset.recording_ids}

    def _references(self, dataset: Dataset, recording_id: str) -> list[Reference]:
        """Those that hold a window and after which one fits."""
        intervals, recording = self.sampler.intervals[recording_id], dataset.get_recording(recording_id)
        found = []
        for share in SHARES:
            early, later = divide(intervals, share * float((intervals.end - intervals.start).sum()))
            if all(self.sampler.holds_windows({recording_id: part}) for part in (early, later)):
                try:
                    features = window_features(recording, early)
                except InputError:
                    continue  # too short, or without a spike
                found.append(Reference(features, early, later))
        if not found:
            raise InputError(
                expected=f"training intervals of {recording_id} whose first part, a reference of a second or more with "
                "spikes and a window, is followed by another window",
                found=f"{len(intervals)} intervals, {float((intervals.end - intervals.start).sum()):.6g} s in all",
                fix="Leave the recording out, or set strangers=false.",
            )
        return found

    def fit_modulation(self, loaders: ForecastLoaders, valid: DataLoader) -> None:
        """Fit :class:`RateModulation` to every reference, and its response to what comes after the longer ones.

        Args:
            loaders: Of the recordings' windows.
            valid: Validation windows, on which the gain is chosen among ``GAINS``.
        """
        assert self.model.modulation is not None
        cells: list[list[NDArray[np.float32]]] = []
        most = _MOST_CELLS // len(self.whole)
        for recording_id, whole in self.whole.items():
            say(f"Fitting the factors of {recording_id}")
            of_recording = [*self.references[recording_id], whole]
            for reference in of_recording:
                self._set(recording_id, reference)
                windows = loaders.of_reference({recording_id: reference.window})
                reference.modulation = self.model.fit_modulation(self.unit_ids[recording_id], windows)
            for reference in of_recording[:-1][-_LONG:]:
                self._set(recording_id, reference)
                later = map(self.model.modulation_cells, loaders.of_reference({recording_id: reference.later}))
                found = [torch.cat(x).numpy() for x in zip(*later, strict=True)]
                cells.append([x[:: 1 + _LONG * len(x) // most] for x in found])
        self.model.modulation.fit_response(*(np.concatenate(x).astype(float) for x in zip(*cells, strict=True)))
        self.end()

        def loss(gain: float) -> float:
            self.model.modulation_gain.data.fill_(gain)
            return rolled_out_loss(self.model, valid, start=True)

        self.model.modulation_gain.data.fill_(min(GAINS, key=loss))

    def _set(self, recording_id: str, reference: Reference) -> None:
        unit_ids = self.unit_ids[recording_id]
        self.model.set_reference(unit_ids, reference.features, reference.seconds)
        if reference.modulation is not None and self.model.modulation is not None:
            self.model.modulation.set(unit_ids, reference.modulation)

    def begin(self, epoch: int) -> None:
        """Draw the references of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        drawn = {}
        for recording_id, references in self.references.items():
            reference = references[rng.integers(len(references))]
            self._set(recording_id, reference)
            drawn[recording_id] = reference.later
        self.sampler.restrict(drawn, self.length)

    def end(self) -> None:
        """All units are identified by their whole reference window."""
        for recording_id, reference in self.whole.items():
            self._set(recording_id, reference)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.begin(0)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.begin(checkpoint["epoch"] + 1)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin(trainer.current_epoch)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.end()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.end()


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
