"""``brainsets prepare papale_tvsd_2025`` on tiny raw files in the published layout."""

import sys

import h5py
import numpy as np
import pytest
from _utils import add_pipelines_to_path

from torch_brain.datasets import PapaleTVSD2025
from torch_brain.pipeline import runner
from torch_brain.pipeline._cli.utils import PIPELINES_PATH

add_pipelines_to_path()
PIPELINE = PIPELINES_PATH / "papale_tvsd_2025" / "pipeline.py"
N_CHANNELS, N_REPEATS = 1024, 3
TRAIN = [f"{concept}/{concept}_{i:02d}b.jpg" for concept in "abcde" for i in range(4)]
TEST = ["a/a_90s.jpg", "c/c_91s.jpg"]


def write_image_names(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        for part, names in (("train", TRAIN), ("test", TEST)):
            references = np.empty((len(names), 1), dtype=h5py.ref_dtype)
            for row, name in enumerate(names):
                name = name.replace("/", "\\").encode("utf-16-le")
                characters = np.frombuffer(name, dtype=np.uint16)[:, None]
                dataset = file.create_dataset(f"#refs#/{part}{row}", data=characters)
                references[row, 0] = dataset.ref
            file.create_dataset(f"{part}_imgs/things_path", data=references)


@pytest.fixture
def responses(tmp_path):
    """Training and test responses, as ``<raw-dir>`` holds them for monkey F."""
    folder = tmp_path / "raw" / "papale_tvsd_2025" / "monkeyF"
    (folder / "_logs").mkdir(parents=True)
    write_image_names(folder / "_logs" / "things_imgs.mat")
    rng = np.random.default_rng(0)
    train = rng.normal(size=(len(TRAIN), N_CHANNELS))
    test = rng.normal(size=(N_REPEATS, len(TEST), N_CHANNELS))
    train[3, 7], test[:, :, 200], train[:, 200] = np.inf, np.nan, np.nan
    with h5py.File(folder / "THINGS_normMUA.mat", "w", userblock_size=512) as file:
        file["train_MUA"], file["test_MUA_reps"] = train, test
        file["SNR_max"] = rng.uniform(0, 9, (N_CHANNELS, 1))
        file["reliab"] = rng.uniform(0, 1, (3, N_CHANNELS))
        file["lats"] = rng.uniform(20, 120, (4, N_CHANNELS))
    return train, test


@pytest.fixture
def dataset(responses, tmp_path, monkeypatch):
    folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path}"]
    command = ["runner", str(PIPELINE), *folders, "--single=monkeyF_norm"]
    monkeypatch.setattr(sys, "argv", command)
    runner.run()
    return PapaleTVSD2025(str(tmp_path))


def test_values_are_the_raw_ones(dataset, responses):
    train, test = responses
    expected = np.concatenate([train, *test]).astype(np.float32)
    expected[~np.isfinite(expected)] = np.nan
    recording = dataset.get_recording("monkeyF_norm")
    np.testing.assert_array_equal(recording.mua.value, expected)
    ids = recording.presentations.image_id.tolist()
    assert ids == TRAIN + TEST * N_REPEATS


def test_splits_are_disjoint_and_test_images_are_repeated(dataset):
    n = {
        split: len(dataset.get_sampling_intervals(split)["monkeyF_norm"])
        for split in ("train", "valid", "test")
    }
    assert n["train"] + n["valid"] == len(TRAIN) and n["valid"] > 0
    assert n["test"] == len(TEST) * N_REPEATS
    recording = dataset.get_recording("monkeyF_norm")
    assert not recording.train_domain & recording.valid_domain


def test_units_know_their_area_and_dead_channels(dataset):
    units = dataset.get_recording("monkeyF_norm").units
    areas = [units.area[c] for c in (0, 511, 512, 831, 832, 1023)]
    assert areas == ["V1", "V1", "IT", "IT", "V4", "V4"]
    assert np.flatnonzero(units.is_dead).tolist() == [200]
    assert len(dataset.get_unit_ids()) == N_CHANNELS
