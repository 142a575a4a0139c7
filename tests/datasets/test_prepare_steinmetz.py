"""The example that prepares sessions given as trials: bins, units, trial columns and splits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.errors import InputError


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[2] / "examples" / "prepare_steinmetz.py"
    spec = importlib.util.spec_from_file_location("prepare_steinmetz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_session(folder, n_trials=50, n_units=7, **changes):
    rng = np.random.default_rng(0)
    onset = np.cumsum(rng.uniform(3, 9, n_trials)) + 70
    session = {
        "counts": rng.poisson(0.3, (n_trials, n_units, 40)).astype(np.uint8),
        "bin_times": (onset[:, None] + 0.01 * np.arange(40)).astype(np.float32),
        "contrast_left": rng.choice([0, 0.25, 0.5, 1], n_trials).astype(np.float32),
        "contrast_right": rng.choice([0, 0.25, 0.5, 1], n_trials).astype(np.float32),
        "feedback": rng.choice([-1, 1], n_trials).astype(np.int8),
        "brain_area": np.array(["VISp", "root"])[np.arange(n_units) % 2],
        "mouse": np.array("Cori"),
        "date": np.array("2016-12-14"),
    } | changes
    np.savez(folder / "session_01.npz", **session)
    return folder / "session_01.npz"


def check(path, source):
    """All counts are there, and windows of trials hold their counts and columns; returns the Dataset."""
    session = dict(np.load(source))
    dataset = BinnedRecordings(path.parent, [path.stem])
    recording = dataset.get_recording(path.stem)
    np.testing.assert_allclose(recording.trials.recorded_start, session["bin_times"][:, 0])
    np.testing.assert_array_equal(recording.spike_counts.value, np.concatenate(session["counts"].swapaxes(1, 2)))
    parts = {split: dataset.get_sampling_intervals(split)[path.stem] for split in ("train", "valid", "test")}
    seen = []
    for interval in parts.values():
        for start, end in interval:
            k = round(start / 0.4)
            seen.append(k)
            if len(seen) % 10 != 1:
                continue
            window = dataset[DatasetIndex(path.stem, start, end)]
            np.testing.assert_array_equal(window.spike_counts.value, session["counts"][k].T)
            for name in ("contrast_left", "contrast_right", "feedback"):
                assert getattr(window.trials, name).tolist() == [session[name][k]]
    n = len(session["counts"])
    assert seen == list(range(n))  # train, valid, test: one after the other
    assert [len(part) for part in parts.values()] == np.diff(np.round([0, 0.7 * n, 0.8 * n, n])).astype(int).tolist()
    assert window.units.area.tolist() == session["brain_area"].tolist()
    assert [f for f in find_faults(path) if f.is_error] == []
    return dataset


def test_a_session(example, tmp_path):
    source = write_session(tmp_path)
    path = example.prepare(source, tmp_path / "out")
    assert path.name == "steinmetz_01_Cori_2016-12-14.h5"
    assert check(path, source).get_unit_ids()[0] == "steinmetz_01_Cori_2016-12-14/u0000"


@pytest.mark.recordings
@pytest.mark.parametrize("number", range(1, 7))
def test_real_sessions(example, recordings_dir, tmp_path, number):
    source = recordings_dir / "recordings" / "steinmetz" / f"session_{number:02d}.npz"
    dataset = check(example.prepare(source, tmp_path), source)
    assert len(dataset.get_unit_ids()) == (734, 1070, 619, 1769, 1077, 1169)[number - 1]


def test_bad_files_are_named(example, tmp_path):
    (tmp_path / "session_02.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="session_02.npz"):
        example.prepare(tmp_path / "session_02.npz", tmp_path)
    with pytest.raises(InputError, match="shapes that do not fit"):
        example.prepare(write_session(tmp_path, feedback=np.ones(3)), tmp_path)
    with pytest.raises(InputError, match="other steps in bin_times"):
        example.prepare(write_session(tmp_path, bin_times=np.arange(2000.0).reshape(50, 40)), tmp_path)
    assert not list(tmp_path.glob("*.h5"))
