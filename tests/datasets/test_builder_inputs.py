"""Arrays as programs hold them go in; times and counts that are something else are pointed out."""

import warnings
from pathlib import PurePath

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import Interval
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.areas import unit_areas
from neurobridge_tb.datasets.image_binding import recorded_image_ids
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.errors import InputError

RNG = np.random.default_rng(0)
TRAINS = [np.sort(RNG.uniform(0, 60, n)) for n in (300, 600, 0)]
IDS = ["a", "b", "c"]


def build(**changes):
    given = {"brainset_id": "lab", "session_id": "s1", "subject_id": "m", "units": {"id": IDS}, "end": 60.0} | changes
    return build_recording(**given)


class Ts:
    def __init__(self, times):
        self.t = times


class SpikeTrain(np.ndarray):
    def rescale(self, unit):
        assert unit == "s"
        return np.asarray(self) / 1000


@pytest.mark.parametrize(
    "spikes",
    [
        TRAINS,
        [train[::-1] for train in TRAINS],
        np.array(TRAINS, dtype=object),
        dict(zip(IDS[::-1], TRAINS[::-1], strict=True)),
        dict(zip([b"a", b"b", b"c"], TRAINS, strict=True)),
        [Ts(train) for train in TRAINS],
        [(1000 * train).view(SpikeTrain) for train in TRAINS],
        [(1e9 * train).astype("m8[ns]") for train in TRAINS],
        [pd.to_timedelta(train, unit="s") for train in TRAINS],
        [torch.from_numpy(train).requires_grad_() for train in TRAINS],
    ],
    ids=[
        "list",
        "unsorted",
        "object array",
        "mapping",
        "mapping by bytes",
        "pynapple",
        "neo in ms",
        "numpy's timedelta",
        "pandas'",
        "torch",
    ],
)
def test_one_array_a_unit(spikes):
    recording = build(spikes=spikes)
    np.testing.assert_allclose(recording.spikes.timestamps, np.sort(np.concatenate(TRAINS)), atol=1e-8)
    for unit, train in enumerate(TRAINS):
        np.testing.assert_allclose(recording.spikes.timestamps[recording.spikes.unit_index == unit], train, atol=1e-8)


def test_spikes_of_other_units_are_named():
    with pytest.raises(InputError, match="3 keys; on one side only: c, d"):
        build(spikes=dict(zip("abd", TRAINS, strict=True)))
    with pytest.raises(InputError, match="each of 3 units[\\s\\S]*2 arrays"):
        build(spikes=TRAINS[:2])


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (pd.Series(["V1", None, "V4"]), ["V1", "", "V4"]),
        (pd.Series(["V1", "V1", "V4"], dtype="category"), ["V1", "V1", "V4"]),
        (np.array([b"V1", b"V2", b"V4"]), ["V1", "V2", "V4"]),
        (np.array([b"V1", "V2", None], dtype=object), ["V1", "V2", ""]),
        ([PurePath("a/1.jpg"), PurePath("a/2.jpg"), None], ["a/1.jpg", "a/2.jpg", ""]),
        (np.array(["V1", "V2", "V4"], dtype=np.dtypes.StringDType()), ["V1", "V2", "V4"]),
        ([1, None, 3], [1, np.nan, 3]),
        (pd.Series([1, None, 3], dtype="Int64"), [1, np.nan, 3]),
        (pd.to_datetime(["2024-05-01", "2024-05-02", None]), ["2024-05-01", "2024-05-02", ""]),
        (pd.to_timedelta([1, 2, 3], unit="min"), [60, 120, 180]),
    ],
)
def test_columns_of_any_kind(column, stored, tmp_path):
    trials = pd.DataFrame({"start": [0.0, 1.0, 2.0], "end": [1.0, 2.0, 3.0], "column": column})
    units = pd.DataFrame({"id": IDS, "column": column})
    save_recording(build(spikes=TRAINS, units=units, trials=trials), tmp_path / "s1.h5")
    recording = BinnedRecordings(tmp_path).get_recording("s1")
    for found in (recording.units.column, recording.trials.column):
        if isinstance(stored[0], str):
            assert [text[: len(s)] for text, s in zip(found, stored, strict=True)] == stored
        else:
            np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1, 2], [3], [4]], "trials column 'x'[\\s\\S]*ragged"),
        ([{}, {}, {}], "trials column 'x'[\\s\\S]*of dict"),
        (pd.Series([1, "b", 2.0]), "trials column 'x'[\\s\\S]*object, of float, int, str"),
        (["ü", "b", "c"], "trials column 'x' of ASCII[\\s\\S]*'ü'"),
        ([1j, 2, 3], "trials column 'x'[\\s\\S]*complex"),
    ],
)
def test_columns_that_cannot_be_stored_are_named(column, message):
    table = {"start": [0.0, 1.0, 2.0], "end": [1.0, 2.0, 3.0], "x": column}
    with pytest.raises(InputError, match=message):
        build(spikes=TRAINS, trials=table)


