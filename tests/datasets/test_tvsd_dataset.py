"""The habits of ``Tvsd`` as a torch_brain Dataset; its content is tested with the pipeline."""

import numpy as np
import pytest

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import Tvsd, build_recording, save_recording
from neurobridge_tb.errors import InputError


@pytest.fixture
def root(tmp_path):
    for monkey in "FN":
        recording = build_recording(
            brainset_id="tvsd",
            session_id=f"monkey{monkey}_norm",
            subject_id=f"monkey{monkey}",
            units={"id": [f"{monkey}/array01/ch00{c}" for c in range(4)]},
            mua=(np.random.default_rng(0).normal(size=(10, 4)), 0.4),
            splits={"train": (0.4 * np.arange(10), 0.4 * np.arange(1, 11))},
        )
        save_recording(recording, tmp_path / "tvsd" / f"monkey{monkey}_norm.h5")
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
