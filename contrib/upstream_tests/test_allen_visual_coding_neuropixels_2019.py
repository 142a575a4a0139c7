"""``brainsets prepare allen_visual_coding_neuropixels_2019`` on a tiny session in the
layout of the published NWB files."""

import sys

import h5py
import numpy as np
import pytest
from _utils import add_pipelines_to_path

from torch_brain.datasets import AllenVisualCodingNeuropixels2019
from torch_brain.pipeline import runner
from torch_brain.pipeline._cli.utils import PIPELINES_PATH

add_pipelines_to_path()
BRAINSET = "allen_visual_coding_neuropixels_2019"
PIPELINE = PIPELINES_PATH / BRAINSET / "pipeline.py"
N_UNITS, N_SCENES, STEP = 6, 240, 0.25
PASSES = np.array([True, True, False, True, False, True])


@pytest.fixture
def spikes(tmp_path):
    """Spike times per unit, as the session's file holds them: unit after unit."""
    rng = np.random.default_rng(0)
    end = N_SCENES * STEP
    spikes = [np.sort(rng.uniform(0, end, 50 + 10 * i)) for i in range(N_UNITS)]
    folder = tmp_path / "raw" / BRAINSET / "session_1"
    folder.mkdir(parents=True)
    with h5py.File(folder / "session_1.nwb", "w") as file:
        units = file.create_group("units")
        units["id"] = np.arange(N_UNITS) + 100
        units["spike_times"] = np.concatenate(spikes)
        units["spike_times_index"] = np.cumsum([len(times) for times in spikes])
        units["peak_channel_id"] = np.arange(N_UNITS) + 10
        quality = np.where(PASSES | (np.arange(N_UNITS) == 4), "good", "noise")
        units["quality"] = quality.astype(h5py.string_dtype())
        units["isi_violations"] = np.where(np.arange(N_UNITS) == 4, 0.9, 0.1)
        units["amplitude_cutoff"] = np.full(N_UNITS, 0.01)
        units["presence_ratio"] = np.full(N_UNITS, 0.99)
        units["firing_rate"] = units["snr"] = np.full(N_UNITS, 2.0)
        electrodes = file.create_group("general/extracellular_ephys/electrodes")
        electrodes["id"] = np.arange(N_UNITS) + 10
        areas = np.array(["VISp", "LGd"] * (N_UNITS // 2))
        electrodes["location"] = areas.astype(h5py.string_dtype())
        probes = np.full(N_UNITS, "probeA")
        electrodes["group_name"] = probes.astype(h5py.string_dtype())
        electrodes["probe_vertical_position"] = 20.0 * np.arange(N_UNITS)
        scenes = file.create_group("intervals/natural_scenes_presentations")
        scenes["start_time"] = STEP * np.arange(N_SCENES)
        scenes["stop_time"] = STEP * np.arange(1, N_SCENES + 1)
        scenes["frame"] = np.arange(N_SCENES) % 20 - 1.0
    return spikes


@pytest.fixture
def dataset(spikes, tmp_path, monkeypatch):
    folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path}"]
    command = ["runner", str(PIPELINE), *folders, "--single=1"]
    monkeypatch.setattr(sys, "argv", command)
    runner.run()
    return AllenVisualCodingNeuropixels2019(str(tmp_path))


def test_spikes_of_units_that_pass_in_order_of_time(dataset, spikes):
    recording = dataset.get_recording("1")
    kept = np.flatnonzero(PASSES)
    assert recording.units.id.tolist() == [str(100 + i) for i in kept]
    assert recording.units.area.tolist() == ["VISp", "LGd", "LGd", "LGd"]
    assert (np.diff(recording.spikes.timestamps) >= 0).all()
    for row, unit in enumerate(kept):
        own = recording.spikes.timestamps[recording.spikes.unit_index == row]
        np.testing.assert_array_equal(own, spikes[unit])


def test_scenes_are_named_and_counted(dataset):
    scenes = dataset.get_recording("1").natural_scenes
    assert scenes.image_id[:2].tolist() == ["blank", "natural_scene_0.tiff"]
    assert scenes.blank.sum() == N_SCENES // 20
    assert scenes.repeat.max() == N_SCENES // 20 - 1


def test_no_presentation_is_in_two_splits(dataset):
    recording = dataset.get_recording("1")
    splits = ("train", "valid", "test")
    domains = [dataset.get_sampling_intervals(split)["1"] for split in splits]
    lengths = [float((d.end - d.start).sum()) for d in domains]
    assert min(lengths) > 0
    scenes = recording.natural_scenes
    for domain, split in zip(domains, splits, strict=True):
        for start, end in zip(domain.start, domain.end, strict=True):
            inside = (scenes.start >= start) & (scenes.end <= end)
            assert set(scenes.split[inside]) <= {split}