CLOCK = np.arange(0, 60, 0.1)
DATES = np.datetime64("2024-05-01") + (1e9 * CLOCK).astype("m8[ns]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spikes": [DATES[:9], DATES[:9], []]}, "times of spikes in s[\\s\\S]*2024-05-01T00[\\s\\S]*Of dates"),
        ({"spikes": [["a"], [1.0], []]}, "times of spikes in s[\\s\\S]*Found a"),
        ({"spikes": [[1.0, np.nan], [1.0], []]}, "1 that are not finite"),
        ({"spikes": (np.array([1.0]), np.array(["a"]))}, "whole numbers[\\s\\S]*<U1"),
        ({"behavior": {"hand.x": (DATES, CLOCK)}}, "timestamps of hand.x in s[\\s\\S]*2024"),
        ({"behavior": {"hand.x": (CLOCK, CLOCK * 1j)}}, "behavior column 'x'[\\s\\S]*complex"),
        ({"behavior": {"hand.x": (CLOCK, 3.0)}}, "600 values of hand.x"),
        ({"behavior": {"hand.keys": (CLOCK, CLOCK)}}, "do not use themselves[\\s\\S]*'keys'"),
        ({"behavior": {"slice.x": (CLOCK, CLOCK)}}, "behaviour's name[\\s\\S]*'slice.x'"),
        ({"behavior": {"train_domain.x": (CLOCK, CLOCK)}}, "behaviour's name"),
        ({"trials": {"start": DATES[:1], "end": DATES[1:2]}}, "trials in s[\\s\\S]*2024"),
        ({"trials": {"start": [0.0, np.nan], "end": [1.0, 2.0]}}, "1 of 2 without a length, or without a time"),
        ({"trials": {"start": [1.7e9], "end": [1.7e9 + 1]}, "end": None}, "first time of trials is over a day"),
        ({"trials": [{"start": 0.0, "end": 1.0}]}, "columns by name[\\s\\S]*list"),
        ({"trials": {"start": [0.0], "end": [1.0], "a/b": [1]}}, "names of trials columns[\\s\\S]*'a/b'"),
        ({"trials": {"start": [0.0], "end": [1.0], "slice": [1]}}, "names of trials columns[\\s\\S]*'slice'"),
        ({"trials": {"start": [0.0], "end": [1.0], "_x": [1]}}, "names of trials columns[\\s\\S]*'_x'"),
        ({"intervals": {"train_domain": {"start": [0.0], "end": [1.0]}}}, "Found train_domain"),
        ({"intervals": {"keys": {"start": [0.0], "end": [1.0]}}}, "Found keys"),
        ({"trials": {"start": [0.0], "end": [1.0], "x": 5}}, "trials column 'x' of length 1"),
        ({"trials": {"start": [0.0], "end": [1.0], "image_id": [["a", "b"]]}}, "'image_id' of length 1[\\s\\S]*1, 2"),
        ({"intervals": {"epochs": 5}}, "columns by name[\\s\\S]*int"),
        ({"intervals": pd.DataFrame({"start": [0.0]})}, "intervals by name[\\s\\S]*DataFrame"),
        ({"behavior": pd.DataFrame({"hand.x": CLOCK})}, "behavior by name[\\s\\S]*DataFrame"),
        ({"behavior": {"hand.x": CLOCK}}, "as .timestamps, values.[\\s\\S]*ndarray"),
        ({"units": {"id": IDS, "area": [["V1"], ["V4"], ["IT"]]}}, "'area' of length 3[\\s\\S]*3, 1"),
        ({"spikes": [np.float32(train + 1e5) for train in TRAINS]}, "float32, in which 100,060 s is rounded to 0.0078"),
        ({"spikes": [train.astype(np.float16) for train in TRAINS]}, "float16, in which 60 s is rounded to 0.031"),
        ({"units": ["a", "b", "c"]}, "columns by name[\\s\\S]*list"),
        ({"units": {"id": ["a", None, "c"]}}, "an id for each unit"),
        ({"units": pd.DataFrame([[1, 2, i] for i in IDS], columns=["x", "x", "id"])}, "twice: x"),
        ({"splits": {"train": "all"}}, "starts, ends"),
        ({"start": "noon"}, "start in s"),
        ({"end": np.nan}, "end in s"),
        ({"session_id": ".s1"}, "not hidden"),
        ({"session_id": "a\nb"}, "ASCII text that can name a file"),
        ({"session_id": "a" * 300}, "300 characters"),
        ({"session_id": None}, "Found None"),
    ],
)
def test_what_is_no_time_no_number_or_no_name_is_refused_before_anything_is_written(changes, message):
    with pytest.raises(InputError, match=message):
        build(**({"spikes": TRAINS} | changes))


