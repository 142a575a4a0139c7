"""Arrays to recordings and back, and every misfit named."""

import h5py
import numpy as np
import pytest

from neurobridge_tb._upstream import Data, DatasetIndex
from neurobridge_tb.datasets import BinnedRecordings, build_recording, is_simulated, save_recording
from neurobridge_tb.errors import InputError

BIN = 0.02
COUNTS = np.random.default_rng(0).poisson(1.5, (500, 3)).astype(np.uint8)
TIMES = np.sort(np.random.default_rng(1).uniform(5, 15, 2000))
OWNERS = np.random.default_rng(2).integers(0, 3, 2000)
CLOCK = 5 + 0.01 * np.arange(1000)
VELOCITY = np.random.default_rng(3).normal(size=(1000, 2))


def arguments(**changes):
    return {
        "brainset_id": "lab",
        "session_id": "s1",
        "subject_id": "monkey",
        "units": {"id": ["a", "b", "c"], "area": ["V1", "V1", "V4"], "depth": [0.1, 0.2, 0.3]},
        "counts": (COUNTS, BIN),
        "start": 5.0,
        "behavior": {"hand_velocity": (CLOCK, VELOCITY), "hand_position": (CLOCK, VELOCITY.cumsum(0))},
        "trials": {"start": [5.0, 8.0], "end": [8.0, 12.0], "target": ["left", "right"]},
        "splits": {"train": ([5.0, 9.0], [8.0, 12.0]), "valid": ([8.0], [9.0]), "test": ([12.0], [15.0])},
    } | changes


def saved(tmp_path, **changes):
    save_recording(build_recording(**arguments(**changes)), tmp_path / "s1.h5")
    return BinnedRecordings(tmp_path)


def test_windows_hold_the_given_bins_behavior_and_trials(tmp_path):
    sample = saved(tmp_path)[DatasetIndex("s1", 8.0, 9.0)]
    np.testing.assert_array_equal(sample.spike_counts.value, COUNTS[150:200])
    np.testing.assert_allclose(sample.spike_counts.timestamps, BIN * np.arange(50), atol=1e-9)
    inside = (CLOCK >= 8) & (CLOCK < 9)
    np.testing.assert_array_equal(sample.hand.velocity, VELOCITY[inside])
    np.testing.assert_allclose(sample.hand.timestamps, CLOCK[inside] - 8)
    assert sample.hand.position.shape == sample.hand.velocity.shape
    assert sample.trials.target.tolist() == ["right"]
    assert sample.units.area.tolist() == ["V1", "V1", "V4"] and sample.units.depth[2] == 0.3


def test_spikes_keep_time_and_unit(tmp_path):
    sample = saved(tmp_path, counts=None, spikes=(TIMES, OWNERS), end=15.0)[DatasetIndex("s1", 7.0, 8.5)]
    inside = (TIMES >= 7) & (TIMES < 8.5)
    np.testing.assert_allclose(sample.spikes.timestamps, TIMES[inside] - 7)
    np.testing.assert_array_equal(sample.spikes.unit_index, OWNERS[inside])


def test_mua_keeps_nan_as_absent(tmp_path):
    values = np.where(COUNTS == 2, np.nan, COUNTS / 3.0)
    recording = saved(tmp_path, counts=None, mua=(values, BIN)).get_recording("s1")
    np.testing.assert_array_equal(recording.mua.value, values.astype(np.float32))


def test_splits_and_descriptions_are_stored(tmp_path):
    dataset = saved(tmp_path)
    train = dataset.get_sampling_intervals("train")["s1"]
    np.testing.assert_array_equal([train.start, train.end], [[5, 9], [8, 12]])
    whole = dataset.get_sampling_intervals()["s1"]
    assert (whole.start[0], whole.end[-1]) == (5.0, 15.0)
    recording = dataset.get_recording("s1")
    assert (recording.brainset.id, recording.subject.id, recording.session.id) == ("lab", "monkey", "s1")
    assert not is_simulated(dataset)


def test_neighbouring_intervals_may_touch_with_a_rounding_error():
    starts = 5 + 0.1 * np.arange(60)
    recording = build_recording(**arguments(splits={"train": (starts[::-1], (starts + 0.1)[::-1])}))
    assert recording.train_domain.is_sorted() and recording.train_domain.is_disjoint()
    assert len(recording.train_domain) == 60


def test_simulated_recordings_say_so(tmp_path):
    dataset = saved(tmp_path, simulated=True)
    assert is_simulated(dataset) and "Simulated" in dataset.get_recording("s1").brainset.description


