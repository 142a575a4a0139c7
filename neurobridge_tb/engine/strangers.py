"""Simulated strangers: in training, units are identified by another reference window than the whole of their past."""

from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.data.forecast_windows import ForecastLoaders, ForecastSampler
from neurobridge_tb.engine.references import MOST_CELLS, Reference, cells_after, early_references, joined, length
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.forecasts import rolled_out_loss

GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the modulation, at the start


class SimulatedStrangers(L.Callback):
    """Every epoch each recording plays the unseen session: a reference window that ends early identifies its units.

    The window is the first part of the recording's training intervals (30 to 85 % of them, drawn), and the epoch's
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
        intervals = self.sampler.intervals[recording_id]
        found = early_references(dataset.get_recording(recording_id), recording_id, intervals, self.sampler)
        if not found:
            raise InputError(
                expected=f"training intervals of {recording_id} whose first part, a reference of a second or more with "
                "spikes and a window, is followed by another window",
                found=f"{len(intervals)} intervals, {length(intervals):.6g} s in all",
                fix="Leave the recording out, or set strangers=false.",
            )
        return found

    def fit_modulation(self, loaders: ForecastLoaders, valid: DataLoader) -> None:
        """Fit :class:`RateModulation` to every reference, and its responses to what comes after the longer ones.

        Args:
            loaders: Of the recordings' windows.
            valid: Validation windows, on which the gain is chosen among ``GAINS``.
        """
        model = self.model
        assert model.modulation is not None
        cells = {}
        for recording_id, whole in self.whole.items():
            say(f"Fitting the factors of {recording_id}")
            unit_ids, early = self.unit_ids[recording_id], self.references[recording_id]
            for reference in (*early, whole):
                reference.fit(model, unit_ids, loaders, recording_id)
            cells[recording_id] = cells_after(
                model, unit_ids, loaders, recording_id, early, MOST_CELLS // len(self.whole)
            )
        model.modulation.fit_response(joined(cells.values()))
        for recording_id, whole in self.whole.items():
            whole.departure = model.modulation.own_response(cells[recording_id])
        self.end()

        def loss(gain: float) -> float:
            self.model.modulation_gain.data.fill_(gain)
            return rolled_out_loss(self.model, valid, start=True)

        self.model.modulation_gain.data.fill_(min(GAINS, key=loss))

    def begin(self, epoch: int) -> None:
        """Draw the references of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        drawn = {}
        for recording_id, references in self.references.items():
            reference = references[rng.integers(len(references))]
            reference.identify(self.model, self.unit_ids[recording_id])
            drawn[recording_id] = reference.later
        self.sampler.restrict(drawn, self.length)

    def end(self) -> None:
        """All units are identified by their whole reference window."""
        for recording_id, reference in self.whole.items():
            reference.identify(self.model, self.unit_ids[recording_id])

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
