"""The example that prepares a motor-cortex recording: trials, splits and values."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.errors import InputError


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[2] / "examples" / "prepare_m1_center_out.py"
    spec = importlib.util.spec_from_file_location("prepare_m1_center_out", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(example, source, out, bin_width, sizes):
    """Each trial's window holds the rows of that trial, and the splits are the trials in order."""
    content = scipy.io.loadmat(source)
    X, Y = content["X"], content["Y"]
    edges = np.append(np.flatnonzero((X[:, 2:] == 0).all(1)), len(X))
    dataset = BinnedRecordings(example.prepare(source, out, bin_width).parent)
    intervals = [dataset.get_sampling_intervals(split)["m1_center_out"] for split in ("train", "valid", "test")]
    assert [len(i) for i in intervals] == sizes
    trial = 0
    for interval in intervals:
        for start, end in interval:
            sample = dataset[DatasetIndex("m1_center_out", start, end)]
            rows = slice(edges[trial], edges[trial + 1])
            np.testing.assert_array_equal(sample.spike_counts.value, Y[rows])
            np.testing.assert_array_equal(sample.hand.velocity, X[rows, 2:])
            np.testing.assert_array_equal(sample.hand.position, X[rows, :2])
            trial += 1
    return dataset


def test_trials_and_splits_of_a_small_file(example, tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 9, 150)
    X = rng.normal(size=(lengths.sum(), 4))
    X[np.cumsum([0, *lengths[:-1]]), 2:] = 0
    scipy.io.savemat(tmp_path / "x.mat", {"X": X, "Y": rng.poisson(1.0, (len(X), 5))})
    check(example, tmp_path / "x.mat", tmp_path / "out", 0.1, [20, 100, 30])


@pytest.mark.recordings
def test_real_recording(example, recordings_dir, tmp_path):
    source = recordings_dir / "recordings" / "m1_center_out" / "contdata95.mat"
    dataset = check(example, source, tmp_path, 0.05, [1064, 100, 292])
    assert len(dataset.get_unit_ids()) == 95 and dataset.get_unit_ids()[0] == "m1/ch00"


def test_bad_files_are_named(example, tmp_path):
    (tmp_path / "x.mat").write_bytes(b"no mat file, but long enough to have a header" * 9)
    with pytest.raises(InputError, match="X \\(bins, 4\\) and Y"):
        example.prepare(tmp_path / "x.mat", tmp_path, 0.05)
    scipy.io.savemat(tmp_path / "y.mat", {"X": np.ones((9, 4))})
    with pytest.raises(InputError, match="Found shapes \\{'X': \\(9, 4\\)\\}"):
        example.prepare(tmp_path / "y.mat", tmp_path, 0.05)
    scipy.io.savemat(tmp_path / "z.mat", {"X": np.ones((9, 4)), "Y": np.ones((9, 2))})
    with pytest.raises(InputError, match="0 trial starts"):
        example.prepare(tmp_path / "z.mat", tmp_path, 0.05)
