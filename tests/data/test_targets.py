"""What can be decoded is found by name, and what cannot is said before anything heavy."""

import numpy as np
import pytest

from neurobridge_tb.data.row_features import row_windows
from neurobridge_tb.data.targets import read_examples, series_spec, target_names
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.scoring.decoding.decoding_splits import come_in_blocks, split_rows

N = 40


def save(folder, name="a", **columns):
    rng = np.random.default_rng(0)
    start = 2.0 * np.arange(N)
    trials = {
        "start": start,
        "end": start + 1.5,
        "onset": start + 0.5,
        "side": np.where(np.arange(N) % 2, "left", "right"),
        "RT": rng.uniform(0.2, 1.0, N),
        "block": np.repeat([1, 2], N // 2),
        "rare": np.where(np.arange(N) < 2, "odd", np.where(np.arange(N) % 2, "a", "b")),
        "alone": np.where(np.arange(N) < 1, "odd", "a"),
        "place": np.tile(["up", "mid", "low", "mid"], N // 4),
    } | columns
    recording = build_recording(
        brainset_id="b",
        session_id=name,
        subject_id="s",
        units={"id": [f"{name}/{k}" for k in range(3)]},
        spikes=[np.sort(rng.uniform(0, 80, 400)) for _ in range(3)],
        end=80.0,
        trials=trials,
        behavior={"hand.velocity": (np.arange(0, 80, 0.1), rng.normal(size=(800, 2)))},
        splits={"train": ([0.0], [41.0]), "valid": ([41.0], [50.0]), "test": ([50.0], [80.0])},
    )
    save_recording(recording, folder / f"{name}.h5")
    return BinnedRecordings(folder)


def test_columns_are_classes_or_values(tmp_path):
    dataset = save(tmp_path)
    side = read_examples(dataset, "trials.side", align="onset")
    assert side.are_classes and len(side) == N and side.time[1] == 2.5
    assert not read_examples(dataset, "trials.RT").are_classes
    assert read_examples(dataset, "trials.block").are_classes
    assert not read_examples(dataset, "trials.block", kind="values").are_classes
    assert (side.split[:20] == "train").all() and (side.split[25:] == "test").all()
    rare = read_examples(dataset, "trials.rare")
    assert set(rare.label) == {"a", "b"} and "2 rows: classes with fewer than 5 examples (odd)" in rare.dropped


def test_series_become_modalities(tmp_path):
    dataset = save(tmp_path)
    spec = series_spec(dataset, "hand.velocity")
    assert (spec.dim, spec.timestamp_key, spec.value_key) == (2, "hand.timestamps", "hand.velocity")
    assert series_spec(dataset, "trials.side") is None
    assert series_spec(dataset, "hand_velocity_2d").value_key == "hand.velocity"
    assert {"trials.side", "hand.velocity"} <= set(target_names(dataset.get_recording("a")))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("trials.sid", r"Found trials.side \(2 classes\)"),
        ("velocity", r"hand.velocity \(series\)"),
        ("trials", "trials.RT \\(40 numbers\\)"),
    ],
)
def test_unknown_targets_list_the_nearest(tmp_path, target, message):
    with pytest.raises(InputError, match=message):
        series_spec(save(tmp_path), target)


def test_what_cannot_be_learnt_is_refused(tmp_path):
    dataset = save(tmp_path)
    with pytest.raises(InputError, match="two classes of trials.alone.*[\\s\\S]*a 39, odd 1"):
        read_examples(dataset, "trials.alone")
    with pytest.raises(InputError, match="a column 'cue' of times[\\s\\S]*onset"):
        read_examples(dataset, "trials.side", align="cue")
    with pytest.raises(InputError, match="kind=auto"):
        read_examples(dataset, "trials.side", kind="values")
    with pytest.raises(InputError, match="constant within the splits"):
        split_rows(read_examples(dataset, "trials.block"), folds=0, seed=0)


