"""``brainsets prepare ibl_brain_wide_map_2025``: the HDF5 file holds what the ALF files held; bad files are named."""

import os
import pickle

import h5py
import numpy as np
import pytest
from ibl_raw import (
    ID,
    N_CLUSTERS,
    PIPELINE,
    SESSION,
    pipeline_globals,
    run_pipeline,
    session_files,
    with_uuid,
    write_file,
    write_session,
)
from pipeline_tools import imports_of

from neurobridge_tb._upstream import Data, DatasetIndex
from neurobridge_tb.datasets import IblBrainWideMap2025, is_simulated
from neurobridge_tb.datasets.reference_features import reference_features

GOOD = [0, 2, 4, 6]


@pytest.fixture
def raw(tmp_path):
    """``<raw-dir>/ibl_brain_wide_map_2025`` with one session of two probes."""
    folder = tmp_path / "raw" / "ibl_brain_wide_map_2025"
    write_session(folder, session_files())
    return folder


@pytest.fixture
def alf(raw):
    return raw / SESSION / "alf"


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    return lambda *options, **changes: run_pipeline(tmp_path, monkeypatch, *options, **changes)


@pytest.fixture
def functions():
    return pipeline_globals()


def recording(folder):
    return IblBrainWideMap2025(folder.parent).get_recording(ID)


def good_spikes(files):
    """Times and unit rows of the good units' spikes, as a loop over spikes finds them."""
    found = []
    for probe in range(2):
        times, clusters = (files[f"probe{probe:02d}/pykilosort/spikes.{name}.npy"] for name in ("times", "clusters"))
        found += [
            (t, 4 * probe + GOOD.index(c)) for t, c in zip(times.tolist(), clusters.tolist(), strict=True) if c in GOOD
        ]
    second = files["probe01/pykilosort/spikes.times.npy"]
    return np.array(sorted(s for s in found if second[0] <= s[0] <= second[-1]))  # both probes record


def test_spikes_of_good_units_in_order_of_time(raw, prepare):
    data, expected = recording(prepare()), good_spikes(session_files())
    np.testing.assert_array_equal(data.spikes.timestamps, expected[:, 0])
    np.testing.assert_array_equal(data.spikes.unit_index, expected[:, 1])
    assert data.domain.start[0] == session_files()["probe01/pykilosort/spikes.times.npy"][0]
    assert data.session.id == ID and data.subject.id == "KS_014" and data.subject.species == "MUS_MUSCULUS"


def test_reading_in_blocks_changes_nothing(raw, functions):
    names = {
        "times": "alf/probe00/pykilosort/spikes.times.npy",
        "clusters": "alf/probe00/pykilosort/spikes.clusters.npy",
    }
    whole = functions["read_spikes"](raw / SESSION, names, np.array(GOOD))
    functions["BLOCK"] = 64
    parts = functions["read_spikes"](raw / SESSION, names, np.array(GOOD))
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])
    assert whole[2] == parts[2]


def test_units_have_place_label_and_features(raw, prepare):
    (raw / "allen_structure_tree.csv").write_text("id,name,acronym\n385,Primary visual area,VISp\n382,Field CA1,CA1\n")
    units = recording(prepare()).units
    assert units.id[0] == f"{ID}/probe00/0000" and units.id[-1] == f"{ID}/probe01/0006"
    assert units.cluster.tolist() == GOOD * 2 and units.channel.tolist() == [0, 4, 8, 12] * 2
    assert units.depth.tolist() == [0, 40, 80, 120] * 2 and (units.label == 1).all()
    assert units.area_id.tolist() == [385, 382, 997, 0] * 2
    assert units.area.tolist() == ["VISp", "CA1", "997", ""] * 2  # 997 is not in this table
    assert units.reference_features.shape == (8, 33)
    assert not units.reference_features[3].any() and units.reference_features[0].any()  # cluster 6 is silent


