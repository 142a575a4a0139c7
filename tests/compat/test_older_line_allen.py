"""On the older line the Allen pipeline runs under ``brainsets.pipeline``, and its windows are those of the new line."""

import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

import h5py
import numpy as np
import torch
from brainsets import runner
from brainsets.pipeline import BrainsetPipeline
from temporaldata import Data
from torch_brain.models import POYOPlus
from torch_brain.registry import MODALITY_REGISTRY

from neurobridge_tb._upstream import collate
from neurobridge_tb.datasets import AllenVisualCodingNeuropixels2019, is_simulated

PIPELINE_TESTS = Path(__file__).parents[1] / "pipelines"
sys.path.insert(0, str(PIPELINE_TESTS))  # where its own imports are found
RAW = runpy.run_path(str(PIPELINE_TESTS / "allen_raw.py"))


@pytest.fixture(scope="module")
def nwb(tmp_path_factory):
    return RAW["simulate"](tmp_path_factory.mktemp("older_line_allen"))


@pytest.fixture(scope="module")
def prepared(nwb):
    """The HDF5 file that upstream's runner makes in this process."""
    return RAW["run_pipeline"](runner, nwb.parents[3])


def test_it_is_a_pipeline_of_this_line():
    assert issubclass(runner.import_pipeline_cls_from_file(RAW["PIPELINE"]), BrainsetPipeline)


def test_temporaldata_opens_the_file_and_a_window_is_the_raw_spikes_of_that_time(prepared, nwb):
    with h5py.File(nwb) as file:
        ids, ends = file["units/id"][:].astype(str), file["units/spike_times_index"][:]
        raw = dict(zip(ids, np.split(file["units/spike_times"][:], ends[:-1]), strict=True))
        speed = file["processing/running/running_speed/data"][:]
    with h5py.File(prepared) as file:
        data = Data.from_hdf5(file)
        assert data.brainset.origin_version == "simulated" and data.subject.age == 118
        window = data.slice(60.0, 61.0)
        for number, unit in enumerate(window.units.id):
            times = raw[unit][(raw[unit] >= 60) & (raw[unit] < 61)]
            mine = window.spikes.timestamps[window.spikes.unit_index == number]
            np.testing.assert_allclose(mine + 60, times, atol=1e-9)
        np.testing.assert_allclose(window.running.running_speed[:, 0], speed[3600:3660], rtol=1e-6)


def test_our_dataset_reads_it_and_splits_it(prepared):
    dataset = AllenVisualCodingNeuropixels2019(root=prepared.parents[1], split_type="natural_scenes")
    assert is_simulated(dataset) and dataset.recording_ids == ["1"]
    sizes = {split: len(dataset.get_sampling_intervals(split)["1"]) for split in ("train", "valid", "test")}
    assert sizes["train"] > sizes["valid"] > 0 < sizes["test"]


def test_poyo_plus_decodes_running_speed_and_natural_scenes_with_upstreams_own_modalities(prepared):
    dataset = AllenVisualCodingNeuropixels2019(root=prepared.parents[1])
    scenes = dataset.get_recording("1").natural_scenes
    start = float(scenes.start[scenes.split == "train"][0])
    window = dataset.get_recording("1").slice(start, start + 1.0)
    window.config = {"multitask_readout": [{"readout_id": name} for name in ("running_speed", "natural_scenes")]}
    model = POYOPlus(sequence_length=1.0, latent_step=0.25, num_latents_per_step=4, dim=32, dim_head=16, depth=1)
    model.unit_emb.initialize_vocab(dataset.get_unit_ids())
    model.session_emb.initialize_vocab(dataset.recording_ids)
    batch = collate([model.tokenize(window)])
    output = model(**batch["model_inputs"])
    for name, n_values in (("running_speed", 1), ("natural_scenes", 119)):
        target, weights = batch["target_values"][name], batch["target_weights"][name]
        assert output[name].shape == (len(target), n_values)
        assert torch.isfinite(MODALITY_REGISTRY[name].loss_fn(output[name], target, weights))
