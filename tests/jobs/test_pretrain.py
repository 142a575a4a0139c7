"""Pretraining end to end on a small recording: it learns, resumes exactly, and exports what it trained."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain


def config(root, run_dir, *overrides):
    return compose_config(
        "pretrain",
        [
            "model=tiny", "dataset=binned", f"dataset.root={root}", f"run_dir={run_dir}", "loader.batch_size=16",
            "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "device=cpu", *overrides,
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(binned_root, tmp_path_factory):
    return pretrain(config(binned_root, tmp_path_factory.mktemp("run"), "trainer.max_epochs=40", "optimizer.lr=5e-3"))


def test_it_beats_the_training_mean_rate_on_held_out_time(finished):
    metrics = read_metrics(finished)
    assert metrics["simulated"]
    assert {row["scheme"] for row in metrics["rows"]} == {"temporal", "neuron"}
    for row in metrics["rows"]:
        assert row["metric"] == "bits/spike"
        assert row["model"] > 0.02
        assert (row["baselines"]["factor analysis"] > 0.02) == (row["scheme"] == "neuron")  # bins are independent there


def test_the_exported_model_and_the_example_are_complete(finished):
    model = NeuroBridgeModel.load_pretrained(finished / "model")
    assert model.config["dim"] == 32
    with np.load(finished / "masked_example.npz", allow_pickle=False) as example:
        assert example["values"].shape == example["keep"].shape == example["predicted"].shape
        assert np.isfinite(example["predicted"][example["target"]]).all()
        assert not (example["keep"] & example["target"]).any()


def test_a_resumed_run_goes_on_as_an_uninterrupted_one(binned_root, tmp_path):
    whole = pretrain(config(binned_root, tmp_path / "whole", "trainer.max_epochs=4"))
    cut_dir = tmp_path / "cut"
    cut = config(binned_root, cut_dir, "trainer.max_epochs=4")

    class Cut(Exception):
        pass

    import lightning as L

    from neurobridge_tb.engine import masked_training as module

    class Cutting(module.PretrainingModule):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise Cut

    original, module.PretrainingModule = module.PretrainingModule, Cutting
    try:
        with pytest.raises(Cut):
            pretrain(cut)
    finally:
        module.PretrainingModule = original
    assert not (cut_dir / "model").exists()
    pretrain(cut)
    assert L  # Lightning restored the optimizer and the schedule
    losses = [pd.read_csv(run / "metrics.csv")["train/loss"].dropna().to_numpy() for run in (whole, cut_dir)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    a, b = (NeuroBridgeModel.load_pretrained(run / "model").state_dict() for run in (whole, cut_dir))
    torch.testing.assert_close(a["enc_atn.to_q.weight"], b["enc_atn.to_q.weight"])


def test_the_last_checkpoint_is_of_the_last_epoch_even_if_validation_got_no_better(binned_root, tmp_path):
    run = pretrain(config(binned_root, tmp_path, "trainer.max_epochs=3", "optimizer.lr=0", "optimizer.factor_lr=0"))
    epochs = {
        name: torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")
    }
    assert epochs == {"best": 0, "last": 2}


def test_another_config_in_the_same_folder_is_refused(binned_root, tmp_path):
    pretrain(config(binned_root, tmp_path, "trainer.max_epochs=1"))
    with pytest.raises(InputError, match=r"seed \(0, now 1\)"):
        pretrain(config(binned_root, tmp_path, "seed=1"))


def test_a_loss_that_is_not_finite_names_the_window(binned_root, tmp_path):
    with pytest.raises(InputError, match="session[01] at"):
        pretrain(config(binned_root, tmp_path, "optimizer.lr=1e20", "trainer.gradient_clip_val=null"))


def test_a_recording_without_activity_in_training_is_refused_before_anything_heavy(tmp_path):
    counts = np.ones((600, 5), dtype=np.uint8)
    data = build_recording(
        brainset_id="test", session_id="silent", subject_id="subject", units={"id": list("abcde")},
        counts=(counts, 0.05), splits={"train": ([0.0], [20.0]), "valid": ([20.0], [30.0])},
    )  # fmt: skip
    save_recording(data, tmp_path / "data" / "silent.h5")
    with h5py.File(tmp_path / "data" / "silent.h5", "r+") as file:
        file["spike_counts/value"][:400] = 0
    with pytest.raises(InputError, match="train_domain: no activity in it"):
        pretrain(config(tmp_path / "data", tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()
