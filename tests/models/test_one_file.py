"""The model as one file, for upstream's ``torch_brain/models``: the same outputs, without our package."""

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "exported_neurobridge.py"
    subprocess.run([sys.executable, ROOT / "contrib" / "one_file.py", path], check=True)
    return path


def test_outputs_are_equal(exported, binned_root):
    spec = importlib.util.spec_from_file_location("exported_neurobridge", exported)
    module = sys.modules["exported_neurobridge"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dataset = BinnedRecordings(binned_root)
    settings = dict(modality="spike_counts", sequence_length=1.0, latent_step=0.25, dim=32, depth=2, dim_head=16)
    torch.manual_seed(0)
    ours = NeuroBridgeModel(**settings)
    ours.init_vocabs(dataset)
    ours.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    theirs = module.NeuroBridgeModel(**settings)
    theirs.init_vocabs(dataset)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    windows = [dataset[DatasetIndex("session0", start, start + 1.0)] for start in (2.0, 7.5)]
    losses = []
    for model in (ours.eval(), theirs.eval()):
        batch = collate([model.tokenize_with_targets(window) for window in windows])
        output = model(**batch["model_inputs"])
        losses.append((output, model.masked_loss(output, batch)))
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_it_needs_torch_brain_alone(exported):
    code = (
        "import sys, exported_neurobridge as m; m.NeuroBridgeModel(sequence_length=1.0, latent_step=0.25, dim_out=2); "
        "assert not [name for name in sys.modules if name.startswith('neurobridge_tb.')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=exported.parent, check=True)
