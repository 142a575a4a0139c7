"""Two processes on the CPU train as one process with twice the batch does."""

import json
import os
import runpy
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.engine import masked_training
from neurobridge_tb.engine.run_folder import read_metrics

# Each process writes down which windows it trained and validated on; Lightning starts this script once more itself.
SCRIPT = """
import json, sys
from pathlib import Path
from neurobridge_tb.engine import masked_training as job
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.engine.config import compose_config

seen = {"train": [], "val": []}

class Noting(job.PretrainingModule):
    def note(self, kind, batch, *more):
        seen[kind] += [[self.current_epoch, *more, s, round(t, 6)]
                       for s, t in zip(batch["session_id"], batch["absolute_start"].tolist())]
    def training_step(self, batch, batch_index):
        self.note("train", batch)
        return super().training_step(batch, batch_index)
    def validation_step(self, batch, batch_index, dataloader_idx=0):
        if not self.trainer.sanity_checking:
            self.note("val", batch, self.schemes[dataloader_idx])
        super().validation_step(batch, batch_index, dataloader_idx)
    def on_fit_end(self):
        Path(self.trainer.default_root_dir, f"seen{self.global_rank}.json").write_text(json.dumps(seen))

job.PretrainingModule = Noting
pretrain(compose_config("pretrain", sys.argv[1:]))
"""


def arguments(root, run_dir, *overrides):
    return [
        "model=tiny", "dataset=binned", f"dataset.root={root}", f"run_dir={run_dir}", "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false", "device=cpu", "optimizer.lr=5e-3", "ema=0.9",
        *overrides,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one process with batches of 8, and of two with 4 each; what each of their processes saw.

    Of the 9 validation windows, one process has two batches and the other one.
    """
    folder = tmp_path_factory.mktemp("distributed")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    drive = np.sin(np.arange(980)[:, None] * 0.3 + np.arange(12))
    recording = build_recording(
        brainset_id="test",
        session_id="session",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(12)]},
        counts=(np.random.default_rng(0).poisson(np.exp(drive)).astype(np.uint8), 0.05),
        splits={"train": ([0.0], [40.0]), "valid": ([40.0], [49.0])},
        simulated=True,
    )
    save_recording(recording, folder / "data" / "session.h5")
    one = arguments(folder / "data", folder / "one", "loader.batch_size=8")
    with (
        patch("sys.argv", ["train.py", *one]),
        patch.object(masked_training, "PretrainingModule", masked_training.PretrainingModule),
    ):
        runpy.run_path(str(script))
    two = arguments(
        folder / "data", folder / "two", "loader.batch_size=4", "trainer.devices=2", "trainer.strategy=ddp"
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *two], env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [[json.loads(path.read_text()) for path in sorted((folder / r).glob("seen*"))] for r in ("one", "two")]
    return folder, *seen


def keys(rows):
    return [tuple(row) for row in rows]


def test_no_window_is_seen_twice_and_together_they_see_what_one_process_sees(runs):
    _, (one,), two = runs
    assert len(two) == 2
    for kind, count in (("train", 2 * 40), ("val", 3 * 2 * 9)):  # two epochs, validated before them too; two schemes
        together = [key for process in two for key in keys(process[kind])]
        assert len(together) == count
        assert sorted(together) == sorted(keys(one[kind]))
    assert len(set(keys(one["train"]))) == 2 * 40


def test_the_losses_are_those_of_one_process(runs):
    folder, *_ = runs
    one, two = (pd.read_csv(folder / name / "metrics.csv") for name in ("one", "two"))
    assert set(one) == set(two)
    for column in ("train/loss", "val/loss", "val/loss/neuron", "val/loss/temporal"):
        np.testing.assert_allclose(two[column].dropna(), one[column].dropna(), rtol=2e-4)


def test_one_process_writes_the_results(runs):
    folder, *_ = runs
    scores = [[row["model"] for row in read_metrics(folder / name)["rows"]] for name in ("one", "two")]
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-3)