def test_what_is_absent_in_masked_or_nullable_arrays_is_nan():
    masked = np.ma.masked_less(CLOCK, 0.05)
    nullable = pd.array([None, *range(599)], dtype="Int64")
    recording = build(spikes=TRAINS, behavior={"hand.x": (CLOCK, masked), "hand.n": (CLOCK, nullable)})
    assert np.flatnonzero(np.isnan(recording.hand.x)).tolist() == [0] == np.flatnonzero(np.isnan(recording.hand.n))
    counts = np.ma.masked_array(np.ones((50, 3), int), mask=np.arange(150).reshape(50, 3) == 4)
    found = build(counts=(counts, 0.1), end=None).spike_counts.value
    assert np.isnan(found[1, 1]) and np.nansum(found) == 149


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, pd.DataFrame, lambda x: x.astype(object), lambda x: x > 0])
def test_counts_in_any_array(form):
    counts = RNG.integers(0, 2, (50, 3))
    np.testing.assert_array_equal(
        build(counts=(form(counts), pd.Timedelta("100ms")), end=5.0).spike_counts.value, counts
    )


def test_splits_as_numbers_or_tables():
    splits = {"train": (0.0, 30.0), "valid": pd.DataFrame({"start": [30.0, 40.0], "end": [35.0, 45.0]})}
    recording = build(spikes=TRAINS, splits=splits)
    assert recording.train_domain.end.tolist() == [30.0] and recording.valid_domain.start.tolist() == [30.0, 40.0]


def test_ids_name_files():
    assert build(spikes=TRAINS, session_id=np.str_("s1")).session.id == "s1"
    assert build(spikes=TRAINS, session_id=7).session.id == "7"
    with pytest.raises(InputError, match="session_id.*[\\s\\S]*'a/b'"):
        build(spikes=TRAINS, session_id="a/b")


def test_tables_added_by_hand_are_stored_as_text(tmp_path):
    recording = build(spikes=TRAINS)
    recording.presentations = Interval(
        start=np.array([0.0, 1.0]),
        end=np.array([0.5, 1.5]),
        image_id=np.array([b"cat/1.jpg", "dog/2.jpg"], dtype=object),
        timekeys=["start", "end"],
    )
    save_recording(recording, tmp_path / "s1.h5")
    assert recorded_image_ids(tmp_path / "s1.h5") == ["cat/1.jpg", "dog/2.jpg"]
    assert BinnedRecordings(tmp_path).get_recording("s1").presentations.image_id.tolist() == ["cat/1.jpg", "dog/2.jpg"]
    with h5py.File(tmp_path / "s1.h5", "r+") as file:
        file["presentations"].attrs["_unicode_keys"] = np.array([], dtype="S")
    assert "presentations/image_id" in [fault.place for fault in find_faults(tmp_path / "s1.h5")]


