"""The Neural Latents Benchmark's own tools read our simulated files as we do, and score what we write as we do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import BinnedRecordings, save_recording
from neurobridge_tb.datasets.readers import read_mc_maze
from neurobridge_tb.scoring.submissions.neural_latents import write_nlb_rates

pytestmark = pytest.mark.beside

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from nlb_files import simulate_mc_maze  # noqa: E402

SCORE = """
import json, sys
import numpy
nan_to_num = numpy.nan_to_num  # nlb_tools overwrites arrays that pandas 3 no longer lends for writing
numpy.nan_to_num = lambda values, copy=True, **filled: nan_to_num(values, **filled)
from nlb_tools.evaluation import evaluate
from nlb_tools.make_tensors import make_eval_target_tensors
from nlb_tools.nwb_interface import NWBDataset

folder, submission, bin_ms = sys.argv[1:]
dataset = NWBDataset(folder, "*train", split_heldout=True)
dataset.resample(int(bin_ms))
targets = make_eval_target_tensors(dataset, "mc_maze_small", "train", "val", save_file=False, include_psth=False)
(scores,) = [row["mc_maze_scaling_split" if bin_ms == "5" else "mc_maze_scaling_20_split"]
             for row in evaluate({name: {k: Array(v) for k, v in arrays.items()} for name, arrays in targets.items()},
                                 submission)]
print(json.dumps({name.split(" ", 1)[1]: float(value) for name, value in scores.items()}))
"""
# The scorer reads arrays of a file by [()]; so do its targets here, which come from memory.
ARRAY = """
class Array:
    def __init__(self, values):
        self.values = values
    def __getitem__(self, key):
        return self.values
"""


@pytest.mark.parametrize("bin_ms", [5, 20])
def test_the_benchmarks_tools_find_what_we_find(tmp_path, bin_ms):
    tools = tmp_path / "tools"  # its pin of pandas is not ours
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tools, "nlb_tools==0.0.4"]
    subprocess.run(pip, check=True)
    (tmp_path / "nwb").mkdir()
    files = simulate_mc_maze(tmp_path / "nwb")
    save_recording(read_mc_maze(*files), tmp_path / "mc_maze_small.h5")
    dataset = BinnedRecordings(tmp_path)
    torch.manual_seed(0)
    model = NeuroBridgeModel(
        sequence_length=0.9, latent_step=0.1, bin_size=bin_ms / 1000, dim=32, depth=1, dim_head=16, num_factors=8
    )
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    ours = write_nlb_rates(model, dataset, "mc_maze_small", out=tmp_path / "rates.hdf5")["NeuroBridge"]
    command = [sys.executable, "-c", ARRAY + SCORE, str(tmp_path / "nwb"), str(tmp_path / "rates.hdf5"), str(bin_ms)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tools), str(Path(__file__).parents[2])])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    for name in ("co-bps", "fp-bps"):
        assert theirs[name] == pytest.approx(ours[name], abs=1e-5), (theirs, ours)
    assert "vel R2" in theirs
