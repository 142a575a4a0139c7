"""Predictions of BrainWideBench's second suite, in the files that its scorer ``ibl-bwb-eval`` reads.

Format and protocol are those of ibl-bwb-eval 0.1.0 (https://github.com/brainbench-org/ibl-bwb): windows of 1 s at every
bin of 20 ms of the test split's trials. Co-smoothing predicts the held-out units in the whole window, forecasting all
units in its last 0.1 s.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from neurobridge_tb._upstream import Data, SequentialFixedWindowSampler, collate
from neurobridge_tb.datasets.brain_wide_bench import IblBrainWideBench2026
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.masking import Mask
from neurobridge_tb.models import NeuroBridgeModel, NeuroHorizonModel

FORMAT = "0.1.0"  # of ibl-bwb-eval
BIN_S, WINDOW_S, FORECAST_S = 0.02, 1.0, 0.1
TASKS = ("co_smoothing", "forecasting")


def write_bench_predictions(
    model: NeuroBridgeModel | NeuroHorizonModel,
    dataset: IblBrainWideBench2026,
    recording_id: str,
    task: str,
    *,
    out: str | Path,
    label: str,
    seed: int,
    batch_size: int = 64,
) -> Path:
    """Predict the test windows of a session into ``<out>/<label>/ts2-<task>/<recording_id>/seed_<seed>.safetensors``.

    Args:
        model: A NeuroBridgeModel of spikes with ``sequence_length`` 1 s and ``bin_size`` 0.02 s, or for forecasting a
            NeuroHorizonModel with ``history`` 0.9 s and ``horizon`` 0.1 s or more. It knows the session's units.
        dataset: With ``regime="eval"`` and ``suite="ts2"``, of the build ``selected_units``.
        recording_id: The session.
        task: ``"co_smoothing"`` or ``"forecasting"``.
        out: Folder of all submissions.
        label: The submission's name.
        seed: The seed with which the model was trained; the benchmark reports five, 43 to 47.
        batch_size: Windows at a time. Default 64.

    Returns:
        The file: ``predictions`` (windows, bins, units) float16 log-rates a bin, ``window_timestamps`` (windows,)
        float64 s, ``unit_ids`` (units, width) uint8.

    Raises:
        InputError: The model does not fit the task, or the session has no held-out units.
    """
    _check(model, dataset, task)
    recording = dataset.get_recording(recording_id)
    scored = _scored_units(recording, task)
    model.eval()
    predictions, starts = [], []
    for windows in _batches(dataset, recording_id, batch_size):
        starts += [float(window.absolute_start) for window in windows]
        with torch.no_grad():
            predictions.append(_predict(model, windows, task, scored).half())
    path = Path(out) / label / f"ts2-{task}" / recording_id / f"seed_{seed}.safetensors"
    metadata = {
        "label": label,
        "task": f"ts2-{task}",
        "seed": str(seed),
        "ibl_bwb_eval_version": FORMAT,
        "recording_id": recording_id,
        "unit_filtering": dataset.build,
        "dataset_version": str(recording.brainset.derived_version),
        "context_window": str(WINDOW_S),
        "bin_size": str(BIN_S),
    }
    tensors = {
        "predictions": torch.cat(predictions),
        "window_timestamps": torch.tensor(starts, dtype=torch.float64),
        "unit_ids": _as_bytes(recording.units.id[scored]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside:
        aside.write_bytes(save(tensors, metadata=metadata))
    return path


def _check(model: NeuroBridgeModel | NeuroHorizonModel, dataset: IblBrainWideBench2026, task: str) -> None:
    if isinstance(model, NeuroHorizonModel):
        fits = task == "forecasting" and model.n_past == round((WINDOW_S - FORECAST_S) / BIN_S)
        fits = fits and model.n_future >= round(FORECAST_S / BIN_S)
    else:
        fits = task in TASKS and model.reads_events and abs(model.sequence_length - WINDOW_S) < 1e-9
    if not fits or abs(model.bin_size - BIN_S) > 1e-9 or dataset.suite != "ts2":
        raise InputError(
            expected=f"a NeuroBridgeModel of spikes in windows of {WINDOW_S:g} s, or for forecasting a "
            f"NeuroHorizonModel with history {WINDOW_S - FORECAST_S:g} s, both with bins of {BIN_S} s; suite 'ts2'",
            found=f"{type(model).__name__}, task {task!r}, bins of {model.bin_size} s, suite {dataset.suite!r}",
            fix="Train a model with these settings; the benchmark has no others.",
        )


def _scored_units(recording: Data, task: str) -> np.ndarray:
    """(units,) bool, which the task predicts."""
    if task == "forecasting":
        return np.ones(len(recording.units), dtype=bool)
    column = "ts2_co_smoothing_is_held_out_test"
    if column not in recording.units.keys() or not np.any(getattr(recording.units, column)):
        raise InputError(
            expected=f"held-out units (units.{column}) in session {recording.session.id}",
            found="none",
            fix="Take the published build 'selected_units', evaluation sessions.",
        )
    return np.asarray(getattr(recording.units, column), dtype=bool)


def _batches(dataset: IblBrainWideBench2026, recording_id: str, size: int) -> Iterator[list[Data]]:
    intervals = {recording_id: dataset.get_sampling_intervals("test")[recording_id]}
    indices = list(SequentialFixedWindowSampler(sampling_intervals=intervals, window_length=WINDOW_S, step=BIN_S))
    for first in range(0, len(indices), size):
        yield [dataset[index] for index in indices[first : first + size]]


def _predict(
    model: NeuroBridgeModel | NeuroHorizonModel,
    windows: list[Data],
    task: str,
    scored: np.ndarray,
) -> Tensor:
    """(windows, bins, units) log-rates of what the task holds out; the model sees nothing of it."""
    if isinstance(model, NeuroHorizonModel):
        past = collate([model.tokenize(window) for window in windows])
        return compute(model.generate, **past, horizon=FORECAST_S)
    n_bins = round(WINDOW_S / BIN_S)
    target = np.zeros((n_bins, len(scored)), dtype=bool)
    if task == "co_smoothing":
        target[:, scored] = True
    else:
        target[n_bins - round(FORECAST_S / BIN_S) :] = True
    samples = [model.tokenize_with_targets(window, Mask(task, ~target, target)) for window in windows]
    return compute(model, **collate(samples)["model_inputs"])


def _as_bytes(ids: np.ndarray) -> Tensor:
    """(n, width) uint8: ASCII, padded with zeros, as the scorer reads ids."""
    rows = np.asarray(ids).astype("S")
    return torch.from_numpy(rows[:, None].view(np.uint8).reshape(len(rows), -1).copy())
