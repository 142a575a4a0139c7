"""The example scripts run, at tiny size, and learn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import save_reaches

from neurobridge_tb import NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.simulation import write_procedural_images

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = (
    "model.dim=32", "model.depth=1", "model.dim_head=16", "model.self_heads=2", "model.num_latents_per_step=4",
)  # fmt: skip


def run(example, folder, *arguments):
    """Run an example as a user does, in its own folder of results; returns what it said."""
    script = EXAMPLES / example
    done = subprocess.run([sys.executable, script, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def reaches(tmp_path_factory):
    """A folder with a recording of spikes that are tuned to the velocity of a hand."""
    root = tmp_path_factory.mktemp("reaches")
    save_reaches(root, seconds=40, n_units=20, splits={"train": ([0.0], [30.0]), "valid": ([30.0], [39.9])})
    return root


def test_masked_pretraining_sweeps_over_seeds(binned_root, tmp_path):
    said = run(
        "neurobridge/train.py", tmp_path, "--multirun", f"data_root={binned_root}", "dataset=counts", "model=tiny",
        "schemes={neuron: 1.0}", "seed=0,1", "epochs=3", "batch_size=8", "lr=3e-3", "hydra.sweep.dir=runs",
        "hydra.job.chdir=true",
    )  # fmt: skip
    losses = [float(line.split("valid ")[1]) for line in said.splitlines() if ", valid " in line]
    assert len(losses) == 6 and losses[2] < losses[0] and losses[5] < losses[3] and losses[2] != losses[5]
    for seed in (0, 1):
        assert NeuroBridgeModel.load_pretrained(tmp_path / "runs" / str(seed) / "model").config["dim"] == 32


def test_masked_pretraining_reads_presentations_and_events(reaches, tmp_path):
    said = run(
        "neurobridge/train.py", tmp_path, f"data_root={reaches}", "dataset=spikes", "model=tiny", "epochs=1",
        "schemes={neuron: 1.0}", "batch_size=8", "model.bin_size=0.1", "hydra.run.dir=run",
    )  # fmt: skip
    assert "1 recordings, 20 units" in said and (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("target", ["neurobridge_tb.NeuroBridgeModel", "torch_brain.models.POYO"])
def test_a_behaviour_is_decoded_in_lightning(reaches, tmp_path, target):
    said = run(
        "neurobridge_lightning/train.py", tmp_path, f"data_root={reaches}", "behavior=hand.velocity", *TINY,
        f"model._target_={target}", "unit_dropout.min_units=8", "batch_size=8", "lr=5e-3", "trainer.max_epochs=3",
        "+trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "hydra.run.dir=run",
    )  # fmt: skip
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    assert "error" not in said.lower()
    if target.startswith("neurobridge"):
        assert NeuroBridgeModel.load_pretrained(checkpoint).config["dim_out"] == 2


def test_spikes_are_forecast(binned_root, tmp_path):
    said = run(
        "neurohorizon/train.py", tmp_path, f"data_root={binned_root}", "modality=spike_counts", "model.bin_size=0.05",
        "model.history=0.5", "model.horizon=0.3", "model.encoder={dim: 32, depth: 1}", "epochs=2",
        "batch_size=8", "hydra.run.dir=run",
    )  # fmt: skip
    bits = [float(line.split("validation ")[1].split()[0]) for line in said.splitlines() if "bits/spike" in line]
    assert len(bits) == 3 and np.isfinite(bits).all() and bits[-1] == max(bits)
    assert NeuroHorizonModel.load_pretrained(tmp_path / "model").horizon == 0.3


def test_a_virtual_monkey_is_decoded_into_pictures(tmp_path):
    train, test = write_procedural_images(
        tmp_path / "images", n_concepts=12, images_per_concept=8, n_test=12, size=32, seed=0
    )
    shown, rng = [*train, *test * 3], np.random.default_rng(0)
    starts = np.arange(len(shown)) * 0.4
    bounds = {"train": (0, 80), "valid": (80, len(train)), "test": (len(train), len(shown))}
    drive = {name: rng.normal(0, 1, 24) for name in {*train, *test}}
    values = np.stack([drive[name] for name in shown]) + rng.normal(0, 1, (len(shown), 24))
    recording = build_recording(
        brainset_id="tvsd",
        session_id="tiny_norm",
        subject_id="virtual",
        units={"id": [f"u{i}" for i in range(24)], "area": ["V1", "IT"] * 12},
        mua=(values.astype(np.float32), 0.4),
        splits={name: (starts[a:b], starts[a:b] + 0.4) for name, (a, b) in bounds.items()},
        intervals={
            "presentations": {
                "start": starts,
                "end": starts + 0.2,
                "image_id": shown,
                "repeat": np.repeat(np.arange(-1, 3), [len(train), *[len(test)] * 3]).clip(0),
            }
        },
        simulated=True,
    )
    save_recording(recording, tmp_path / "processed" / "tvsd" / "tiny_norm.h5")
    said = run(
        "tvsd_decoding/decode.py", tmp_path, "--processed", "processed", "--images", "images", "--model", "tiny",
        "--epochs", "1", "--image-size", "64", "--backends", "nearest,ridge_pixels",
    )  # fmt: skip
    assert "Report: " in said and (tmp_path / "workspace" / "runs" / "reconstruct" / "reconstructions.h5").exists()
