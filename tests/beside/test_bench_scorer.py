"""BrainWideBench's own scorer reads what we write, and finds the Poisson D2 that we find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import IblBrainWideBench2026
from neurobridge_tb.metrics.spikes import poisson_d2
from neurobridge_tb.scoring.submissions.brain_wide_bench import FORMAT, TASKS, write_bench_predictions

pytestmark = pytest.mark.beside

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from bwb_files import simulate_session, write_ground_truth  # noqa: E402

SCORE = """
import json, sys
from neurobridge_tb.vision_imports import prepare_torchvision
prepare_torchvision()  # torchmetrics imports torchvision, whose build for GPUs needs help beside a torch without
from ibl_bwb_eval.scoring.ts2 import score_dir
print(json.dumps({key[1]: value for key, value in score_dir(*sys.argv[1:]).items()}))
"""


def test_the_scorer_finds_what_we_find(tmp_path):
    scorer = tmp_path / "scorer"  # its pins are not ours
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", scorer, f"ibl-bwb-eval=={FORMAT}"]
    subprocess.run(pip, check=True)
    simulate_session(tmp_path)
    dataset = IblBrainWideBench2026(tmp_path / "selected_units", regime="eval")
    (session,) = dataset.recording_ids
    torch.manual_seed(0)
    model = NeuroBridgeModel(sequence_length=1.0, latent_step=0.25, dim=32, depth=1, dim_head=16)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    ours = {}
    for task in TASKS:
        path = write_bench_predictions(model, dataset, session, task, out=tmp_path / "pred", label="x", seed=43)
        with safe_open(path, framework="pt") as file:
            log_rates, starts = file.get_tensor("predictions").double(), file.get_tensor("window_timestamps")
        counts = write_ground_truth(tmp_path / "truth", dataset, session, task, starts.numpy())
        counts = counts.reshape(-1, counts.shape[-1])
        rates = log_rates.exp().reshape(counts.shape).numpy()
        mean = np.maximum(counts.mean(0), 1e-9)
        # The scorer takes the mean over units, of each unit's own.
        d2 = [poisson_d2(rates[:, [u]], counts[:, [u]], mean[[u]]) for u in range(len(mean))]
        ours[f"ts2-{task}"] = float(np.mean(d2))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(scorer)])}
    command = [sys.executable, "-c", SCORE, str(tmp_path / "pred"), str(tmp_path / "truth")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert set(theirs) == set(ours)
    for task, d2 in ours.items():
        assert theirs[task]["poisson_d2"] == pytest.approx(d2, abs=1e-3), (theirs, ours)
