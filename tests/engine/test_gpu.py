"""On a GPU: a training step, a whole training and its scores as on the CPU, compiled, in bfloat16 and in TF32.

NEUROBRIDGE_DEVICE names another device than cuda.
"""

import json
import os

import pytest
import torch

from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.score import score

DEVICE = os.environ.get("NEUROBRIDGE_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no GPU here"),
]


def scores(run):
    return [row["model"] for row in json.loads((run / "metrics.json").read_text())["rows"]]


def trained(root, run_dir, **settings):
    short = dict(dataset="binned", model="tiny", batch_size=16, max_epochs=2, enable_progress_bar=False)
    return pretrain(root=root, run_dir=run_dir, **short | settings)


@pytest.fixture(scope="module")
def on_cpu(binned_root, tmp_path_factory):
    return trained(binned_root, tmp_path_factory.mktemp("cpu") / "run", device="cpu")


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-3), ({"precision": "tf32"}, 0.02), ({"precision": "bf16-mixed"}, 0.05)],
    ids=["float32", "tf32", "bfloat16"],
)
def test_a_training_and_its_scores_are_those_of_the_cpu(binned_root, tmp_path, on_cpu, settings, tolerance):
    run = trained(binned_root, tmp_path / "run", device=DEVICE, **settings)
    assert scores(run) == pytest.approx(scores(on_cpu), abs=tolerance)


def test_a_model_is_scored_alike(binned_root, tmp_path, on_cpu):
    rows = []
    for device in ("cpu", DEVICE):
        run = score(root=binned_root, pretrained=on_cpu / "model", run_dir=tmp_path / device, device=device, held_out=4)
        content = json.loads((run / "metrics.json").read_text())
        rows.append([row["scores"]["NeuroBridge"]["value"] for row in content["rows"]])
    assert rows[1] == pytest.approx(rows[0], abs=1e-4)
