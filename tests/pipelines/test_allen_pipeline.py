"""The pipeline of Allen's Neuropixels: the HDF5 file holds what the NWB file held, and bad files are named."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pytest
from allen_raw import BRAINSET, PIPELINE, pipeline_functions, run_pipeline, simulate
from pipeline_tools import imports_of
from torch_brain.pipeline import runner

from neurobridge_tb._upstream import Data

STIMULI = [
    "natural_scenes", "natural_movie_one", "natural_movie_three", "drifting_gratings", "static_gratings", "gabors",
    "flashes",
]  # fmt: skip
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("allen"))


@pytest.fixture(scope="module")
def prepared(simulated):
    """The recording with all defaults."""
    with h5py.File(run_pipeline(runner, simulated.parents[3])) as file:
        return Data.from_hdf5(file, lazy=False)


@pytest.fixture
def nwb(simulated, tmp_path):
    """A copy that a test may damage."""
    path = tmp_path / "raw" / BRAINSET / "session_1" / "session_1.nwb"
    path.parent.mkdir(parents=True)
    return shutil.copy(simulated, path)


@pytest.fixture
def prepare(nwb, tmp_path):
    def run(*options, session=1, **constants):
        path = run_pipeline(runner, tmp_path, *options, session=session, **constants)
        with h5py.File(path) as file:
            return Data.from_hdf5(file, lazy=False)

    return run


@pytest.fixture
def functions():
    return pipeline_functions(runner)


def raw_units(path):
    """The unit table joined with its peak channels, by pandas."""
    with h5py.File(path) as file:
        units, electrodes = (
            pd.DataFrame(
                {
                    name: column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]
                    for name, column in file[group].items()
                    if name not in ("spike_times", "spike_times_index", "group")
                }
            )
            for group in ("units", "general/extracellular_ephys/electrodes")
        )
    return units.merge(electrodes, left_on="peak_channel_id", right_on="id", suffixes=("", "_channel"), how="left")


def test_units_are_those_that_pass_with_the_area_of_their_peak_channel(prepared, simulated):
    units = raw_units(simulated)
    kept = units[
        (units.quality == "good")
        & (units.isi_violations < 0.5)
        & (units.amplitude_cutoff < 0.1)
        & (units.presence_ratio > 0.95)
        & (units.location != "None")
        & units.valid_data
    ]
    assert 5 < len(kept) < len(units)
    assert prepared.units.id.tolist() == kept.id.astype(str).tolist()
    assert prepared.units.area.tolist() == kept.location.tolist()
    assert prepared.units.probe.tolist() == kept.group_name.tolist()
    np.testing.assert_allclose(prepared.units.depth, kept.probe_vertical_position)
    np.testing.assert_allclose(prepared.units.snr, kept.snr, rtol=1e-6)


def test_spikes_are_those_of_the_units_sorted_by_time(prepared, simulated):
    assert (np.diff(prepared.spikes.timestamps) >= 0).all()
    with h5py.File(simulated) as file:
        ids, ends = file["units/id"][:].astype(str), file["units/spike_times_index"][:]
        times = np.split(file["units/spike_times"][:], ends[:-1])
    of = dict(zip(ids, times, strict=True))
    for number, unit in enumerate(prepared.units.id):
        mine = prepared.spikes.timestamps[prepared.spikes.unit_index == number]
        np.testing.assert_array_equal(mine, of[unit])


def test_spikes_in_many_blocks_are_the_same(functions, simulated, monkeypatch):
    with h5py.File(simulated) as file:
        rows = np.arange(0, 40, 3)
        whole = functions["read_spikes"](file, rows, lambda _: None)
        monkeypatch.setitem(functions, "BLOCK_SPIKES", 300)
        blocks = []
        in_blocks = functions["read_spikes"](file, rows, blocks.append)
        assert len(blocks) > 10
        np.testing.assert_array_equal(in_blocks[0], whole[0])
        np.testing.assert_array_equal(in_blocks[1], whole[1])


def test_memory_follows_what_is_kept_not_what_is_in_the_file(functions, simulated, tmp_path, monkeypatch):
    monkeypatch.setitem(functions, "BLOCK_SPIKES", 20_000)
    n_units, n_spikes = 50, 100_000
    with h5py.File(tmp_path / "many.nwb", "w") as file:
        file["units/id"] = np.arange(n_units)
        file["units/spike_times"] = np.tile(np.linspace(0, 100, n_spikes), n_units)  # 40 MB
        file["units/spike_times_index"] = n_spikes * np.arange(1, n_units + 1)
        tracemalloc.start()
        timestamps, unit_index = functions["read_spikes"](file, np.array([3, 20]), lambda _: None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    kept = timestamps.nbytes + unit_index.nbytes
    assert len(timestamps) == 2 * n_spikes and peak < 2 * kept + 2e6


def test_all_units_are_kept_where_asked_for(prepare, nwb):
    data = prepare("--all-units")
    units = data.units
    assert len(units) == 40 and "" in units.area and "None" not in units.area
    assert set(units.quality) == {"good", "noise"} and data.brainset.unit_filter == "none"


def test_natural_scenes_name_image_blank_and_repeat(prepared, simulated):
    with h5py.File(simulated) as file:
        raw = {name: file[f"intervals/natural_scenes_presentations/{name}"][:] for name in ("frame", "start_time")}
    scenes = prepared.natural_scenes
    np.testing.assert_array_equal(scenes.start, raw["start_time"])
    np.testing.assert_allclose(scenes.end - scenes.start, 0.25)
    np.testing.assert_allclose(scenes.timestamps, scenes.start + 0.125)
    np.testing.assert_array_equal(scenes.frame, raw["frame"] + 1)  # classes of the modality "natural_scenes"
    np.testing.assert_array_equal(scenes.blank, raw["frame"] == -1)
    expected = ["blank" if k < 0 else f"natural_scene_{k:.0f}.tiff" for k in raw["frame"]]
    assert scenes.image_id.tolist() == expected
    for frame in np.unique(scenes.frame):
        repeats = scenes.repeat[scenes.frame == frame]
        assert repeats.tolist() == list(range(len(repeats)))


def test_the_other_stimuli_keep_their_parameters(prepared, simulated):
    with h5py.File(simulated) as file:
        tables = file["intervals"]
        for name, keys in (
            ("drifting_gratings", ("orientation", "temporal_frequency", "contrast")),
            ("static_gratings", ("orientation", "spatial_frequency")),
            ("gabors", ("x_position", "y_position", "orientation")),
            ("natural_movie_one", ("frame",)),
            ("natural_movie_three", ("frame",)),
        ):
            for key in keys:
                raw = tables[f"{name}_presentations/{key}"][:]
                np.testing.assert_array_equal(getattr(getattr(prepared, name), key), raw)
        colors = tables["flashes_presentations/color"].asstr()[:].astype(float)
        phases = tables["static_gratings_presentations/phase"].asstr()[:]
        rows = len(tables["spontaneous_presentations/start_time"])
    np.testing.assert_array_equal(prepared.flashes.color, colors)
    np.testing.assert_array_equal(np.isnan(prepared.static_gratings.phase), phases == "null")
    np.testing.assert_array_equal(prepared.static_gratings.blank, np.isnan(prepared.static_gratings.orientation))
    assert len(prepared.spontaneous) == rows


def test_running_speed_has_the_shape_that_decoders_read(prepared, simulated):
    with h5py.File(simulated) as file:
        speed = file["processing/running/running_speed/data"][:]
    assert prepared.running.running_speed.shape == (len(speed), 1)
    np.testing.assert_allclose(prepared.running.running_speed[:, 0], speed, rtol=1e-6)
    assert prepared.domain.start[0] <= prepared.spikes.timestamps[0]
    assert prepared.domain.end[-1] >= prepared.spikes.timestamps[-1]


def domains(data):
    return {split: getattr(data, f"{split}_domain") for split in SPLITS}


def rows_in(table, start, end):
    return (table.start < end - 1e-9) & (table.end > start + 1e-9)


def check_no_leak(data):
    """No time is in two domains, and no interval of a domain touches a presentation of another split."""
    edges = sorted((s, e) for d in domains(data).values() for s, e in d)
    assert all(e <= s for (_, e), (s, _) in zip(edges, edges[1:], strict=False))
    for split, domain in domains(data).items():
        assert len(domain)
        for start, end in domain:
            for name in STIMULI:
                table = getattr(data, name)
                assert set(table.split[rows_in(table, start, end)]) <= {split}
    for name in STIMULI:  # and each presentation of a split lies inside its domain
        table = getattr(data, name)
        for split, domain in domains(data).items():
            chosen = table.split == split
            place = np.searchsorted(domain.start, table.start[chosen] + 1e-9) - 1
            assert (place >= 0).all() and (table.end[chosen] <= domain.end[place] + 1e-9).all()


def test_no_presentation_and_no_time_is_in_two_splits(prepared):
    check_no_leak(prepared)
    lengths = {split: (d.end - d.start).sum() for split, d in domains(prepared).items()}
    assert lengths["train"] > 3 * lengths["valid"] > 0
    assert max(d.end.max() - d.start.min() for d in domains(prepared).values()) > 100
    assert any((d.end - d.start > 2).any() for d in domains(prepared).values())


def test_every_stimulus_has_its_share_of_each_split(prepared):
    for name in ("natural_scenes", "gabors", "static_gratings", "natural_movie_three"):
        assert {"train", "valid", "test"} <= set(getattr(prepared, name).split)


def test_the_draw_follows_the_seed(prepare, prepared):
    again, other = prepare(), prepare("--reprocess", SEED=1)
    assert again.natural_scenes.split.tolist() == prepared.natural_scenes.split.tolist()
    assert other.natural_scenes.split.tolist() != prepared.natural_scenes.split.tolist()


def images_of(data):
    scenes = data.natural_scenes
    return {split: set(scenes.image_id[(scenes.split == split) & ~scenes.blank]) for split in SPLITS}


def test_a_finished_session_of_other_options_is_not_taken_for_the_one_asked_for(prepare):
    prepare("--split-by=image")
    with pytest.raises(ValueError, match=r"split_by image \(now presentation\)[\s\S]*--reprocess"):
        prepare()


def test_split_by_image_keeps_all_repeats_together_in_every_session(prepare, tmp_path):
    simulate(tmp_path, session_id=2)
    first, second = prepare("--split-by=image"), prepare("--split-by=image", session=2)
    for data in (first, second):
        check_no_leak(data)
        images = images_of(data)
        assert all(images.values())
        assert not (images["train"] & images["valid"] or images["train"] & images["test"])
        assert not images["valid"] & images["test"]
        scenes = data.natural_scenes
        assert set(scenes.split[scenes.blank]) <= {"train", "none"}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not images_of(first)[a] & images_of(second)[b] and not images_of(first)[b] & images_of(second)[a]


def test_split_by_presentation_shows_an_image_in_several_splits(prepared):
    images = images_of(prepared)
    assert images["train"] & images["test"]


def test_presentations_that_touch_invalid_times_are_in_no_domain(prepared):
    assert prepared.invalid_times.tags.tolist() == ["EcephysProbe,1002,probeC", "EcephysSession,1,stimulus"]
    n_none = 0
    for start, end in prepared.invalid_times:
        for name in STIMULI:
            table = getattr(prepared, name)
            touched = rows_in(table, start, end)
            assert set(table.split[touched]) <= {"none"}
            n_none += touched.sum()
        for domain in domains(prepared).values():
            assert not ((domain.start < end) & (domain.end > start)).any()
    assert n_none


def test_an_invalid_probe_without_kept_units_does_not_matter(functions):
    concerns = functions["concerns"]
    assert concerns("EcephysProbe,1002,probeC", ["probeC", "probeD"])
    assert not concerns("EcephysProbe,1002,probeC", ["probeD"])
    assert concerns("EcephysSession,1,stimulus", ["probeD"]) and concerns("", ["probeD"])


def test_without_invalid_times(prepare, nwb):
    with h5py.File(nwb, "r+") as file:
        del file["intervals/invalid_times"]
    data = prepare()
    assert len(data.invalid_times) == 0 and "none" not in data.natural_scenes.split
    check_no_leak(data)


def test_without_running(prepare, nwb, capsys):
    with h5py.File(nwb, "r+") as file:
        del file["processing/running"]
    data = prepare()
    assert "running" not in data.keys() and len(data.spikes)
    assert "No running speed" in capsys.readouterr().out


def test_functional_connectivity_is_refused_by_name(prepare, nwb):
    with h5py.File(nwb, "r+") as file:
        for name in ("natural_scenes", "static_gratings"):
            del file[f"intervals/{name}_presentations"]
        del file["general/stimulus"]
        file["general/stimulus"] = "functional_connectivity"
    with pytest.raises(SystemExit, match=r"'brain_observatory_1.1'[\s\S]*session 1 .*'functional_connectivity'"):
        prepare()


def test_no_unit_left_counts_what_each_limit_keeps(prepare):
    with pytest.raises(ValueError, match=r"none of 40; \d+ with quality good, 0 with isi_violations[\s\S]*--all-units"):
        prepare(ISI_VIOLATIONS=0)


def test_truncated_file_is_named(prepare, nwb):
    with open(nwb, "r+b") as file:
        file.truncate(100_000)
    told = r"100,000 bytes of a file that is damaged or truncated[\s\S]*Copy the file again"
    with pytest.raises(SystemExit, match=told):
        prepare()


def test_hdf5_that_is_no_session_is_named(prepare, nwb):
    with h5py.File(nwb, "w") as file:
        file["train_MUA"] = np.zeros(3)
    with pytest.raises(SystemExit, match=r"NWB file[\s\S]*HDF5 without units, intervals.*it holds train_MUA"):
        prepare()


@pytest.mark.parametrize("content", [b"<html>sign in</html>", b""])
def test_what_is_no_hdf5_is_named(prepare, nwb, content):
    nwb.write_bytes(content)
    with pytest.raises(SystemExit, match=f"{len(content)} bytes that are not HDF5"):
        prepare()


def change(path, value):
    def apply(file):
        dataset = file[path]
        dataset[...] = value(dataset[...])

    return apply


def remove(path):
    def apply(file):
        del file[path]

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("units/spike_times", lambda a: a[::-1]), "sorted, finite spike times"),
        (change("units/spike_times", lambda a: np.where(a > 100, np.nan, a)), "sorted, finite spike times"),
        (change("units/spike_times_index", lambda a: a - 5), "an index that ends at"),
        (change("units/peak_channel_id", lambda a: a + 500), "channel .* of unit .*, which is not there"),
        (change("intervals/natural_scenes_presentations/frame", lambda a: a + 1), "frames of natural_scenes from -1"),
        (change("intervals/gabors_presentations/stop_time", lambda a: a - 1), "times of each presentation of gabors"),
        (remove("units/quality"), "'units/quality'"),
        (remove("intervals/flashes_presentations/color"), "color"),
    ],
)
def test_what_does_not_fit_is_named(prepare, nwb, damage, message, tmp_path):
    with h5py.File(nwb, "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=message):
        prepare()
    assert not list((tmp_path / "processed").rglob("*.h5*.part")) and not list((tmp_path / "processed").rglob("*.h5"))


def test_too_short_for_the_stretches_says_so(prepare):
    with pytest.raises(ValueError, match=r"natural scenes in all three splits[\s\S]*leave the session out"):
        prepare(LEAST_STRETCHES=1)


def test_damage_inside_a_file_is_named(prepare, nwb):
    with h5py.File(nwb, "r+") as file:
        values = file["units/snr"][:]
        del file["units/snr"]
        chunk = file.create_dataset("units/snr", data=values, compression="gzip", chunks=True).id.get_chunk_info(0)
    with open(nwb, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * 32)
    with pytest.raises(ValueError, match="a damaged file"):
        prepare()


def test_a_full_disk_leaves_no_recording(prepare, tmp_path, monkeypatch):
    def half(self, file, *_, **__):
        file["half"] = 1
        raise OSError("No space left on device")

    monkeypatch.setattr(Data, "to_hdf5", half)
    with pytest.raises(ValueError, match=r"room for 1.h5[\s\S]*No space left on device"):
        prepare()
    assert {p.suffix for p in (tmp_path / "processed").rglob("*") if p.is_file()} <= {".lock"}


def in_child(target):
    """Run in a process of its own; returns the process."""
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process


def test_a_killed_run_leaves_no_recording_and_the_next_one_finishes(prepare, tmp_path):
    def killed():
        def half(self, file, *_, **__):
            file["half"] = 1
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        Data.to_hdf5 = half
        prepare()

    process = in_child(killed)
    process.join()
    folder = tmp_path / "processed" / BRAINSET
    assert process.exitcode == -signal.SIGKILL
    assert [p.name for p in folder.glob(".*.part")] == [".1.h5.part"] and not list(folder.glob("*.h5"))
    assert len(prepare().spikes) and not list(folder.glob(".*.part"))


def test_two_processes_make_an_item_once(prepare, tmp_path):
    def counted():
        write = Data.to_hdf5

        def count(self, file, *args, **kwargs):
            if isinstance(file, h5py.File):
                (tmp_path / f"write{os.getpid()}").touch()
            return write(self, file, *args, **kwargs)

        Data.to_hdf5 = count
        prepare()

    processes = [in_child(counted), in_child(counted)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("write*"))) == 1


def test_a_finished_session_is_kept_unless_reprocess(prepare, nwb, tmp_path):
    session = 715093703  # one of the list
    raw = nwb.parents[1] / f"session_{session}" / f"session_{session}.nwb"
    raw.parent.mkdir()
    shutil.copy(nwb, raw)
    prepare(session=session)
    path = tmp_path / "processed" / BRAINSET / f"{session}.h5"
    before = os.stat(path).st_ino
    raw.unlink()  # raw files may be removed after
    prepare(session=session, SEED=3, BUCKET="http://127.0.0.1:1")
    assert os.stat(path).st_ino == before
    shutil.copy(nwb, raw)
    prepare("--reprocess", session=session, SEED=3)
    assert os.stat(path).st_ino != before


def test_it_says_simulated_only_where_the_file_does(prepare, prepared, nwb):
    assert prepared.brainset.origin_version == "simulated"
    assert prepared.brainset.description.startswith("SIMULATED")
    with h5py.File(nwb, "r+") as file:
        del file["session_description"]
        file["session_description"] = "Data and metadata for an Ecephys session"
    brainset = prepare().brainset
    assert brainset.origin_version == "brain_observatory_1.1" and "simulated" not in brainset.description.lower()
    assert "isi_violations < 0.5" in brainset.unit_filter


def test_pictures_that_are_missing_are_counted(prepare, nwb, capsys):
    folder = nwb.parents[1] / "natural_scene_templates"
    folder.mkdir()
    for k in range(100):
        (folder / f"natural_scene_{k}.tiff").write_bytes(b"II*\0")
    prepare()
    assert "pictures are not in" in capsys.readouterr().out.replace("\n", " ")


def test_the_manifest_is_all_sessions_with_natural_scenes(functions, tmp_path):
    pipeline, parse = functions["Pipeline"], functions["parser"].parse_args
    listed = pipeline.get_manifest(tmp_path, parse([])).index.tolist()
    assert len(set(listed)) == 32 and listed[:2] == ["715093703", "719161530"] and listed[-1] == "799864342"


def test_pipeline_needs_neither_this_package_nor_torch():
    imports = imports_of(PIPELINE)
    assert "h5py" in imports and not imports & {"torch", "neurobridge_tb", "pynwb", "allensdk"}


def test_a_session_on_disk_is_in_the_manifest(functions, nwb):
    pipeline, parse = functions["Pipeline"], functions["parser"].parse_args
    assert pipeline.get_manifest(nwb.parents[1], parse([])).index.tolist()[0] == "1"


def test_a_file_that_is_open_for_writing_elsewhere_is_not_called_damaged(nwb, functions):
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, nwb], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(ValueError, match=r"cannot be opened[\s\S]*open for writing elsewhere") as caught:
        functions["open_nwb"](nwb)
    assert "emove" not in str(caught.value)
    writer.communicate()
