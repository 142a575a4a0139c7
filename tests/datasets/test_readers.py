"""Files as labs have them become recordings; what is taken, left and assumed is said; nothing is guessed or run."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import scipy.io
from click.testing import CliRunner
from lab_files import SECONDS, serve, spike_trains, write_alf, write_nwb, write_phy

from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import BinnedRecordings, save_recording
from neurobridge_tb.datasets.readers import (
    Choices,
    Notes,
    SplitPlan,
    read_alf,
    read_matlab,
    read_nwb,
    read_phy,
    read_spikeinterface,
)
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.matlab_v73 import create_double, matlab_file

TRAINS = spike_trains()


def sound(recording, tmp_path):
    """The recording as a Dataset reads it back, without faults."""
    path = tmp_path / "out" / f"{recording.session.id}.h5"
    save_recording(recording, path)
    assert [fault for fault in find_faults(path) if fault.is_error] == []
    return BinnedRecordings(path.parent, [path.stem]).get_recording(path.stem)


def trains_of(recording):
    times, owners = recording.spikes.timestamps, recording.spikes.unit_index
    return [times[owners == unit] for unit in range(len(recording.units.id))]


def test_nwb_units_tables_and_behavior(tmp_path):
    pytest.importorskip("pynwb")
    notes = Notes()
    recording = sound(read_nwb(write_nwb(tmp_path / "m7.nwb"), notes=notes), tmp_path)
    assert recording.subject.id == "mouse_7" and recording.session.id == "m7"
    for found, given in zip(trains_of(recording), TRAINS, strict=True):
        np.testing.assert_allclose(found, given)
    assert recording.units.area.tolist() == ["VISp", "VISp", "CA1", "CA1", "VISp", "VISp"]
    assert recording.units.snr.tolist() == [0, 1, 2, 3, 4, 5]
    assert recording.trials.stimulus[:3].tolist() == ["cat", "dog", "cat"] and len(recording.trials) == 40
    assert len(recording.epochs) == 1
    assert recording.presentations.image_id[:3].tolist() == ["a.png", "b.png", "a.png"]
    assert recording.presentations.repeat[:3].tolist() == [0, 0, 1]
    np.testing.assert_allclose(recording.running.running_speed, 2 * np.sin(recording.running.timestamps))
    assert recording.position.value.shape == (60, 2)
    left = "\n".join(notes.left)
    for what in ("1 units: no spikes", "trials.licks", "rows of epochs: no length", "rows of epochs: outside", "raw"):
        assert what in left


def test_nwb_by_address_reads_ranges(tmp_path):
    pytest.importorskip("pynwb")
    pytest.importorskip("remfile")
    write_nwb(tmp_path / "m7.nwb")
    with serve(tmp_path) as (address, served):
        recording = read_nwb(f"{address}/m7.nwb")
        assert len(served) > 1  # by ranges, not as a whole
        with pytest.raises(InputError, match="an NWB file at http"):
            read_nwb(f"{address}/other.nwb")
    np.testing.assert_allclose(trains_of(recording)[0], TRAINS[0])


@pytest.mark.parametrize("uneven", [False, True])
def test_nwb_calcium(tmp_path, uneven):
    pytest.importorskip("pynwb")
    notes = Notes()
    recording = sound(read_nwb(write_nwb(tmp_path / "c.nwb", calcium=True, uneven=uneven), notes=notes), tmp_path)
    assert recording.mua.value.shape[1] == 5 and np.abs(recording.mua.value).max() < 10  # dF/F, not fluorescence
    assert set(recording.units.area) == {"VISp"}
    assert recording.mua.sampling_rate == pytest.approx(10, rel=0.35)
    assert ("uneven" in "\n".join(notes.assumed)) == uneven
    with pytest.raises(InputError, match="series nothing"):
        read_nwb(tmp_path / "c.nwb", values="nothing")


def test_what_is_no_nwb_file_is_said(tmp_path):
    pytest.importorskip("pynwb")
    (tmp_path / "a.nwb").write_bytes(b"nothing")
    with pytest.raises(InputError, match="an NWB file at"):
        read_nwb(tmp_path / "a.nwb")


@pytest.mark.parametrize(
    ("spikes", "trials", "message"),
    [
        (lambda t: np.round(30_000 * t), 1.0, "whole numbers only[\\s\\S]*sampling rate"),
        (lambda t: t, 1_000.0, "They look like milliseconds[\\s\\S]*--leave trials"),
        (lambda t: t, 30_000.0, "They look like sample numbers"),
        (lambda t: t[:0], 1.0, "units that have activity"),
    ],
)
def test_times_that_are_no_seconds_are_refused(tmp_path, spikes, trials, message):
    pynwb = pytest.importorskip("pynwb")
    nwb = pynwb.NWBFile("a session", "id", datetime(2024, 1, 1, tzinfo=UTC))
    for train in TRAINS:
        nwb.add_unit(spike_times=spikes(train))
    for k in range(20):
        nwb.add_trial(start_time=trials * 5 * k, stop_time=trials * (5 * k + 2))
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as writer:
        writer.write(nwb)
    with pytest.raises(InputError, match=message):
        read_nwb(tmp_path / "a.nwb")


def test_spikes_without_a_time_are_left_out():
    units, notes = pd.DataFrame(index=["u"]), Notes()
    draft = Draft("a", "a test", units, notes, lambda _: np.array([1.5, np.nan]), span=(0.0, 60.0))
    assert trains_of(draft.recording(Choices()))[0].tolist() == [1.5] and "1 spikes: their times are NaN" in notes.left


def test_choices(tmp_path):
    pytest.importorskip("pynwb")
    path = write_nwb(tmp_path / "m7.nwb")
    good = read_nwb(path, Choices(where=("quality=good", "snr>1"), leave=("epochs",), presentations="trials.stimulus"))
    assert good.units.snr.tolist() == [2, 4, 5] and "epochs" not in good.keys()
    assert good.presentations.image_id[:2].tolist() == ["cat", "dog"] and len(good.presentations) == 40
    assert set(read_nwb(path, Choices(area="quality")).units.area) == {"good", "noise"}
    for choices, message in (
        (Choices(where=("quality",)), "a condition such as"),
        (Choices(where=("size>1",)), "Columns: .*quality"),
        (Choices(where=("snr>big",)), "a number"),
        (Choices(where=("snr>99",)), "none of 7"),
        (Choices(area="nowhere"), "a column 'nowhere'"),
        (Choices(presentations="trials.nothing"), "trials.stimulus"),
        (Choices(split=SplitPlan(by="nothing")), "epochs|trials"),
    ):
        with pytest.raises(InputError, match=message):
            read_nwb(path, choices)


def test_spikes_can_be_counted(tmp_path):
    recording = sound(read_phy(write_phy(tmp_path / "phy"), Choices(count_in=0.1), sampling_rate=30_000.0), tmp_path)
    assert "spikes" not in recording.keys() and recording.spike_counts.sampling_rate == pytest.approx(10)
    assert recording.spike_counts.value.sum(0).tolist() == [len(TRAINS[k]) for k in (0, 2, 3, 5)]


def test_splits_keep_trials_whole_and_apart(tmp_path):
    pytest.importorskip("pynwb")
    recording = read_nwb(
        write_nwb(tmp_path / "m7.nwb"), Choices(split=SplitPlan(gap=1.0, block=9.0), leave=("presentations",))
    )
    spans = [
        np.stack([d.start, d.end], 1) for d in (recording.train_domain, recording.valid_domain, recording.test_domain)
    ]
    everything = np.concatenate(spans)
    everything = everything[np.argsort(everything[:, 0])]
    assert (everything[1:, 0] - everything[:-1, 1] >= 1.0 - 1e-9).all()
    whole = [
        sum(((spans_of[:, 0] <= a) & (b <= spans_of[:, 1])).any() for spans_of in spans)
        for a, b in zip(recording.trials.start, recording.trials.end, strict=True)
    ]
    assert set(whole) == {1}
    rows = read_nwb(tmp_path / "m7.nwb", Choices(split=SplitPlan(by="trials"), leave=("epochs",)))
    assert [len(getattr(rows, f"{s}_domain")) for s in ("train", "valid", "test")] == [28, 4, 8]


def test_phy_needs_a_rate_and_never_runs_params(tmp_path):
    folder = write_phy(tmp_path / "phy")
    with pytest.raises(InputError, match="sampling rate[\\s\\S]*s at 30,000 Hz"):
        read_phy(folder)
    given = read_phy(folder, sampling_rate=30_000.0)
    assert given.units.group.tolist() == ["good"] * 4 and given.units.id[0] == "phy/3"
    for found, train in zip(trains_of(given), [TRAINS[k] for k in (0, 2, 3, 5)], strict=True):
        np.testing.assert_allclose(found, train, atol=1 / 30_000)
    write_phy(folder, params=f"open({str(tmp_path / 'was_run')!r}, 'w')\nsample_rate = 30000.\ndat_path = 'a'\n")
    written = read_phy(folder, Choices(where=("group=good,mua",)))
    assert len(written.units.id) == 5 and not (tmp_path / "was_run").exists()
    with pytest.raises(InputError, match="30000 Hz[\\s\\S]*25000"):
        read_phy(folder, sampling_rate=25_000.0)
    np.save(folder / "spike_clusters.npy", np.arange(3))
    with pytest.raises(InputError, match="a cluster for each spike"):
        read_phy(folder)
    with pytest.raises(InputError, match="spike_times.npy[\\s\\S]*no such file"):
        read_phy(tmp_path)


def test_spikeinterface_folder_and_object(tmp_path):
    si = pytest.importorskip("spikeinterface.core")
    samples = [np.round(30_000 * train).astype(np.int64) for train in TRAINS]
    sorting = si.NumpySorting.from_unit_dict([dict(zip("abcdef", samples, strict=True))], 30_000.0)
    sorting.set_property("quality", np.array(["good"] * 5 + ["noise"]))
    sorting.save(folder=tmp_path / "sorted")
    for source in (sorting, tmp_path / "sorted"):
        recording = sound(read_spikeinterface(source, Choices(where=("quality=good",))), tmp_path)
        assert [unit.rpartition("/")[2] for unit in recording.units.id] == list("abcde")
        np.testing.assert_allclose(trains_of(recording)[4], TRAINS[4], atol=1 / 30_000)
    with pytest.raises(InputError, match="Use `neurobridge import phy`"):
        read_spikeinterface(tmp_path / "sorted", file_format="phy")
    with pytest.raises(InputError, match="numpysorting_info"):
        read_spikeinterface(tmp_path)
    with pytest.raises(InputError, match="2 segments"):
        read_spikeinterface(si.NumpySorting.from_unit_dict([{"a": samples[0]}, {"a": samples[1]}], 30_000.0))


def write_rasters(folder, n_units=3, n_repeats=6):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for unit in range(n_units):
        labels = rng.permutation(np.repeat(["cat_up", "cat_low", "dog_up", "dog_low"], n_repeats))[
            : 23 if unit else None
        ]
        raster = (rng.random((len(labels), 100)) < 0.05).astype(np.uint8)
        raster[:, unit] = np.char.startswith(labels, "cat")  # a spike in this column marks the label
        split = [label.split("_") for label in labels]
        content = {
            "raster_data": raster,
            "raster_labels": {"what": np.array([w for w, _ in split], dtype=object), "where": [w for _, w in split]},
            "raster_site_info": {"session_ID": 10 + unit, "unit": "A", "alignment_event_time": 51},
        }
        scipy.io.savemat(folder / f"u{unit}.mat", content)
    return folder


def test_rasters_become_a_pseudo_population(tmp_path):
    notes = Notes()
    recording = sound(read_matlab(write_rasters(tmp_path / "it"), notes=notes), tmp_path)
    assert recording.brainset.origin_version == "pseudo-population" and "pseudo-population" in "".join(notes.assumed)
    assert len(recording.units.id) == 3 and len(recording.trials) in (22, 23)
    np.testing.assert_allclose(recording.trials.onset - recording.trials.start, 0.05)
    for unit in range(3):
        train = trains_of(recording)[unit]
        marked = np.isin(np.round(recording.trials.start + 0.001 * unit + 0.0005, 6), np.round(train, 6))
        np.testing.assert_array_equal(marked, recording.trials.what == "cat")
    domains = [len(getattr(recording, f"{split}_domain")) for split in ("train", "valid", "test")]
    assert sum(domains) == len(recording.trials) and min(domains) >= 4
    scipy.io.savemat(
        tmp_path / "it" / "u9.mat", {"raster_data": np.zeros((4, 9)), "raster_labels": {"what": list("abcd")}}
    )
    with pytest.raises(InputError, match="u9.mat"):
        read_matlab(tmp_path / "it")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_arrays_of_a_matlab_file(tmp_path, version):
    path, counts = tmp_path / "a.mat", np.random.default_rng(0).poisson(1.0, (2000, 4)).astype(float)
    if version == "5":
        cells = np.empty(6, dtype=object)
        cells[:] = TRAINS
        content = {"Y": counts, "X": np.cumsum(counts[:, :2], 0), "data": {"spikes": cells, "v": np.arange(5.0)}}
        content["T"] = {"start": [1.0, 5.0], "end": [2.0, 6.0], "side": ["left", "right"]}
        scipy.io.savemat(path, content)
        cells = read_matlab(path, spikes="data.spikes", tables={"trials": "T"})
        np.testing.assert_allclose(trains_of(cells)[1], TRAINS[1])
        assert cells.trials.side.tolist() == ["left", "right"]
    else:
        pytest.importorskip("mat73")
        with matlab_file(path) as file:
            create_double(file, "Y", counts.T)
            create_double(file, "X", np.cumsum(counts[:, :2], 0).T)
    recording = sound(read_matlab(path, counts="Y", bin_size=0.05, behavior={"hand": "X"}), tmp_path)
    np.testing.assert_array_equal(recording.spike_counts.value, counts)
    assert recording.hand.value.shape == (2000, 2) and recording.hand.timestamps[0] == pytest.approx(0.025)
    for arguments, message in (
        ({}, r"Y \(2000, 4\)"),
        ({"counts": "Y"}, "--bin-size"),
        ({"counts": "Z", "bin_size": 0.1}, r"an array named Z[\s\S]*Y \(2000, 4\)"),
    ):
        with pytest.raises(InputError, match=message):
            read_matlab(path, **arguments)


def test_alf_session_with_probes_wheel_and_trials(tmp_path):
    pytest.importorskip("pyarrow")
    session = tmp_path / "ses" / "alf"
    for probe in ("probe00", "probe01"):
        write_alf(session / probe / "pykilosort")
    np.save(session / "_ibl_wheel.timestamps.npy", np.linspace(-1, SECONDS + 5, 1000))
    np.save(session / "_ibl_wheel.position.npy", np.arange(1000.0))
    trials = pd.DataFrame({"intervals_0": [1.0, 5.0], "intervals_1": [2.0, 6.0], "choice": [1, -1]})
    trials.to_parquet(session / "_ibl_trials.table.pqt")
    recording = sound(read_alf(session.parent), tmp_path)
    assert len(recording.units.id) == 12 and recording.units.id[0] == "ses/probe00_c0000"
    assert recording.units.area[:4].tolist() == ["CA1", "VISp", "VISp", "CA1"]
    assert recording.trials.choice.tolist() == [1, -1] and 900 < len(recording.wheel.position) < 1000
    trials.assign(intervals_1=1e5).to_parquet(session / "_ibl_trials.table.pqt")
    with pytest.raises(InputError, match="--leave trials"):
        read_alf(session.parent)
    write_alf(session / "probe00" / "#2024-01-01#")
    with pytest.raises(InputError, match="once for each probe"):
        read_alf(session.parent)


def test_alf_probes_on_another_disk_and_files_of_several_revisions(tmp_path):
    alf = tmp_path / "ses" / "alf"
    write_alf(alf / "probe00")
    write_alf(tmp_path / "disk" / "probe01")
    (alf / "probe01").symlink_to(tmp_path / "disk" / "probe01")
    (alf / "._spikes.times.npy").touch()
    (alf / "probe00" / "._clusters.depths.npy").touch()
    assert len(sound(read_alf(tmp_path / "ses"), tmp_path).units.id) == 12
    np.save(alf / "probe00" / "clusters.depths.npy", np.zeros(40))
    with pytest.raises(InputError, match="clusters.depths.npy 40[\\s\\S]*different revisions"):
        read_alf(tmp_path / "ses")
    (alf / "probe00" / "clusters.depths.npy").unlink()
    np.save(alf / "probe00" / "spikes.times.0a1b.npy", np.zeros(4))
    with pytest.raises(InputError, match="one file of spikes.times"):
        read_alf(tmp_path / "ses")


def test_hidden_files_are_no_rasters(tmp_path):
    for name in ("a.mat", "b.mat"):
        labels = {"stimulus": np.array(["x", "y"], dtype=object)}
        scipy.io.savemat(tmp_path / name, {"raster_data": np.eye(2, 20), "raster_labels": labels})
    (tmp_path / "._a.mat").write_bytes(b"\0\5\26\7")
    assert len(read_matlab(tmp_path).units.id) == 2


@pytest.mark.parametrize("content", ["an archive", b"\x93NUMPY\1\0\n\0{'descr': [", b""])
def test_what_is_no_array_is_named(tmp_path, content):
    folder = write_phy(tmp_path / "phy")
    with (folder / "spike_times.npy").open("wb") as file:
        if content == "an archive":
            np.savez(file, np.arange(3))
        else:
            file.write(content)
    with pytest.raises(InputError, match="an array of numbers at .*spike_times.npy"):
        read_phy(folder, sampling_rate=3e4)


def test_the_command_says_what_was_taken_left_and_assumed(tmp_path):
    folders = [str(write_phy(tmp_path / name)) for name in ("a", "[/b] ü")]
    arguments = ["import", "phy", *folders, "--out", str(tmp_path / "out"), "--sampling-rate", "30000"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.h5", "b.h5"]
    assert "[/b]" in result.output
    for text in ("sampling rate 30000 Hz, as given", "2 of 6 units: group=good", "no areas"):
        assert text in result.output
    assert "is replaced" not in result.output
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "a.h5 was there and is replaced; another recording needs --session NAME" in again.output
    with pytest.raises(InputError, match="one source for --session"):
        CliRunner().invoke(main, [*arguments, "--session", "x"], catch_exceptions=False)


@pytest.mark.recordings
def test_real_files(recordings_dir, tmp_path):
    files = recordings_dir / "lab_files"
    human = sound(read_nwb(files / "nwb_human_mtl" / "sub-4_ses-4.nwb"), tmp_path)
    assert len(human.units.id) == 35 and len(human.spikes.timestamps) == 214_278
    assert set(human.units.area) == {"amygdala_right", "hippocampus_right"}
    assert len(human.encoding_table) == 90 and np.unique(human.encoding_table.stimCategory).size == 3
    assert human.encoding_table.Clip_name[0] == "NB_24.mp4" and len(human.recognition_table) == 180
    phy = sound(read_phy(files / "phy_neuropixels", sampling_rate=30_000.0), tmp_path)
    assert len(phy.units.id) == 140 and phy.domain.end[-1] == pytest.approx(119.84, abs=0.01)
    rasters = sound(read_matlab(files / "raster_it"), tmp_path)
    assert len(rasters.units.id) == 132 and len(rasters.trials) == 419
    assert rasters.brainset.origin_version == "pseudo-population"
    alf = sound(read_alf(recordings_dir / "recordings" / "ibl_alf", Choices(leave=("trials", "wheel"))), tmp_path)
    assert len(alf.units.id) == 289