def test_sample_numbers_are_no_seconds(tmp_path):
    samples = [np.round(30_000 * train) for train in TRAINS]
    with pytest.raises(InputError, match="whole numbers, as sample numbers"):
        build(spikes=samples, end=None)
    save_recording(build(spikes=TRAINS), tmp_path / "s1.h5")
    with h5py.File(tmp_path / "s1.h5", "r+") as file:
        file["spikes/timestamps"][...] = np.round(file["spikes/timestamps"])
    assert any("whole numbers" in fault.found and fault.is_error for fault in find_faults(tmp_path / "s1.h5"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spikes": [1000 * train + 0.1 for train in TRAINS], "end": None}, "no unit fires at more than"),
        ({"spikes": [*TRAINS[:2], [3000.5]], "end": None}, "no spike from 60 to 3,000 s, 98%"),
        ({"spikes": TRAINS, "end": None, "trials": {"start": [10_000.0], "end": [20_000.0]}}, "no spike from 60 to"),
        ({"spikes": [*TRAINS[:2], np.arange(65.5, 700, 15)], "end": None}, "no spike in 85% of all seconds"),
        ({"spikes": [train / 3600 for train in TRAINS], "end": None}, "spikes/s on average"),
        (
            {"spikes": TRAINS, "splits": {"train": (0.0, 0.8), "valid": (0.8, 1.0)}},
            "all splits together are 1 s of 60 s",
        ),
        (
            {"spikes": TRAINS, "end": 900.0, "splits": {"train": ([0.0], [60.0]), "test": ([100.0], [900.0])}},
            "test_domain: no spike",
        ),
    ],
)
def test_suspicious_times_are_pointed_out_by_builder_and_validate(changes, message, tmp_path):
    with pytest.warns(UserWarning, match=message):
        recording = build(**changes)
    save_recording(recording, tmp_path / "s1.h5")
    found = [f"{fault.place}: {fault.found}" for fault in find_faults(tmp_path / "s1.h5")]
    assert any(message in text for text in found), found


@pytest.mark.parametrize("none", [{"spikes": [[], [], []]}, {"mua": (np.full((600, 3), 7.0), 0.1)}])
def test_no_activity_at_all_is_pointed_out_and_not_trained_on(none, tmp_path):
    with pytest.warns(UserWarning, match="no activity of any unit"):
        recording = build(**none, splits={"train": (0.0, 50.0)})
    save_recording(recording, tmp_path / "s1.h5")
    assert "3 of 3 units are never active" in "".join(fault.found for fault in find_faults(tmp_path / "s1.h5"))
    dataset = BinnedRecordings(tmp_path)
    model = NeuroBridgeModel(
        modality=next(iter(none)), sequence_length=1.0, latent_step=0.5, bin_size=0.1, dim=32, depth=1
    )
    model.init_vocabs(dataset)
    with pytest.raises(InputError, match="activity in the training intervals of s1"):
        model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))


def test_areas_are_text_also_where_they_are_numbered(tmp_path):
    save_recording(build(spikes=TRAINS, units={"id": IDS, "area": [3, 3, 7]}), tmp_path / "s1.h5")
    assert unit_areas(BinnedRecordings(tmp_path).get_recording("s1").units).tolist() == ["3", "3", "7"]


def test_times_of_tables_with_a_unit_of_their_own_are_converted():
    start, end = (np.array(times).view(SpikeTrain) for times in ([1000.0, 3000.0], [2000.0, 4000.0]))
    trials = build(spikes=TRAINS, trials={"start": start, "end": end}).trials
    assert trials.start.tolist() == [1.0, 3.0] and trials.end.tolist() == [2.0, 4.0]


