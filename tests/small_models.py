"""Small models and recordings that the tests of several jobs begin with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording


def save_encoder(root: Path, **settings: Any) -> None:
    """An untrained encoder of spike counts that knows the recordings in ``root``, to ``root/model``."""
    torch.manual_seed(1)
    model = NeuroBridgeModel(modality="spike_counts", dim=32, depth=1, dim_head=16, **settings)
    dataset = BinnedRecordings(root=root)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    model.save_pretrained(root / "model")


def save_reaches(root: Path, *, seconds: float, n_units: int, splits: dict[str, Any]) -> None:
    """A recording of spikes of units that are tuned to the velocity of a hand, ``root/reaches.h5``."""
    rng = np.random.default_rng(0)
    times = np.arange(0, seconds, 0.05)
    velocity = np.stack([np.sin(times), np.cos(1.7 * times)], axis=1)
    counts = rng.poisson(np.exp(1.5 + velocity @ rng.normal(0, 1, (2, n_units))) * 0.05)
    bins, units = np.repeat(np.argwhere(counts > 0), counts[counts > 0], axis=0).T
    order = np.argsort(at := times[bins] + rng.uniform(0, 0.05, len(bins)))
    recording = build_recording(
        brainset_id="test",
        session_id="reaches",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(n_units)]},
        spikes=(at[order], units[order]),
        behavior={"hand_velocity": (times, velocity)},
        splits=splits,
        simulated=True,
    )
    save_recording(recording, root / "reaches.h5")
