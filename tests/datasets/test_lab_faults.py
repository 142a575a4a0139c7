"""Odd files of labs: what can be read is read, the rest is left out or refused in words; nothing is silently wrong."""

from datetime import UTC, datetime

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from lab_files import spike_trains, write_alf, write_phy

from neurobridge_tb.datasets import BinnedRecordings, save_recording
from neurobridge_tb.datasets.readers import Choices, Notes, SplitPlan, read_alf, read_matlab, read_nwb, read_phy
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.matlab_v73 import create_double, matlab_file

TRAINS = spike_trains()


def draft(**more):
    units = pd.DataFrame(index=[f"u{k}" for k in range(len(TRAINS))])
    return Draft("a", "a test", units, Notes(), TRAINS.__getitem__, **more)


def read_back(recording, tmp_path):
    path = tmp_path / "out" / f"{recording.session.id}.h5"
    save_recording(recording, path)
    assert [fault for fault in find_faults(path) if fault.is_error] == []
    return BinnedRecordings(path.parent, [path.stem]).get_recording(path.stem)


def test_units_of_two_probes_with_equal_ids_are_told_apart():
    its = draft()
    its.units.index = [0, 1, 2, 0, 1, 2]
    assert its.recording(Choices()).units.id.tolist() == ["a/0_0", "a/1_0", "a/2_0", "a/0_1", "a/1_1", "a/2_1"]
    assert "6 units share their ids" in its.notes.assumed[0]


def test_names_that_something_else_has_are_changed(tmp_path):
    rows = {"start": [1.0, 5.0], "end": [2.0, 6.0]}
    columns = {"a b": [1, 2], "a_b": [3, 4], "split": ["x", "y"], "keys": [7, 8], "2nd": [9, 0]}
    tables = {name: pd.DataFrame(rows) for name in ("running", "slice")} | {"units": pd.DataFrame(rows | columns)}
    times = np.arange(0.0, 60.0)
    its = draft(intervals=tables, behavior={"running_speed": (times, times), "domain": (times, times)})
    recording = read_back(its.recording(Choices()), tmp_path)
    table = recording.units_table
    assert (table.a_b.tolist(), table.a_b_.tolist()) == ([1, 2], [3, 4])
    assert (table.split.tolist(), table.keys_.tolist(), table.n2nd.tolist()) == (["x", "y"], [7, 8], [9, 0])
    assert len(recording.running_table) == len(recording.slice_table) == 2
    assert len(recording.running.running_speed) == len(recording.domain_.value) == 60
    assert len([line for line in its.notes.assumed if "something else has its name" in line]) == 3


def test_bins_in_milliseconds_and_rates_in_kilohertz_are_refused(tmp_path):
    with pytest.raises(InputError, match="--count-in 0.02"):
        draft().recording(Choices(count_in=20.0))
    with pytest.raises(InputError, match="above 0"):
        draft().recording(Choices(count_in=0.0))
    with pytest.raises(InputError, match="--sampling-rate 30000"):
        read_phy(write_phy(tmp_path / "phy"), sampling_rate=30.0)


def test_what_is_left_out_but_not_there_is_said():
    its = draft(intervals={"trials": pd.DataFrame({"start": [1.0], "end": [2.0]})})
    assert "trials" in its.recording(Choices(leave=("trails",))).keys()
    assert "trails: there is none; there are trials" in its.notes.left


def test_numbers_are_chosen_by_value():
    its = draft()
    its.units["label"] = [0.0, 1.0, 1.0, 0.5, np.nan, 0.0]
    assert len(its.recording(Choices(where=("label!=0", "label!=0.50"))).units) == 3
    assert len(its.recording(Choices(where=("label=1,0.5",))).units) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"shares": (0, 0, 0)}, {"shares": (1, -1, 1)}, {"shares": (np.nan, 1, 1)}, {"shares": (0, 1, 1)}, {"gap": -1.0}]
    + [{"block": 0.0}, {"block": np.nan}],
)
def test_splits_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="shares of 0 or more"):
        SplitPlan(**wrong)


def test_conditions_that_no_unit_meets_list_the_values():
    its = draft()
    its.units["group"] = ["mua"] * 4 + ["noise"] * 2
    with pytest.raises(InputError, match="group: mua 4, noise 2"):
        its.recording(Choices(where=("group=good",)))


def test_times_since_1970_start_the_recording_there():
    trains = [1.7e9 + train for train in TRAINS]
    its = Draft("a", "a test", pd.DataFrame(index=list("abcdef")), Notes(), trains.__getitem__)
    recording = its.recording(Choices(split=SplitPlan(gap=0.5)))
    assert recording.domain.start[0] >= 1.7e9 and "the recording starts at" in its.notes.assumed[0]


def test_unsorted_spikes_are_sorted_and_stray_ones_pointed_out():
    shuffled = [np.random.default_rng(0).permutation(train) for train in TRAINS]
    its = Draft("a", "a test", pd.DataFrame(index=list("abcdef")), Notes(), shuffled.__getitem__)
    assert (np.diff(its.recording(Choices()).spikes.timestamps) >= 0).all()
    stray = [np.append(TRAINS[0], 40_000.0), *TRAINS[1:]]
    its = Draft("a", "a test", pd.DataFrame(index=list("abcdef")), Notes(), stray.__getitem__)
    its.recording(Choices())
    assert any("spike" in line for line in its.notes.assumed)


