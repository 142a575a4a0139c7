"""Simulated recordings in the layout of BrainWideBench, and the ground truth that its scorer compares with."""

import h5py
import numpy as np
import torch
from safetensors.torch import save_file
from torch_brain.data import (
    ArrayDict,
    BrainsetDescription,
    Data,
    Interval,
    IrregularTimeSeries,
    SessionDescription,
    SubjectDescription,
)

BRAINSET = "ibl_brain_wide_bench_2026"
SECONDS, N_UNITS, BIN = 240.0, 20, 0.02


def simulate_session(root, session="0802ced5-33a3-405e-8336-b65ebc5cb07c", regime="eval", seed=0, without_held=False):
    """Write a session; its units follow two shared signals, those held out may be silent. Returns its path."""
    rng = np.random.default_rng(seed)
    times = np.arange(0, SECONDS, BIN)
    signals = np.stack([np.sin(2 * np.pi * times / 0.9), np.cos(2 * np.pi * times / 1.7)], axis=1)
    counts = rng.poisson(np.exp(-1.6 + signals @ rng.normal(0, 0.8, (2, N_UNITS))))
    held = np.zeros((2, N_UNITS), dtype=bool)
    held[0, [3, 11]], held[1, [5, 7]] = True, True
    bins, units = np.repeat(np.argwhere(counts > 0), counts[counts > 0], axis=0).T
    order = np.argsort(at := times[bins] + rng.uniform(0, BIN, len(bins)))
    if without_held:
        order = order[~held[0][units[order]]]
    trials = np.arange(1.0, SECONDS - 3.0, 2.5)
    beryl = np.array(["VISp", "CA1", "LP", "root"] * (N_UNITS // 4))
    domain = Interval(0.0, SECONDS)
    splits = {
        "pretrain": {"pretrain_train_domain": (0.0, 180.0), "pretrain_val_domain": (200.0, SECONDS)},
        "eval": {
            f"{suite}_{split}_domain": span
            for suite in ("ts1", "ts2")
            for split, span in {"train": (0.0, 160.0), "val": (180.0, 200.0), "test": (220.0, SECONDS)}.items()
        },
    }[regime]
    data = Data(
        brainset=BrainsetDescription(
            id=BRAINSET, origin_version="simulated", derived_version="1", source="simulated", description="simulated"
        ),
        subject=SubjectDescription(id="mouse", species="MUS_MUSCULUS"),
        session=SessionDescription(id=session),
        spikes=IrregularTimeSeries(timestamps=at[order], unit_index=units[order], domain=domain),
        units=ArrayDict(
            id=np.array([f"unit{i:02d}" for i in range(N_UNITS)]),
            region_allen=beryl,
            region_beryl=beryl,
            region_cosmos=np.array(["Isocortex", "HPF", "TH", "root"] * (N_UNITS // 4)),
            label=np.ones(N_UNITS),
            ts2_co_smoothing_is_held_out_test=held[0],
            ts2_co_smoothing_is_held_out_val=held[1],
        ),
        task_aligned_intervals=Data(
            choice=Interval(start=trials, end=trials + 1.0),
            domain=Interval(start=trials, end=trials + 1.2),
        ),
        domain=domain,
        **{name: Interval(*span) for name, span in splits.items()},
    )  # fmt: skip
    path = root / "selected_units" / BRAINSET / regime / f"{session}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data.to_hdf5(file)
    return path


def write_ground_truth(folder, dataset, recording_id, task, starts):
    """What the scorer compares with: counts of what is held out, in the windows that begin at ``starts``."""
    recording = dataset.get_recording(recording_id)
    counts = np.zeros((len(starts), 50, N_UNITS), dtype=np.float32)
    for row, start in enumerate(starts):
        window = recording.slice(start, start + 1.0)
        bins = np.clip((window.spikes.timestamps / BIN).astype(int), 0, 49)
        np.add.at(counts[row], (bins, window.spikes.unit_index), 1)
    held = recording.units.ts2_co_smoothing_is_held_out_test
    targets = counts[:, :, held] if task == "co_smoothing" else counts[:, 45:]
    path = folder / f"ts2-{task}" / recording_id / "ground_truth.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "targets": torch.from_numpy(targets.copy()),
        "window_timestamps": torch.tensor(starts, dtype=torch.float64),
    }
    save_file(tensors, path)
    return targets
