"""Simulated strangers: in training, units are identified by another reference window than the whole of their past."""

import copy
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.forecast_windows import ForecastSampler
from neurobridge_tb.datasets.reference_features import window_features
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.smoothed_rate import SmoothedRate
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.scoring.forecasts import rolled_out_loss

SHARES = (0.3, 0.5, 0.7, 0.85)  # of the training intervals that may be a reference window
_FIT_EPOCHS, _FIT_RATE = 4, 0.1


class Reference(NamedTuple):
    """A reference window and what comes after it.

    Attributes:
        features: (N, 33).
        seconds: Length of the window in s.
        later: Training intervals after it.
    """

    features: NDArray[np.float32]
    seconds: float
    later: Interval


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
        whole: Features and seconds of each recording's reference in validation.
        seed: With the epoch it decides what is drawn.
    """

    def __init__(
        self,
        model: NeuroHorizonModel,
        dataset: Dataset,
        sampler: ForecastSampler,
        whole: dict[str, tuple[NDArray[np.float32], float]],
        seed: int,
    ):
        self.model, self.sampler, self.whole, self.seed = model, sampler, whole, seed
        self.unit_ids = {r: dataset.get_recording(r).units.id.astype(str).tolist() for r in dataset.recording_ids}
        self.length = max(len(sampler) // 2, 1)
        self.references = {r: self._references(dataset, r) for r in dataset.recording_ids}

    def _references(self, dataset: Dataset, recording_id: str) -> list[Reference]:
        """Those after which a window fits."""
        intervals, recording = self.sampler.intervals[recording_id], dataset.get_recording(recording_id)
        found = []
        for share in SHARES:
            early, later = divide(intervals, share * float((intervals.end - intervals.start).sum()))
            if self.sampler.holds_windows({recording_id: later}):
                try:
                    features = window_features(recording, early)
                except InputError:
                    continue  # too short, or without a spike
                found.append(Reference(features, float((early.end - early.start).sum()), later))
        return found

    def begin(self, epoch: int) -> None:
        """Draw the references of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        drawn = {}
        for recording_id, references in self.references.items():
            if references:
                reference = references[rng.integers(len(references))]
                self.model.set_reference(self.unit_ids[recording_id], reference.features, reference.seconds)
                drawn[recording_id] = reference.later
        self.sampler.restrict(drawn, self.length)

    def end(self) -> None:
        """All units are identified by their whole reference window."""
        for recording_id, (features, seconds) in self.whole.items():
            self.model.set_reference(self.unit_ids[recording_id], features, seconds)

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


def fit_rate_filter(
    model: NeuroHorizonModel,
    train: DataLoader,
    valid: DataLoader,
    baseline: SmoothedRate,
    strangers: SimulatedStrangers | None,
    *,
    processes: int = 1,
) -> None:
    """Find the weights of the model's rate filter, where the training starts, by the likelihood of training windows.

    They begin at the smoothed rate drawn to the recent mean, and stay there if that is better in validation.

    Args:
        model: Its units are known. Nothing but its filter learns.
        train: Training windows.
        valid: Validation windows.
        baseline: That smoothed rate, its settings chosen on the validation windows.
        strangers: Draws references in each pass, where units are identified by features.
        processes: That many batches make a step, as they do in a training by so many processes. Default 1.
    """
    assert baseline.constant is not None
    rates = model.rate_filter
    rates.set_to(constant=baseline.constant, prior=baseline.prior, decay=baseline.decay, strength=baseline.strength)
    first, loss = copy.deepcopy(rates.state_dict()), rolled_out_loss(model, valid, start=True)
    optimizer = torch.optim.Adam(rates.parameters(), lr=_FIT_RATE)
    steps = _FIT_EPOCHS * max(len(train) // processes, 1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for epoch in range(_FIT_EPOCHS):
        if strangers is not None:
            strangers.begin(epoch)
        for batches in zip(*[iter(train)] * processes, strict=False):  # what is left over makes no step
            cells = [batch["target_mask"].sum() for batch in batches]
            optimizer.zero_grad()
            for batch, n in zip(batches, cells, strict=True):
                (model.loss(model.start(**batch["model_inputs"]), batch) * (n / sum(cells))).backward()
            optimizer.step()
            schedule.step()
    if strangers is not None:
        strangers.end()
    if rolled_out_loss(model, valid, start=True) > loss:
        rates.load_state_dict(first)