def test_end_is_the_latest_event_unless_given():
    spikes = {"counts": None, "spikes": (TIMES, OWNERS), "behavior": {}, "trials": {}, "splits": {}}
    assert build_recording(**arguments(**spikes)).domain.end[-1] == TIMES[-1]
    assert build_recording(**arguments(**spikes, end=20.0)).domain.end[-1] == 20.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": {"name": ["a", "b", "c"]}}, "a column 'id'"),
        ({"units": {"id": ["a", "b", "b"]}}, "used more than once: b"),
        ({"units": {"id": ["a", "b", "ü"]}}, "not ASCII"),
        ({"units": {"id": ["a", "b", "c"], "area": ["V1"]}}, "column 'area' of length 3"),
        ({"units": {"id": ["a", "b", "c"], "area": [None, 1, "x"]}}, "column 'area'.*[\\s\\S]*object, of int, str"),
        ({"counts": None}, "spikes, counts or mua"),
        ({"counts": (COUNTS.T, BIN)}, r"shape \(bins, 3\)[\s\S]*Transpose"),
        ({"counts": (COUNTS * 0.5, BIN)}, "whole counts"),
        ({"counts": (COUNTS.astype(int) - 1, BIN)}, "whole counts from 0 up"),
        ({"counts": (COUNTS, 0)}, "bin_size of spike_counts above 0"),
        ({"mua": (np.full((5, 3), np.inf), BIN)}, "15 infinite values"),
        ({"spikes": (TIMES[::-1], OWNERS)}, "times of spikes: .*sorted"),
        ({"spikes": (TIMES, OWNERS[:-1])}, "unit_index of 2000"),
        ({"spikes": (TIMES, OWNERS + 1)}, "from 0 to 2, [\\s\\S]*from 1 to 3"),
        ({"end": 14.0}, "bins of spike_counts inside the recording, 5 to 14 s"),
        ({"end": 5.0}, "an end after the start"),
        ({"spikes": (TIMES + 9, OWNERS)}, "timestamps of spikes inside the recording, 5 to 15 s"),
        ({"behavior": {"hand_velocity": (CLOCK, VELOCITY[:-1])}}, "1000 values of hand_velocity"),
        ({"behavior": {"hand_velocity": (CLOCK[::-1], VELOCITY)}}, "timestamps of hand_velocity: .*sorted"),
        ({"behavior": {"velocity": (CLOCK, VELOCITY)}}, "name like 'hand_velocity'"),
        ({"behavior": {"units_velocity": (CLOCK, VELOCITY)}}, "names are taken: .*units"),
        ({"behavior": {"hand_domain": (CLOCK, VELOCITY)}}, "names are taken: .*domain"),
        (
            {"behavior": {"hand_velocity": (CLOCK, VELOCITY), "hand_x": (CLOCK + 0.001, VELOCITY)}},
            "same timestamps for all quantities of 'hand'",
        ),
        ({"trials": {"start": [5.0]}}, "'start' and 'end'"),
        ({"trials": {"start": [8.0, 5.0], "end": [9.0, 6.0]}}, "unsorted trials"),
        ({"trials": {"start": [5.0], "end": [6.0], "target": [1, 2]}}, "column 'target' of length 1"),
        ({"splits": {"training": ([5.0], [6.0])}}, "splits named train, valid, test"),
        ({"splits": {"train": ([5.0], [99.0])}}, "split 'train' inside the recording"),
        ({"splits": {"train": ([6.0], [6.0])}}, "each end after its start"),
        (
            {"splits": {"train": ([5.0], [10.0]), "valid": ([9.9], [11.0])}},
            "train 5 to 10 s, valid 9.9 to 11 s",
        ),
    ],
)
def test_misfits_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build_recording(**arguments(**changes))


def test_file_name_must_be_the_session_id(tmp_path):
    with pytest.raises(InputError, match="file name s1.h5"):
        save_recording(build_recording(**arguments()), tmp_path / "other.h5")


def test_a_cut_write_keeps_the_old_file(tmp_path, monkeypatch):
    saved(tmp_path)
    before = (tmp_path / "s1.h5").read_bytes()

    def half(self, file):
        file["half"] = 1
        raise OSError("No space left on device")

    monkeypatch.setattr(Data, "to_hdf5", half)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["s1.h5"] and (tmp_path / "s1.h5").read_bytes() == before


def test_folder_without_recordings_says_how_to_make_them(tmp_path):
    with pytest.raises(InputError, match="no .h5 file[\\s\\S]*build_recording"):
        BinnedRecordings(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        BinnedRecordings(tmp_path / "nowhere")


def test_missing_recording_and_split_are_named(tmp_path):
    dataset = saved(tmp_path, splits={"train": ([5.0], [6.0])})
    with pytest.raises(InputError, match="s2.h5 in .*[\\s\\S]*Found s1"):
        BinnedRecordings(tmp_path, recording_ids=["s1", "s2"])
    with pytest.raises(InputError, match="'valid_domain' in recording s1[\\s\\S]*Found train_domain"):
        dataset.get_sampling_intervals("valid")


def test_damaged_file_is_named(tmp_path):
    saved(tmp_path)
    (tmp_path / "s2.h5").write_bytes((tmp_path / "s1.h5").read_bytes()[:3000])
    with pytest.raises(InputError, match="s2.h5"):
        BinnedRecordings(tmp_path)
    with h5py.File(tmp_path / "s2.h5", "w") as file:
        file.create_group("x")
    with pytest.raises(InputError, match="s2.h5"):
        BinnedRecordings(tmp_path)
