"""Small recordings that many tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

BIN = 0.05


def low_rank_counts(n_bins: int, n_units: int, seed: int = 0) -> np.ndarray:
    """Counts of units that share three slow signals, so that masked ones can be guessed from the others."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_bins)[:, None] * BIN
    signals = np.sin(2 * np.pi * time / np.array([0.9, 1.7, 3.1]) + rng.uniform(0, 6, 3))
    log_rates = signals @ rng.normal(0, 0.8, (3, n_units)) + rng.uniform(-0.5, 0.8, n_units)
    return rng.poisson(np.exp(log_rates)).astype(np.uint8)


@pytest.fixture(scope="session")
def binned_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two binned recordings of 16 and 11 units in two areas, 60 s each."""
    from neurobridge_tb.datasets import build_recording, save_recording

    root = tmp_path_factory.mktemp("binned")
    for number, n_units in enumerate((16, 11)):
        data = build_recording(
            brainset_id="test",
            session_id=f"session{number}",
            subject_id="subject",
            units={
                "id": [f"s{number}/u{i:02d}" for i in range(n_units)],
                "area": ["A" if i % 2 else "B" for i in range(n_units)],
            },
            counts=(low_rank_counts(1200, n_units, seed=number), BIN),
            splits={"train": ([0.0], [40.0]), "valid": ([40.0], [50.0]), "test": ([50.0], [60.0])},
            simulated=True,
        )
        save_recording(data, root / f"session{number}.h5")
    return root


@pytest.fixture(scope="session")
def recordings_dir() -> Path:
    """Folder of real recordings, for tests marked `recordings`."""
    folder = os.environ.get("NEUROBRIDGE_RECORDINGS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NEUROBRIDGE_RECORDINGS does not name the folder of real recordings")
    return Path(folder)
