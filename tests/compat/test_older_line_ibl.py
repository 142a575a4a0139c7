"""On the older line the IBL pipeline runs under ``brainsets.pipeline``, and POYO+ decodes the wheel's velocity."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")
pytest.importorskip("pyarrow")

import h5py
import numpy as np
import torch
from brainsets import runner
from brainsets.pipeline import BrainsetPipeline
from temporaldata import Data
from torch_brain.models import POYOPlus

from neurobridge_tb import MODALITY_REGISTRY  # upstream's own, with our entries
from neurobridge_tb._upstream import collate
from neurobridge_tb.datasets import IblBrainWideMap2025, is_simulated
from neurobridge_tb.simulation import simulate_ibl_sessions

PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / "ibl_brain_wide_map_2025" / "pipeline.py"
ID = "simulatedlab_SIM_000_2025-01-01_001"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A simulated session's folder below ``raw``, prepared by upstream's runner in this process."""
    root = tmp_path_factory.mktemp("older_line_ibl")
    (folder,) = simulate_ibl_sessions(root, seconds=60, n_units=8)
    arguments = [f"--raw-dir={root / 'raw'}", f"--processed-dir={root / 'processed'}", f"--single={ID}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["runner", str(PIPELINE), *arguments])
        runner.run()
    return folder


@pytest.fixture
def processed(session):
    return session.parents[6] / "processed"


def test_it_is_a_pipeline_of_this_line():
    assert issubclass(runner.import_pipeline_cls_from_file(PIPELINE), BrainsetPipeline)


def test_temporaldata_opens_the_file_and_a_window_is_the_raw_spikes_of_that_time(session, processed):
    raw = {name: np.load(session / f"alf/probe00/pykilosort/spikes.{name}.npy") for name in ("times", "clusters")}
    with h5py.File(processed / "ibl_brain_wide_map_2025" / f"{ID}.h5") as file:
        window = Data.from_hdf5(file).slice(30.0, 31.0)
        assert window.brainset.origin_version == "simulated"
        for row in np.flatnonzero(window.units.probe == "probe00"):
            due = raw["times"][raw["clusters"] == window.units.cluster[row]]
            mine = window.spikes.timestamps[window.spikes.unit_index == row]
            np.testing.assert_allclose(mine + 30, due[(due >= 30) & (due < 31)], atol=1e-9)
        assert window.wheel.velocity.shape[1] == 1 and abs(len(window.wheel.velocity) - 1000) <= 1
        assert window.units.reference_features.shape == (16, 33)


def test_poyo_plus_decodes_the_wheels_velocity(processed):
    dataset = IblBrainWideMap2025(root=processed)
    assert is_simulated(dataset)
    start = float(dataset.get_sampling_intervals("train")[ID].start[0])
    window = dataset.get_recording(ID).slice(start, start + 1.0)
    window.config = {"multitask_readout": [{"readout_id": "wheel_velocity"}]}
    spec = replace(MODALITY_REGISTRY["wheel_velocity"], id=1)
    model = POYOPlus(
        sequence_length=1.0, latent_step=0.25, num_latents_per_step=4, dim=32, dim_head=16, depth=1,
        readout_specs={"wheel_velocity": spec},
    )  # fmt: skip
    model.unit_emb.initialize_vocab(dataset.get_unit_ids())
    model.session_emb.initialize_vocab(dataset.recording_ids)
    batch = collate([model.tokenize(window)])
    output, target = model(**batch["model_inputs"])["wheel_velocity"], batch["target_values"]["wheel_velocity"]
    assert output.shape == target.shape and target.shape[1] == 1
    loss = spec.loss_fn(output, target, batch["target_weights"]["wheel_velocity"])
    loss.backward()
    assert torch.isfinite(loss) and model.unit_emb.weight.grad.any()
