"""Pretraining on TVSD's trials variant, as `dataset=tvsd_trials` sets it up."""

import numpy as np
import pytest

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.jobs.pretrain import pretrain

N_TRIALS, N_BINS, N_UNITS, BIN = 160, 30, 24, 0.01


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Each presentation has three hidden numbers; after the image comes on, units respond to them."""
    root = tmp_path_factory.mktemp("trials")
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(N_TRIALS, 3)) @ rng.normal(size=(3, N_UNITS))
    on = np.arange(N_BINS) >= 10
    values = drive[:, None] * on[:, None] + 0.5 * rng.normal(size=(N_TRIALS, N_BINS, N_UNITS))
    values[5, 12:15, 3] = np.nan
    starts = np.arange(N_TRIALS) * N_BINS * BIN

    def split(first, last):
        return starts[first:last], starts[first:last] + N_BINS * BIN

    data = build_recording(
        brainset_id="tvsd",
        session_id="tiny_trials",
        subject_id="virtual",
        units={"id": [f"u{i}" for i in range(N_UNITS)], "area": ["V1", "V4"] * (N_UNITS // 2)},
        mua=(values.reshape(-1, N_UNITS).astype(np.float32), BIN),
        splits={"train": split(0, 120), "valid": split(120, 140), "test": split(140, N_TRIALS)},
        simulated=True,
    )
    save_recording(data, root / "tvsd" / "tiny_trials.h5")
    return root


def test_all_four_schemes_learn_from_windows_of_one_presentation(root, tmp_path):
    overrides = [
        "dataset=tvsd_trials", f"dataset.root={root}", "model=tiny", f"run_dir={tmp_path}/run", "loader.batch_size=8",
        "optimizer.lr=5e-3", "trainer.max_epochs=6", "trainer.enable_progress_bar=false", "device=cpu",
    ]  # fmt: skip
    run = pretrain(compose_config("pretrain", overrides))
    rows = {row["scheme"]: row for row in read_metrics(run)["rows"]}
    assert set(rows) == {"temporal", "neuron", "intra_region", "inter_region"}
    for scheme in ("neuron", "intra_region", "inter_region"):
        baselines = rows[scheme]["baselines"]
        assert max(rows[scheme]["model"], baselines["factor analysis"]) < 0.8 * baselines["training mean"]
    model = NeuroBridgeModel.load_pretrained(run / "model")
    assert model.config["sequence_length"] == pytest.approx(N_BINS * BIN)
    with np.load(run / "masked_example.npz", allow_pickle=False) as example:
        assert example["values"].shape == (N_BINS, N_UNITS)