def test_nwb_columns_named_start_and_end_and_electrodes_without_a_place(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    nwb = pynwb.NWBFile("a session", "id", datetime(2024, 1, 1, tzinfo=UTC))
    group = nwb.create_electrode_group("g", description="", location="", device=nwb.create_device("probe"))
    for _ in TRAINS:
        nwb.add_electrode(group=group, location="unknown")
    nwb.add_trial_column("start", "of the reach")
    nwb.add_trial_column("hit", "a truth value")
    for k, train in enumerate(TRAINS):
        nwb.add_unit(spike_times=train, electrodes=[k])
    for k in range(20):
        nwb.add_trial(start_time=5.0 * k, stop_time=5.0 * k + 2, start="left", hit=bool(k % 2))
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as writer:
        writer.write(nwb)
    recording = read_back(read_nwb(tmp_path / "a.nwb"), tmp_path)
    assert recording.trials.start_.tolist()[:2] == ["left", "left"] and recording.trials.start.tolist()[1] == 5.0
    assert recording.trials.hit.dtype == bool and set(recording.units.area) == {""}


@pytest.mark.parametrize("kind", ["only KSLabel", "no group", "nobody is good", "empty", "unreadable", "old Phy"])
def test_phy_folders_that_nobody_has_curated(tmp_path, kind):
    folder, notes = write_phy(tmp_path / "phy"), Notes()
    group, label = folder / "cluster_group.tsv", folder / "cluster_KSLabel.tsv"
    if kind != "no group":
        label.write_text("cluster_id\tKSLabel\n3\tgood\n5\tmua\n6\tgood\n")
    if kind in ("only KSLabel", "no group"):
        group.unlink()
    elif kind == "nobody is good":
        group.write_text("cluster_id\tgroup\n5\tnoise\n")
    elif kind == "empty":
        group.write_text("")
    elif kind == "unreadable":
        group.write_bytes(b"\xff\xfe\x00\x01" * 9)
    else:
        group.rename(folder / "cluster_groups.csv")
        label.unlink()
    units = read_phy(folder, sampling_rate=30_000.0, notes=notes).units.id.tolist()
    assert units == {
        "no group": [f"phy/{k}" for k in (3, 5, 6, 9, 11, 20)],
        "old Phy": [f"phy/{k}" for k in (3, 6, 9, 20)],
    }.get(kind, ["phy/3", "phy/6"])
    assert ("not a table" in "".join(notes.left)) == (kind in ("empty", "unreadable"))


def test_alf_arrays_of_odd_types_and_missing_parts(tmp_path):
    pytest.importorskip("pyarrow")
    folder, notes = write_alf(tmp_path / "alf"), Notes()
    for name in ("spikes.times", "spikes.clusters"):  # as MATLAB writes them: columns of floats
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy").astype(float)[:, None])
    np.save(folder / "clusters.channels.npy", np.arange(8.0) + 2)  # beyond the channels
    np.save(folder / "clusters.names.npy", np.array([{"a": 1}] * 8, dtype=object), allow_pickle=True)
    np.save(folder / "licks.times.npy", np.array(["x", None], dtype=object), allow_pickle=True)
    np.save(folder / "_ibl_trials.intervals.npy", np.stack([np.arange(1.0, 50, 5), np.arange(2.0, 51, 5)], 1))
    np.save(folder / "_ibl_trials.choice.npy", np.tile([1.0, -1.0], 5)[:, None])
    np.save(folder / "_ibl_trials.rewardVolume.npy", np.zeros(3))
    recording = read_back(read_alf(folder, notes=notes), tmp_path)
    assert recording.units.id[0] == "alf/c0000" and "area" not in recording.units.keys()
    assert recording.trials.choice.tolist() == [1, -1] * 5
    left = "\n".join(notes.left)
    for what in (
        "clusters.names.npy",
        "licks.times.npy",
        "areas: clusters.channels",
        "trials.rewardVolume: shape (3,)",
    ):
        assert what in left
    (folder / "spikes.clusters.npy").unlink()
    with pytest.raises(InputError, match="spikes.clusters.npy[\\s\\S]*none"):
        read_alf(folder)


def test_rows_of_alf_metrics_are_found_by_their_cluster(tmp_path):
    pytest.importorskip("pyarrow")
    folder, clusters = write_alf(tmp_path / "alf"), [7, 5, 6, 2, 3, 0]
    pd.DataFrame({"cluster_id": clusters, "label": clusters}).to_parquet(folder / "clusters.metrics.pqt")
    units = read_alf(folder).units
    assert units.cluster.tolist() == units.label.tolist() == sorted(clusters)


def test_matlab_structs_and_cells_that_do_not_fit(tmp_path):
    path, counts = tmp_path / "a.mat", np.random.default_rng(0).poisson(1.0, (2000, 4)).astype(float)
    trials = np.empty((2, 6), dtype=object)
    for unit, train in enumerate(TRAINS):
        trials[0, unit], trials[1, unit] = train[:9], train[9:]
    rows = [{"start": 5.0 * k, "end": 5.0 * k + 2, "side": "lr"[k % 2]} for k in range(10)]
    content = {
        "Y": counts,
        "byTrial": trials,
        "rows": np.array(rows, dtype=object),
        "X": {"start": [1.0, 2], "end": [3]},
    }
    scipy.io.savemat(path, content | {"points": np.array([{"start": 1.0}, {"start": 2.0}], dtype=object)})
    table = read_matlab(path, counts="Y", bin_size=0.05, tables={"trials": "rows"}).trials
    assert table.side.tolist() == ["l", "r"] * 5 and table.start.tolist() == [5.0 * k for k in range(10)]
    notes = Notes()
    read_matlab(path, mua="Y", bin_size=0.05, notes=notes)
    assert "transpose" not in "".join(notes.assumed)
    for arguments, message in (
        ({"spikes": "byTrial"}, "all trials together"),
        ({"counts": "Y", "bin_size": 50.0}, "--bin-size 0.05"),
        ({"counts": "Y", "bin_size": 0.05, "tables": {"trials": "X"}}, "start 2, end 1"),
        ({"counts": "Y", "bin_size": 0.05, "tables": {"trials": "points"}}, "start 2"),
        ({"counts": "Y", "bin_size": 0.05, "tables": {"trials": "Y"}}, "fields start and end"),
        ({"spikes": "Y", "clusters": "rows"}, "a unit in rows"),
    ):
        with pytest.raises(InputError, match=message):
            read_matlab(path, **arguments)


def test_values_with_units_first_are_pointed_out(tmp_path):
    pytest.importorskip("mat73")
    with matlab_file(tmp_path / "a.mat") as file:
        create_double(file, "Y", np.random.default_rng(0).normal(size=(3000, 40)))  # (40, 3000) as MATLAB has it
    notes = Notes()
    with pytest.raises(InputError):  # 2 s are too short to be cut
        read_matlab(tmp_path / "a.mat", mua="Y", bin_size=0.05, notes=notes)
    assert "40 bins of 3,000 units: transpose it" in notes.assumed[0]


def _cell(file, group, name, values):
    """A cell array (n, 1) of a v7.3 file: of numbers, text, or nothing."""
    references = np.empty((1, len(values)), dtype=h5py.ref_dtype)
    for k, value in enumerate(values):
        item = f"#refs#/{name}{k}"
        if isinstance(value, str):
            dataset = file.create_dataset(item, data=np.array([[ord(c)] for c in value], dtype="<u2"))
            dataset.attrs["MATLAB_class"], dataset.attrs["MATLAB_int_decode"] = np.bytes_("char"), np.int32(2)
        elif len(value):
            create_double(file, item, np.asarray(value)[None])
        else:
            dataset = create_double(file, item, np.zeros(2))
            dataset.attrs["MATLAB_empty"] = np.uint8(1)
        references[0, k] = file[item].ref
    cell = group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    cell.attrs["MATLAB_class"] = np.bytes_("cell")


def test_cells_structs_and_text_of_a_new_matlab_file(tmp_path):
    pytest.importorskip("mat73")
    with matlab_file(tmp_path / "a.mat") as file:
        for name in ("data", "T"):
            file.create_group(name).attrs["MATLAB_class"] = np.bytes_("struct")
        _cell(file, file["data"], "spikes", [*TRAINS[:5], []])
        create_double(file, "T/start", np.array([[1.0, 5.0]]))
        create_double(file, "T/end", np.array([[2.0, 6.0]]))
        _cell(file, file["T"], "side", ["left", "right"])
    notes = Notes()
    recording = read_matlab(tmp_path / "a.mat", spikes="data.spikes", tables={"trials": "T"}, notes=notes)
    assert len(recording.units.id) == 5 and "1 units: no spikes" in notes.left
    assert recording.trials.side.tolist() == ["left", "right"] and recording.trials.end.tolist() == [2.0, 6.0]
    assert len(recording.spikes.timestamps) == sum(map(len, TRAINS[:5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raster_data": np.full((4, 9), 0.5)}, "whole numbers from 0 up"),
        ({"raster_data": np.full((4, 9), np.nan)}, "whole numbers from 0 up"),
        ({"raster_data": np.zeros((3, 9))}, r"\(3, 9\), 4 labels what"),
        ({"raster_labels": {"what": list("xyxy")}}, "trials of one condition"),
    ],
)
def test_rasters_that_do_not_fit(tmp_path, change, message):
    sound = {"raster_data": np.ones((4, 9)), "raster_labels": {"what": list("abab")}}
    for name, content in (("u0", sound), ("u1", sound | change)):
        scipy.io.savemat(tmp_path / f"{name}.mat", content)
    with pytest.raises(InputError, match=message):
        read_matlab(tmp_path, bin_size=1.0)