def test_training_split_without_spikes_is_an_error():
    with pytest.raises(InputError, match="no spike in it"):
        with pytest.warns(UserWarning):
            build(spikes=TRAINS, end=900.0, splits={"train": ([100.0], [900.0])})


@pytest.mark.parametrize("values", ["counts", "mua"])
def test_training_split_without_counts_or_values_is_an_error_for_builder_and_validate(values, tmp_path):
    some = RNG.integers(1, 5, (600, 3)) * (1.0 if values == "mua" else 1)
    splits = {"train": ([0.0], [30.0]), "valid": ([30.0], [60.0])}
    save_recording(build(**{values: (some, 0.1)}, splits=splits), tmp_path / "s1.h5")
    with h5py.File(tmp_path / "s1.h5", "r+") as file:
        file["mua/value" if values == "mua" else "spike_counts/value"][:300] = np.nan if values == "mua" else 0
    assert ("train_domain", True) in [(f.place, f.is_error) for f in find_faults(tmp_path / "s1.h5")]
    with pytest.raises(InputError, match="train_domain[\\s\\S]*no activity in it"):
        build(**{values: (np.where(np.arange(600)[:, None] < 300, 0, some), 0.1)}, splits=splits)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"counts": (np.where(np.eye(3) > 0, np.inf, 1), 0.1)}, "whole counts[\\s\\S]*to inf"),
        ({"counts": (np.full((3, 3), 2**40), 0.1)}, "whole counts from 0 up to 2,147,483,647"),
        ({"counts": (np.ones((3, 3)), np.inf)}, "bin_size"),
        ({"counts": np.ones((3, 3))}, "counts=.array, bin_size."),
        ({"mua": (np.full((3, 3), 1e300), 0.1)}, "as float32 holds them[\\s\\S]*9 infinite"),
    ],
)
def test_numbers_that_would_change_when_stored_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        build(**values, end=None)


def test_epoch_seconds_need_a_start():
    with pytest.raises(InputError, match="start="):
        build(spikes=[1.7e9 + train for train in TRAINS], end=None)
    recording = build(spikes=[1.7e9 + train for train in TRAINS], start=1.7e9, end=None)
    assert recording.domain.end[0] - recording.domain.start[0] < 61


COUNTS = RNG.poisson(1.5 + np.sin(np.arange(4000) / 30)[:, None], (4000, 3))
SLIDING = np.lib.stride_tricks.sliding_window_view(COUNTS, 9, axis=0).sum(-1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (SLIDING, "overlapping bins"),
        (np.lib.stride_tricks.sliding_window_view(COUNTS, 2, axis=0).sum(-1), "overlapping bins"),
        (COUNTS * 5, "3 of 3 units are multiples of 5"),
        (COUNTS * [1, 1, 5], "1 of 3 units are multiples of 5"),
        (np.column_stack([SLIDING[:, 0], COUNTS[8:, 1:]]), "neighbouring bins of 1 of 3 units"),
        (np.concatenate([COUNTS[:500], np.zeros((3000, 3), int), COUNTS[:500]]), "no activity from 25 to 175 s, 75%"),
        (COUNTS + 120, "spikes/s on average"),
        ((COUNTS, 50), "bins of 50 s"),
    ],
)
def test_rates_and_overlapping_bins_are_pointed_out(counts, message, tmp_path):
    with pytest.warns(UserWarning, match=message):
        recording = build(counts=counts if isinstance(counts, tuple) else (counts, 0.05), end=None)
    save_recording(recording, tmp_path / "s1.h5")
    assert any(message in fault.found for fault in find_faults(tmp_path / "s1.h5"))


def test_sound_counts_and_spikes_are_not_doubted():
    regular = np.cumsum(RNG.gamma(9.0, 1 / 90, (3, 3000)), axis=1)  # far below Poisson variance
    bins = np.arange(0, regular[:, -1].min(), 0.1)
    clocked = np.stack([np.histogram(train, bins)[0] for train in regular], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(counts=(COUNTS, 0.05), end=None)
        build(counts=(clocked, 0.1), end=None)
        build(spikes=TRAINS)
