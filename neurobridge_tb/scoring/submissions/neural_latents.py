"""Rates for the Neural Latents Benchmark's MC_Maze sets (Pei et al. 2021, arXiv:2109.04463), as ``nlb_tools`` and the
benchmark's server score them.

Windows begin 0.25 s before a movement's onset. The model sees the held-in units in the first 0.7 s. Predicted are these
and the held-out units there (co-smoothing), and all units in the 0.2 s that follow (forward prediction).
"""

from pathlib import Path

import h5py
import numpy as np
import torch

from neurobridge_tb._upstream import Data, Dataset, DatasetIndex, collate
from neurobridge_tb.arrays import Floats
from neurobridge_tb.datasets.readers.neural_latents import AFTER_S, BEFORE_S, FORWARD_S, mc_maze_window
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_replaceable, write_aside
from neurobridge_tb.masking import Mask
from neurobridge_tb.metrics.spikes import bits_per_spike
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.submissions.smoothed_spikes import smoothed_spikes_rates

SEEN_S, WINDOW_S = BEFORE_S + AFTER_S, BEFORE_S + AFTER_S + FORWARD_S
BASELINE = "Poisson GLM on smoothed spikes"
_BINS_S = (0.005, 0.02)  # that the benchmark scores
_SMALLEST = 1e-9  # rate, as in nlb_tools
_BATCH = 32


def write_nlb_rates(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, *, out: str | Path, trials: str = "val"
) -> dict[str, dict[str, float]]:
    """Write a submission of one recording made by :func:`neurobridge_tb.datasets.readers.read_mc_maze`.

    Args:
        model: Of spikes, with ``sequence_length`` 0.9 s and ``bin_size`` 0.005 or 0.02 s; it knows the units.
        dataset: Where the recording is.
        recording_id: The recording, called as the benchmark calls the set, e.g. ``"mc_maze_small"``.
        out: HDF5 file. An earlier submission of this recording is replaced.
        trials: Which are predicted: ``"val"``, to be scored here, or ``"test"``, for the benchmark's server. Rates of
            the trials before them (``"train"``, and for ``"test"`` also ``"val"``) are written too; the scorer fits its
            decoder of hand velocity to these. Default ``"val"``.

    Returns:
        ``co-bps`` and ``fp-bps`` of the predicted trials, of the model and of the benchmark's plain baseline:
        bits/spike above each unit's mean rate in these trials, as the benchmark has it. Empty for ``"test"``, whose
        targets are not public.

    Raises:
        InputError: The model does not fit, there are no such trials, or another file is at ``out``.
    """
    recording = dataset.get_recording(recording_id)
    split = np.asarray(recording.trials.nlb_split).astype(str) if "trials" in recording.keys() else np.empty(0)
    _check(model, recording_id, split, trials)
    suffix = "" if model.bin_size < 0.01 else "_20"
    check_replaceable(out, lambda old: _holds(old, f"{recording_id}{suffix}"), "a submission of this set")
    held_out = np.asarray(recording.units.held_out, dtype=bool)
    starts, _ = mc_maze_window(np.asarray(recording.trials.move_onset), model.bin_size)
    before = ("train",) if trials == "val" else ("train", "val")
    n_seen = round(SEEN_S / model.bin_size)
    rates, trained = _predict(model, dataset, recording_id, starts[np.isin(split, before)], held_out, n_seen)
    predicted, counts = _predict(model, dataset, recording_id, starts[split == trials], held_out, n_seen)
    forward, predicted = predicted[:, n_seen:], predicted[:, :n_seen]
    arrays = {
        "train_rates_heldin": rates[:, :n_seen, ~held_out],
        "train_rates_heldout": rates[:, :n_seen, held_out],
        "eval_rates_heldin": predicted[:, :, ~held_out],
        "eval_rates_heldout": predicted[:, :, held_out],
        "eval_rates_heldin_forward": forward[:, :, ~held_out],
        "eval_rates_heldout_forward": forward[:, :, held_out],
    }
    with write_aside(out) as aside, h5py.File(aside, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(f"{recording_id}{suffix}/{name}", data=values.astype(np.float32), compression="gzip")
    if trials == "test":
        return {}
    baseline = smoothed_spikes_rates(trained, counts, held_out, n_seen=n_seen, bin_size=model.bin_size)
    observed = counts[:, :n_seen, held_out], counts[:, n_seen:]
    return {
        name: {task: _bits(*pair) for task, *pair in zip(("co-bps", "fp-bps"), some, observed, strict=True)}
        for name, some in (("NeuroBridge", (predicted[:, :, held_out], forward)), (BASELINE, baseline))
    }


def _holds(path: Path, name: str) -> bool:
    with h5py.File(path) as file:
        return f"{name}/train_rates_heldin" in file


def _check(model: NeuroBridgeModel, recording_id: str, split: np.ndarray, trials: str) -> None:
    if not model.reads_events or abs(model.sequence_length - WINDOW_S) > 1e-9 or model.bin_size not in _BINS_S:
        raise InputError(
            expected=f"a NeuroBridgeModel of spikes in windows of {WINDOW_S:g} s and bins of 0.005 or 0.02 s",
            found=f"modality {model.modality!r}, windows of {model.sequence_length:g} s, bins of {model.bin_size:g} s",
            fix="Train one with the preset window=nlb.",
        )
    if trials not in ("val", "test") or trials not in split or "train" not in split:
        raise InputError(
            expected=f"trials of 'train' and '{trials}' ('val' or 'test') in recording {recording_id}",
            found=", ".join(np.unique(split)) or "no trials",
            fix="Import it with `neurobridge import nlb`; with the test file there are test trials.",
        )


@torch.no_grad()
def _predict(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, starts: Floats, held_out: np.ndarray, n_seen: int
) -> tuple[Floats, Floats]:
    """Expected and observed counts (windows, bins, units) of the windows that begin at ``starts``."""
    keep = np.zeros((round(WINDOW_S / model.bin_size), len(held_out)), dtype=bool)
    keep[:n_seen, ~held_out] = True
    mask = Mask("nlb", keep, np.ones_like(keep))
    model.eval()
    rates, counts = [], []
    for first in range(0, len(starts), _BATCH):
        windows = [_window(dataset, recording_id, start) for start in starts[first : first + _BATCH]]
        inputs = collate([model.tokenize_with_targets(window, mask) for window in windows])["model_inputs"]
        rates.append(compute(model, **inputs).double().exp().numpy())
        counts += [model.grid_values(window)[0] for window in windows]
    return np.concatenate(rates), np.stack(counts).astype(np.float64)


def _window(dataset: Dataset, recording_id: str, start: float) -> Data:
    return dataset[DatasetIndex(recording_id, start, start + WINDOW_S)]


def _bits(rates: Floats, counts: Floats) -> float:
    null = np.maximum(counts.mean((0, 1)), _SMALLEST)
    return bits_per_spike(rates, counts, null).spike_weighted
