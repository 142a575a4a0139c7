"""The example that prepares ALF files: spikes, and wheel and trials only where they are asked for."""

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
    path = Path(__file__).parents[2] / "examples" / "prepare_alf.py"
    spec = importlib.util.spec_from_file_location("prepare_alf", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def alf(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "spikes.times.npy", np.sort(rng.uniform(0, 60, 5000)))
    np.save(tmp_path / "spikes.clusters.npy", rng.choice([3, 17, 250], 5000).astype(np.uint32))
    np.save(tmp_path / "_ibl_wheel.timestamps.npy", np.linspace(-1, 70, 1000))
    np.save(tmp_path / "_ibl_wheel.position.npy", rng.normal(size=1000))
    return tmp_path


def check(path, folder, end):
    """Windows hold the source's spikes of that time, of the same clusters; returns the recording."""
    times, clusters = np.load(folder / "spikes.times.npy"), np.load(folder / "spikes.clusters.npy")
    dataset = BinnedRecordings(path.parent, [path.stem])
    for start in np.linspace(0, end - 2, 9):
        window = dataset[DatasetIndex(path.stem, start, start + 2)]
        inside = (times >= start) & (times < start + 2)
        assert inside.any()
        np.testing.assert_allclose(window.spikes.timestamps, times[inside] - start, atol=1e-9)
        np.testing.assert_array_equal(window.units.cluster[window.spikes.unit_index], clusters[inside])
    recording = dataset.get_recording(path.stem)
    assert recording.domain.end[-1] == end and len(recording.spikes.timestamps) == len(times)
    borders = [dataset.get_sampling_intervals(split)[path.stem] for split in ("train", "valid", "test")]
    np.testing.assert_allclose(
        [(b.start[0], b.end[0]) for b in borders], np.array([[0, 7], [7, 8], [8, 10]]) * end / 10
    )
    assert find_faults(path) == []
    return recording


def test_spikes_alone_unless_asked_for_more(example, alf):
    recording = check(example.prepare(alf, alf / "out", session="m1", end=60.0), alf, 60.0)
    assert recording.units.id.tolist() == ["m1/c0003", "m1/c0017", "m1/c0250"]
    assert not {"wheel", "trials"} & set(recording.keys())


def test_wheel_and_trials_of_the_same_recording(example, alf):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = {
        "stimOn_times": [np.nan, 5.0, 20.0, 59.0],
        "response_times": [4.0, 6.0, 22.5, 61.0],
        "choice": [1, -1, 1, 1],
    }
    pd.DataFrame(table).to_parquet(alf / "_ibl_trials.table.pqt")
    recording = check(example.prepare(alf, alf / "out", session="m1", end=60.0, wheel=True, trials=True), alf, 60.0)
    moments = np.load(alf / "_ibl_wheel.timestamps.npy")
    inside = (moments >= 0) & (moments <= 60)
    np.testing.assert_array_equal(recording.wheel.timestamps, moments[inside])
    np.testing.assert_array_equal(recording.wheel.position, np.load(alf / "_ibl_wheel.position.npy")[inside])
    assert recording.trials.start.tolist() == [5.0, 20.0] and recording.trials.choice.tolist() == [-1, 1]


@pytest.mark.recordings
def test_real_spikes(example, recordings_dir, tmp_path):
    folder = recordings_dir / "recordings" / "ibl_alf"
    recording = check(example.prepare(folder, tmp_path, session="s", end=120.0), folder, 120.0)
    assert len(recording.units.id) == 289


def test_bad_files_are_named(example, alf):
    np.save(alf / "spikes.clusters.npy", np.arange(3))
    with pytest.raises(InputError, match=r"shapes \(5000,\) and \(3,\)"):
        example.prepare(alf, alf / "out", session="m1")
    (alf / "spikes.clusters.npy").unlink()
    with pytest.raises(InputError, match="spikes.clusters.npy"):
        example.prepare(alf, alf / "out", session="m1")
    with pytest.raises(InputError, match="a trials table"):
        example.read_trials(alf, 60.0)