def test_without_allens_table_areas_are_numbers_and_without_locations_unknown(raw, alf, prepare):
    assert recording(prepare()).units.area.tolist() == ["385", "382", "997", ""] * 2
    (alf / "probe00/pykilosort/channels.brainLocationIds_ccf_2017.npy").rename(
        alf / "probe00/electrodeSites.brainLocationIds_ccf_2017.npy"
    )
    (alf / "probe01/pykilosort/channels.brainLocationIds_ccf_2017.npy").unlink()
    assert recording(prepare("--reprocess")).units.area.tolist() == ["385", "382", "997", "", *[""] * 4]


def test_reference_features_are_those_of_the_package(functions, raw, prepare):
    data = recording(prepare())
    start, end = data.reference_domain.start[0], data.reference_domain.end[0]
    observed = data.wheel.domain
    assert end - start == pytest.approx((observed.end[-1] - observed.start[0]) / 6)  # a short session
    assert data.train_domain.start[0] == start
    expected = reference_features(data.spikes.timestamps, data.spikes.unit_index, 8, start=start, end=end)
    np.testing.assert_allclose(data.units.reference_features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start", "end"), [(0.0, 30.0), (0.3, 7.777), (2.0, 2.055), (1.0, 1.015)])
def test_reference_features_are_those_of_the_package_in_odd_cases(functions, start, end):
    rng = np.random.default_rng(1)
    parts = [rng.uniform(0, 30, 400), np.cumsum(rng.exponential(0.02, 800)), [1.01], [1.01, 1.012], [1.01] * 3, []]
    parts += [np.arange(1, 1.1, 0.0004), np.array([0.1, 15.0])]
    times = np.concatenate(parts)
    units = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(times, kind="stable")
    ours, theirs = (
        f(times[order], units[order], len(parts), start=start, end=end)
        for f in (functions["reference_features"], reference_features)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_trials_keep_their_columns_and_split(raw, prepare):
    data, table = recording(prepare()), session_files()["_ibl_trials.table.pqt"]
    np.testing.assert_array_equal(data.trials.start, table["intervals_0"])
    np.testing.assert_array_equal(data.trials.end, table["intervals_1"])
    np.testing.assert_array_equal(data.trials.stimOn_times, table["stimOn_times"])
    np.testing.assert_array_equal(data.trials.choice, table["choice"])
    assert "unheard_of" not in data.trials.keys()
    for start, end, split in zip(data.trials.start, data.trials.end, data.trials.split, strict=True):
        holders = [
            name
            for name in ("train", "valid", "test")
            for a, b in getattr(data, f"{name}_domain")
            if a <= start and end <= b
        ]
        assert holders == ([split] if split else [])
    sliced = IblBrainWideMap2025(raw.parents[1] / "processed")[DatasetIndex(ID, 10.0, 16.0)].trials
    np.testing.assert_allclose(sliced.stimOn_times, [0.3, 3.3])  # times move with the window


def test_trials_without_start_or_end_are_left_out(functions, tmp_path):
    table = {
        "stimOn_times": [np.nan, 9.0, 2.0, 5.0],
        "response_times": [1.0, 8.0, 3.0, np.nan],
        "choice": [1, 1, -1, 1],
    }
    write_file(tmp_path / "t.pqt", table)
    trials = functions["read_trials"](tmp_path / "t.pqt", functions["Interval"](0.0, 10.0))
    assert (trials.start.tolist(), trials.end.tolist(), trials.choice.tolist()) == ([2.0], [3.0], [-1.0])


def test_splits_leave_a_gap_and_lose_nothing_else(functions):
    def make(seed):
        functions["SEED"] = seed
        return functions["make_splits"](functions["Interval"](3.0, 603.0))

    functions["BLOCK_S"] = 20.0
    splits = make(0)
    pieces = sorted(
        (start, end, name) for name in ("train", "valid", "test") for start, end in splits[f"{name}_domain"]
    )
    assert pieces[0][0] == 3.0 and pieces[0][2] == "train" and pieces[0][1] >= 62 and pieces[-1][1] == 603.0
    for (_, end, name), (start, _, following) in zip(pieces[:-1], pieces[1:], strict=True):
        assert name != following and start - end == pytest.approx(1.0)
    total = {name: sum(e - s for s, e, n in pieces if n == name) for name in ("valid", "test")}
    assert 45 < total["valid"] <= 60 and 90 < total["test"] <= 100
    again, other = make(0), make(1)
    np.testing.assert_array_equal(again["test_domain"].start, splits["test_domain"].start)
    assert not np.array_equal(other["test_domain"].start, splits["test_domain"].start)


def test_splits_lie_where_spikes_and_wheel_are(raw, alf, prepare):
    np.save(alf / "_ibl_wheel.timestamps.npy", np.linspace(5.0, 50.0, 4001))
    data = recording(prepare())
    assert data.train_domain.start[0] == data.wheel.timestamps[0] == 5.0
    last = max(getattr(data, f"{split}_domain").end[-1] for split in ("train", "valid", "test"))
    assert last == pytest.approx(50.0, abs=0.01) and data.domain.end[-1] > 59


@pytest.mark.parametrize(("frequency", "gain"), [(1.0, 1.0), (20.0, 0.5), (45.0, 0.0)])
def test_wheel_velocity_of_a_sine_has_the_filters_gain(functions, frequency, gain):
    """Forward and backward, the Butterworth filter halves its corner frequency."""
    times = np.arange(0, 10, 0.0007)
    start, position, velocity = functions["wheel_velocity"](times, np.sin(2 * np.pi * frequency * times), "wheel")
    grid = np.arange(len(position)) / 1000
    middle = slice(3000, 7000)
    np.testing.assert_allclose(position[middle], np.sin(2 * np.pi * frequency * grid)[middle], atol=0.02)
    # a difference over 1 ms is the slope half a millisecond before
    slope = gain * 2 * np.pi * frequency * np.cos(2 * np.pi * frequency * (grid - 0.0005))
    np.testing.assert_allclose(velocity[middle], slope[middle], atol=0.02 * 2 * np.pi * frequency)
    assert start == 0.0 and velocity[0] == 0.0


def test_wheel_is_on_a_1_khz_grid_from_its_first_sample(raw, prepare):
    wheel, files = recording(prepare()).wheel, session_files()
    times = files["_ibl_wheel.timestamps.npy"]
    np.testing.assert_allclose(wheel.timestamps[:3], times[0] + np.arange(3) / 1000)
    last_spike = files["probe01/pykilosort/spikes.times.npy"][-1]  # the wheel goes on after it
    assert wheel.position.shape == wheel.velocity.shape == (int((last_spike - times[0]) * 1000), 1)
    expected = np.interp(wheel.timestamps, times, files["_ibl_wheel.position.npy"])
    np.testing.assert_allclose(wheel.position[:, 0], expected, atol=1e-6)


def test_names_with_uuids_and_revisions_are_found_and_the_newest_is_read(raw, alf, prepare):
    plain = recording(prepare())
    values = plain.spikes.timestamps[:], plain.wheel.velocity[:]
    for path in sorted(p for p in alf.rglob("*") if p.is_file()):
        folder = path.parent / ("#2025-03-03#" if path.name.startswith("_ibl_trials") else "#2024-05-06#")
        folder.mkdir(exist_ok=True)
        path.rename(folder / with_uuid(path.name))
    write_file(alf / "_ibl_wheel.position.npy", np.zeros(3))  # older, and not read
    data = recording(prepare("--reprocess"))
    np.testing.assert_array_equal(data.spikes.timestamps, values[0])
    np.testing.assert_array_equal(data.wheel.velocity, values[1])
    assert data.brainset.origin_version == "2024-05-06"


def test_two_files_of_one_dataset_are_named(raw, alf, prepare):
    path = alf / "_ibl_wheel.position.npy"
    path.with_name(with_uuid(path.name)).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"one file for alf/_ibl_wheel.position.npy"):
        prepare()


def test_session_with_few_good_units_is_skipped_by_name(raw, prepare, capsys):
    folder = prepare(MIN_UNITS=9)
    assert not list(folder.glob("*.h5"))
    assert f"Skipped {ID}: 8 good units, fewer than 9" in " ".join(capsys.readouterr().out.split())


def test_no_good_unit_at_all_is_skipped_too(raw, alf, prepare, capsys):
    for probe in ("probe00", "probe01"):
        metrics = {"cluster_id": np.arange(N_CLUSTERS), "label": np.zeros(N_CLUSTERS)}
        write_file(alf / probe / "pykilosort/clusters.metrics.pqt", metrics)
    assert not list(prepare().glob("*.h5"))
    assert "0 good units" in capsys.readouterr().out


def test_finished_file_is_kept_unless_reprocess(raw, prepare):
    path = prepare() / f"{ID}.h5"
    stamp = os.stat(path).st_ino
    prepare(SEED=3)
    assert os.stat(path).st_ino == stamp
    prepare("--reprocess", SEED=3)
    assert os.stat(path).st_ino != stamp


def test_behaviour_may_be_left_out(raw, alf, prepare):
    (alf / "_ibl_trials.table.pqt").unlink()
    data = recording(prepare("--skip-behavior"))
    assert not {"wheel", "trials"} & set(data.keys())
    assert data.train_domain.start[0] == data.domain.start[0]


def test_a_file_without_behaviour_is_not_taken_for_one_with_it(alf, prepare):
    prepare("--skip-behavior")
    with pytest.raises(ValueError, match=r"made with --skip-behavior[\s\S]*--reprocess"):
        prepare()
    prepare("--skip-behavior")


def test_description_says_simulated_only_for_sessions_that_are(raw, prepare):
    assert not is_simulated(IblBrainWideMap2025(prepare().parent))
    (raw / "simulation.json").write_text(f'{{"{SESSION}": {{}}}}')
    assert is_simulated(IblBrainWideMap2025(prepare("--reprocess").parent))


def test_manifest_lists_sessions_on_disk_paths_and_uuids(raw, functions):
    manifest, parse = functions["Pipeline"].get_manifest, functions["parser"].parse_args
    assert manifest(raw, parse([])).path.to_dict() == {ID: SESSION}
    other = "labB/Subjects/x/2020-01-01/002"
    assert manifest(raw, parse([f"--sessions={SESSION}/,{other}"])).index.tolist() == [ID, "labB_x_2020-01-01_002"]
    uuid = "d23a44ef-1402-4ed7-97f5-47e9a7a504d9"
    with pytest.raises(SystemExit, match="sessions.pqt"):
        manifest(raw, parse([f"--sessions={uuid}"]))
    table = {"id": ["x", uuid], "lab": ["l", "danlab"], "subject": ["s", "DY_016"], "number": [1, 1]}
    write_file(raw / "sessions.pqt", table | {"date": np.array(["2019-01-01", "2020-09-12"], dtype="datetime64[D]")})
    assert manifest(raw, parse([f"--sessions={uuid}"])).path.tolist() == ["danlab/Subjects/DY_016/2020-09-12/001"]
    with pytest.raises(SystemExit, match="Correct the uuid"):
        manifest(raw, parse([f"--sessions={uuid[:-1]}0"]))


def test_no_session_says_how_to_name_one(functions, tmp_path):
    with pytest.raises(SystemExit, match="--sessions lab/Subjects"):
        functions["Pipeline"].get_manifest(tmp_path, functions["parser"].parse_args([]))


@pytest.mark.parametrize(
    "option", ["--sessions=lab/Subjects/x/2020-01-01", "--sessions=../Subjects/x/2020-01-01/001", "--sessions="]
)
def test_bad_options_are_refused(functions, option, capsys):
    with pytest.raises(SystemExit):
        functions["parser"].parse_args([option])
    assert option.split("=")[0] in capsys.readouterr().err


SORTING = "probe00/pykilosort"


def without(name):
    def change(alf):
        (alf / name).unlink()

    return change


def replaced(name, make):
    return lambda alf: write_file(alf / name, make(session_files()[name]))


def raw_bytes(name, make):
    def change(alf):
        (alf / name).write_bytes(make((alf / name).read_bytes()))

    return change


def disordered(times):
    times = times.copy()
    times[[10, 2000]] = times[[2000, 10]]
    return times


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(f"{SORTING}/spikes.times.npy", lambda a: a[:-1]), r"array of 2999 numbers .*spikes.clusters"),
        (replaced(f"{SORTING}/spikes.times.npy", lambda a: np.where(a > 50, np.nan, a)), "Expected finite times"),
        (replaced(f"{SORTING}/spikes.times.npy", lambda a: a + 1000), "probes that record at the same time"),
        (replaced(f"{SORTING}/spikes.clusters.npy", lambda a: a.astype(float)), "type float64"),
        (raw_bytes(f"{SORTING}/spikes.times.npy", lambda b: b[:5000]), "truncated or pickled file of 5,000 bytes"),
        (raw_bytes(f"{SORTING}/spikes.times.npy", lambda b: b""), "file of 0 bytes"),
        (raw_bytes(f"{SORTING}/spikes.times.npy", lambda b: pickle.dumps([1.0])), "pickled"),
        (replaced(f"{SORTING}/spikes.times.npy", lambda a: a.astype(object)), "pickled"),
        (replaced(f"{SORTING}/clusters.channels.npy", lambda a: a[:5]), r"array of 5 numbers .*clusters.depths"),
        (replaced(f"{SORTING}/clusters.channels.npy", lambda a: a + 10), "a location for each channel"),
        (
            replaced(f"{SORTING}/clusters.metrics.pqt", lambda t: t | {"cluster_id": t["cluster_id"] * 5}),
            "cluster numbers, each once, below 8",
        ),
        (replaced(f"{SORTING}/clusters.metrics.pqt", lambda t: {"label": t["label"]}), "columns cluster_id, label"),
        (raw_bytes(f"{SORTING}/clusters.metrics.pqt", lambda b: b[:50]), "damaged file"),
        (replaced("_ibl_wheel.timestamps.npy", disordered), r"ascending wheel times[\s\S]*at sample 10"),
        (replaced("_ibl_wheel.timestamps.npy", lambda a: a + 500), "on one clock"),
        (replaced("_ibl_wheel.position.npy", lambda a: np.where(a > 1, np.inf, a)), "samples that are not finite"),
        (replaced("_ibl_wheel.position.npy", lambda a: a[:7]), "array of 4001 numbers"),
        (replaced("_ibl_trials.table.pqt", lambda t: {"choice": t["choice"]}), "intervals_0 and intervals_1"),
        (replaced("_ibl_trials.table.pqt", lambda t: t | {"intervals_1": t["intervals_1"] + 2}), "trials that overlap"),
        (replaced("_ibl_trials.table.pqt", lambda t: {k: v[:0] for k, v in t.items()}), "no trial with a start"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(raw, alf, prepare, tmp_path, change, message):
    change(alf)
    with pytest.raises(ValueError, match=message):
        prepare()
    assert not [path for path in (tmp_path / "processed").rglob("*") if path.is_file()]


def test_a_session_too_short_for_its_splits_says_so(raw, prepare):
    with pytest.raises(ValueError, match=r"a recording of more than 80 s[\s\S]*--sessions"):
        prepare(LEAST_BLOCKS=40)


def test_a_published_sessions_splits_are_minutes(functions):
    splits = functions["make_splits"](functions["Interval"](0.0, 4260.0))
    assert splits["reference_domain"].end[0] == 60.0
    borders = np.concatenate([splits[f"{name}_domain"].start for name in ("train", "valid", "test")])
    np.testing.assert_allclose(borders % 60, 0, atol=1e-6)


def test_a_reference_window_without_spikes_is_named(functions):
    with pytest.raises(ValueError, match="spikes of good units in the reference window, 0.0 to 5.0 s"):
        functions["reference_features"](np.array([7.0]), np.array([0]), 1, start=0.0, end=5.0)


def test_an_unreadable_table_of_structures_is_named(raw, prepare):
    (raw / "allen_structure_tree.csv").write_text("number,acronym\n1,a\n")
    with pytest.raises(ValueError, match="allen_structure_tree.csv[\\s\\S]*named by their number"):
        prepare()


def test_a_cut_write_leaves_no_file(raw, prepare, monkeypatch, tmp_path):
    def half(self, file, *_, **__):
        file["half"] = 1
        raise OSError("No space left on device")

    monkeypatch.setattr(Data, "to_hdf5", half)
    with pytest.raises(ValueError, match="room for[\\s\\S]*No space left"):
        prepare()
    left = [path.suffix for path in (tmp_path / "processed").rglob("*") if path.is_file()]
    assert set(left) <= {".lock"}


def test_the_file_is_plain_hdf5(raw, prepare):
    with h5py.File(prepare() / f"{ID}.h5") as file:
        assert file["spikes/unit_index"].dtype == np.int32 and file["wheel/velocity"].dtype == np.float32


def test_pipeline_needs_neither_this_package_nor_torch():
    imports = imports_of(PIPELINE)
    assert not imports & {"torch", "neurobridge_tb"}


def test_links_to_another_disk_are_followed(raw, alf, prepare, tmp_path):
    elsewhere = tmp_path / "another_disk"
    elsewhere.mkdir()
    (alf / "probe01").rename(elsewhere / "probe01")
    (alf / "probe01").symlink_to(elsewhere / "probe01")
    (alf / "probe00" / "back").symlink_to(alf)  # a circle ends
    for name in ("0", "a", "z"):  # whichever is walked first
        (alf / name).symlink_to(alf / "probe00")
    assert len(recording(prepare()).units) == 8


def test_a_session_that_is_a_link_is_found(raw, alf, prepare, tmp_path):
    session = alf.parent
    session.rename(tmp_path / "elsewhere")
    session.symlink_to(tmp_path / "elsewhere")
    assert len(recording(prepare()).units) == 8


SORTING = ("spikes.times", "spikes.clusters", "clusters.channels", "clusters.depths", "clusters.metrics")


def revise(alf, name, files, probe="probe00"):
    """Move some files of a probe's sorting into a revision folder."""
    folder = alf / probe / "pykilosort"
    (folder / name).mkdir(exist_ok=True)
    for path in [path for path in folder.iterdir() if path.name.startswith(files)]:
        path.rename(folder / name / path.name)


def test_spikes_of_one_revision_never_meet_clusters_of_another(raw, alf, prepare):
    revise(alf, "#2025-01-01#", ("spikes.",))
    with pytest.raises(
        ValueError, match=r"of one revision in alf/probe00[\s\S]*of 2025-01-01: spikes[\s\S]*of the first: "
    ):
        prepare()


def test_the_newest_whole_revision_is_read_and_a_later_part_is_named(raw, alf, prepare, capsys):
    expected = recording(prepare()).units
    (later := alf / "probe00/pykilosort/#2025-01-01#").mkdir()
    for name in ("spikes.times.npy", "spikes.clusters.npy"):
        np.save(later / name, np.arange(5.0) if "times" in name else np.zeros(5, int))
    units = recording(prepare("--reprocess")).units
    np.testing.assert_array_equal(units.depth, expected.depth)
    assert "probe00: revision 2025-01-01 is not whole, reading the first" in capsys.readouterr().out
    revise(alf, "#2024-05-06#", SORTING)
    assert len(recording(prepare("--reprocess")).units) == 8