@pytest.mark.parametrize(
    ("column", "classes", "n_left"),
    [
        (np.arange(N) % 3 == 0, ["False", "True"], 0),
        (np.array([b"go", b"stop"] * (N // 2)), ["go", "stop"], 0),
        (np.array(["go", None] * (N // 2), dtype=object), ["go"], N // 2),
        (np.array(["go", "stop", "nan", "stop"] * (N // 4)), ["go", "stop"], N // 4),
        (np.array([1.0, 2.0, np.nan, 2.0] * (N // 4)), ["1", "2"], N // 4),
        (np.arange(N), [], 0),  # too many for classes
        (np.where(np.arange(N) == 3, np.nan, np.arange(N) / 7), [], 1),
    ],
)
def test_labels_of_any_type(tmp_path, column, classes, n_left):
    dataset = save(tmp_path, odd=column)
    if len(classes) == 1:
        with pytest.raises(InputError, match="two classes of trials.odd"):
            read_examples(dataset, "trials.odd")
        return
    examples = read_examples(dataset, "trials.odd")
    assert len(examples) == N - n_left and (sorted(set(examples.label)) if examples.are_classes else []) == classes
    assert examples.dropped == ((f"{n_left} rows: no label or no time",) if n_left else ())


def test_columns_of_several_values_a_row_and_tables_without_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"one value a row in trials.licks[\s\S]*\(40, 2\)"):
        read_examples(save(tmp_path, licks=np.zeros((N, 2))), "trials.licks")
    nothing = {name: np.array([]) for name in ("start", "end", "onset", "side")}
    recording = build_recording(
        brainset_id="b", session_id="e", subject_id="s", units={"id": ["u"]}, spikes=[np.arange(0.05, 20, 0.13)],
        intervals={"empty": nothing},
    )  # fmt: skip
    (tmp_path / "e").mkdir()
    save_recording(recording, tmp_path / "e" / "e.h5")
    with pytest.raises(InputError, match="empty.side"):
        read_examples(BinnedRecordings(tmp_path / "e"), "empty.side")


def test_windows_lie_in_the_recording_or_their_rows_are_left_out(tmp_path):
    cue = 2.0 * np.arange(N) + 0.5
    dataset = save(tmp_path, cue=cue, samples=30_000 * cue, late=cue + 3)
    examples, bounds = row_windows(dataset, read_examples(dataset, "trials.side", align="cue"), None)
    np.testing.assert_allclose(bounds, np.stack([cue, cue + 1.0], 1))
    examples, bounds = row_windows(dataset, read_examples(dataset, "trials.side", align="late"), [0.0, 0.5])
    assert len(examples) == len(bounds) == N - 1 and "1 rows: their window reaches out" in examples.dropped[0]
    with pytest.raises(InputError, match="Align by a column of times in s"):
        row_windows(dataset, read_examples(dataset, "trials.side", align="samples"), [0.0, 0.5])
    for align, window in (("start", [0.5, 0.0]), ("end", None)):
        with pytest.raises(InputError, match="the first before the last"):
            row_windows(dataset, read_examples(dataset, "trials.side", align=align), window)


def test_rows_test_once_and_recordings_apart(tmp_path):
    save(tmp_path, "a")
    examples = read_examples(save(tmp_path, "b"), "trials.side")
    parts = split_rows(examples, folds=5, seed=0)
    assert len(parts) == 10 and sorted(np.concatenate([test for _, test in parts])) == list(range(2 * N))
    for train, test in parts:
        assert not set(train) & set(test) and len(set(examples.recording[np.concatenate([train, test])])) == 1


def test_conditions_to_train_and_to_test_on(tmp_path):
    save(tmp_path, "a")
    examples = read_examples(save(tmp_path, "b"), "trials.side")
    ((train, test),) = split_rows(examples, folds=5, seed=0, train_on="recording=a", test_on="recording=b")
    assert set(examples.recording[train]) == {"a"} and set(examples.recording[test]) == {"b"}
    ((train, test),) = split_rows(examples, folds=5, seed=0, train_on="block=1")
    assert set(examples.columns["block"][train]) == {1} and set(examples.columns["block"][test]) == {2}
    for condition in ("place=nowhere", "nothing=1", "place"):
        with pytest.raises(InputError, match="COLUMN=VALUE"):
            split_rows(examples, folds=5, seed=0, train_on=condition)
    with pytest.raises(InputError, match="two classes or values in common"):
        split_rows(examples, folds=5, seed=0, train_on="place=mid")  # the left trials


def test_labels_in_blocks_are_noticed(tmp_path):
    dataset = save(tmp_path)
    assert come_in_blocks(read_examples(dataset, "trials.block"))
    assert not come_in_blocks(read_examples(dataset, "trials.side"))
