"""The habits of ``Tvsd`` as a torch_brain Dataset; its content is tested with the pipeline."""

import inspect

import numpy as np
import pytest

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import Tvsd, build_recording, save_recording
from neurobridge_tb.errors import InputError


def save(root, monkey, variant, bins=1, step=0.4):
    edges = step * np.arange(11)
    recording = build_recording(
        brainset_id="tvsd",
        session_id=f"monkey{monkey}_{variant}",
        subject_id=f"monkey{monkey}",
        units={"id": [f"{monkey}/array01/ch00{c}" for c in range(4)]},
        mua=(np.random.default_rng(0).normal(size=(10 * bins, 4)), step / bins),
        splits={"train": (edges[:-1], edges[1:])},
    )
    save_recording(recording, root / "tvsd" / f"monkey{monkey}_{variant}.h5")


@pytest.fixture
def root(tmp_path):
    for monkey in "FN":
        save(tmp_path, monkey, "norm")
    return tmp_path


def test_units_of_all_monkeys_and_recordings_chosen(root):
    assert len(Tvsd(root).get_unit_ids()) == 8
    only = Tvsd(root, recording_ids=["monkeyN_norm"])
    assert only.recording_ids == ["monkeyN_norm"] and only.get_unit_ids()[0] == "N/array01/ch000"


def test_each_interval_is_one_presentation_and_the_transform_sees_it(root):
    dataset = Tvsd(root, transform=lambda data: data.mua.value.shape)
    starts_ends = dataset.get_sampling_intervals("train")["monkeyF_norm"]
    assert {dataset[DatasetIndex("monkeyF_norm", start, end)] for start, end in starts_ends} == {(1, 4)}


def test_split_type_none_samples_whole_recordings_only(root):
    dataset = Tvsd(root, split_type=None)
    assert dataset.get_sampling_intervals()["monkeyF_norm"].end[-1] == pytest.approx(4.0)
    with pytest.raises(InputError, match="split_type='images'"):
        dataset.get_sampling_intervals("train")


def test_not_prepared_names_the_command(tmp_path):
    with pytest.raises(InputError, match="Run: brainsets prepare tvsd"):
        Tvsd(tmp_path)


def test_root_comes_from_the_brainsets_config(root, monkeypatch):
    monkeypatch.setattr("neurobridge_tb.datasets.tvsd.get_processed_dir", lambda: str(root))
    assert len(Tvsd().recording_ids) == 2


def test_one_variant_at_a_time_unless_recordings_are_named(root):
    with pytest.raises(InputError, match=r"recordings[\s\S]*monkeyF_norm[\s\S]*prepare tvsd -s monkeyF_trials"):
        Tvsd(root, variant="trials")
    save(root, "F", "trials", bins=30, step=0.3)
    assert Tvsd(root).recording_ids == ["monkeyF_norm", "monkeyN_norm"]
    trials = Tvsd(root, variant="trials")
    assert trials.recording_ids == ["monkeyF_trials"]
    for start, end in trials.get_sampling_intervals("train")["monkeyF_trials"]:
        assert trials[DatasetIndex("monkeyF_trials", start, end)].mua.value.shape == (30, 4)
    assert len(Tvsd(root, ["monkeyF_norm", "monkeyF_trials"]).recording_ids) == 2


def test_arguments_come_in_the_order_of_upstreams_datasets():
    ours = list(inspect.signature(Tvsd).parameters)
    assert ours[:5] == ["root", "recording_ids", "transform", "split_type", "dirname"]


def test_names_are_prefixed_in_a_nested_dataset(root):
    recording = Tvsd(root).get_recording("monkeyF_norm", _namespace="tvsd")
    assert (recording.session.id, recording.subject.id) == ("tvsd/monkeyF_norm", "tvsd/monkeyF")
    assert recording.units.id[0] == "tvsd/F/array01/ch000"
