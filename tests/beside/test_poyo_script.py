"""Upstream's own training script of POYO trains NeuroBridgeModel with one word of its config changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from torch_brain.data import (
    ArrayDict,
    BrainsetDescription,
    Data,
    Interval,
    IrregularTimeSeries,
    RegularTimeSeries,
    SessionDescription,
)

pytestmark = pytest.mark.beside

ROOT = Path(__file__).parents[2]
# The script logs to Weights & Biases; this stands in for it and notes what is logged.
WANDB = """
import json
class Run:
    def log(self, values):
        with open("log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\\n")
def init(**settings):
    return Run()
"""
# torchmetrics imports torchvision, whose build for GPUs needs help beside a torch without.
RUN = """
import runpy, sys
from neurobridge_tb.vision_imports import prepare_torchvision
prepare_torchvision()
sys.argv = ["train_simple.py", *sys.argv[1:]]
runpy.run_path("train_simple.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def reaches(tmp_path_factory):
    """A simulated recording in the layout of the Neural Latents Benchmark's MC_Maze; returns the root of datasets."""
    root = tmp_path_factory.mktemp("processed")
    rng = np.random.default_rng(0)
    n_units, rate, seconds = 40, 100.0, 60.0
    times = np.arange(0, seconds, 1 / rate)
    velocity = 100 * np.stack([np.sin(2 * times) * np.cos(0.3 * times), np.cos(1.7 * times)], axis=1)
    counts = rng.poisson(np.exp(1.5 + 0.01 * velocity @ rng.normal(0, 1, (2, n_units))) / rate)
    bins, units = np.repeat(np.argwhere(counts > 0), counts[counts > 0], axis=0).T
    order = np.argsort(at := times[bins] + rng.uniform(0, 1 / rate, len(bins)))
    starts = np.arange(0.0, seconds, 2.0)
    data = Data(
        brainset=BrainsetDescription(
            id="pei_pandarinath_nlb_2021", origin_version="simulated", derived_version="1", source="simulated",
            description="simulated",
        ),
        session=SessionDescription(id="jenkins_maze_train", recording_date=None),
        spikes=IrregularTimeSeries(timestamps=at[order], unit_index=units[order], domain="auto"),
        units=ArrayDict(id=np.array([f"unit{i}" for i in range(n_units)])),
        hand=RegularTimeSeries(sampling_rate=rate, vel=velocity, domain_start=0.0),
        nlb_eval_intervals=Interval(start=starts + 0.3, end=starts + 1.7),
        train_domain=Interval(start=starts[:24], end=starts[:24] + 2.0),
        valid_domain=Interval(start=starts[24:], end=starts[24:] + 1.99),
        domain="auto",
    )  # fmt: skip
    (root / "pei_pandarinath_nlb_2021").mkdir()
    with h5py.File(root / "pei_pandarinath_nlb_2021" / "jenkins_maze_train.h5", "w") as file:
        data.to_hdf5(file)
    return root


@pytest.mark.parametrize("target", ["neurobridge_tb.NeuroBridgeModel", "torch_brain.models.POYO"])
def test_upstreams_training_script_trains_either_model(checkout, reaches, tmp_path, target):
    (tmp_path / "wandb.py").write_text(WANDB)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    size = ("model.dim=32", "model.depth=2", "model.dim_head=16", "model.num_latents_per_step=8", "model.lin_dropout=0")
    run = ("epochs=25", "batch_size=8", "num_workers=0", "optim.base_lr=1e-3", f"hydra.run.dir={tmp_path}")
    command = [sys.executable, "-c", RUN, "--config-name", "train_mc_maze_small", f"data_root={reaches}"]
    script = checkout / "examples" / "poyo"
    (script / "log.jsonl").unlink(missing_ok=True)
    done = subprocess.run(
        [*command, f"model._target_={target}", *size, *run], cwd=script, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in (script / "log.jsonl").read_text().splitlines()]
    losses = [values["train/loss"] for values in logged if "train/loss" in values]
    r2 = [values["val/avg_metric"] for values in logged if "val/avg_metric" in values]
    print(target, "loss", np.mean(losses[:5]), np.mean(losses[-5:]), "R2", r2[0], r2[-1])
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert r2[-1] > 0.5
