"""Damaged recordings: each fault is named with its place and remedy, and a sound recording has none."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from neurobridge_tb._upstream import ArrayDict, Data, Interval, RegularTimeSeries
from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.validation import examination, scans
from neurobridge_tb.datasets.validation.examination import examine, find_faults, refuse_faulty
from neurobridge_tb.errors import InputError

N_UNITS, N_BINS, BIN = 4, 500, 0.02
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 10, 3000))
OWNERS = RNG.integers(0, N_UNITS, 3000)
COUNTS = RNG.poisson(2.0, (N_BINS, N_UNITS)).astype(np.uint8)
CLOCK = 0.005 + 0.01 * np.arange(1000)


def build(**changes):
    given = {
        "brainset_id": "lab",
        "session_id": "s1",
        "subject_id": "rat",
        "units": {"id": [f"u{n}" for n in range(N_UNITS)], "area": ["A", "A", "B", "B"]},
        "spikes": (TIMES, OWNERS),
        "counts": (COUNTS, BIN),
        "mua": (RNG.normal(size=(N_BINS, N_UNITS)), BIN),
        "behavior": {"hand_velocity": (CLOCK, RNG.normal(size=(1000, 2)))},
        "trials": {"start": [0.0, 4.0], "end": [4.0, 9.0], "side": ["left", "right"]},
        "splits": {"train": ([0.0, 7.0], [5.0, 8.0]), "valid": ([5.0], [7.0]), "test": ([8.0], [10.0])},
        "end": 10.0,
    }
    return build_recording(**given | changes)


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "s1.h5"
    save_recording(build(), path)
    return path


def replace(file, name, values):
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def test_a_sound_recording_has_no_faults_and_its_contents_are_told(sound):
    contents, faults = examine(sound)
    assert faults == []
    assert contents.descriptions["session.id"] == "s1" and contents.descriptions["subject.id"] == "rat"
    assert contents.unit_ids.tolist() == ["u0", "u1", "u2", "u3"] and contents.areas.tolist() == ["A", "A", "B", "B"]
    assert contents.spikes_per_unit.tolist() == np.bincount(OWNERS, minlength=N_UNITS).tolist()
    shape, rate, scan = contents.grids["spike_counts/value"]
    assert shape == COUNTS.shape and rate == pytest.approx(50) and scan.total.tolist() == COUNTS.sum(0).tolist()
    times, columns = contents.events["hand"]
    assert (times.count, times.first, times.last) == (1000, CLOCK[0], CLOCK[-1]) and columns == {"velocity": (1000, 2)}
    assert contents.intervals["train_domain"][0].tolist() == [[0, 5], [7, 8]]
    assert contents.intervals["trials"][1] == ["side"]
    assert contents.domain.tolist() == [[0, 10]]


def swap_times(file):
    file["spikes/timestamps"][[1000, 1001]] = file["spikes/timestamps"][:][[1001, 1000]]


def edit_time_index(file):
    file["spikes/timestamps"][:] = file["spikes/timestamps"][:] * 0.5


def overlap_splits(file):
    file["train_domain/end"][:] = [6.0, 8.0]


def shorten(name):
    return lambda file: replace(file, name, file[name][:-1])


def put(name, row, value):
    def damage(file):
        file[name][row] = value

    return damage


def drop(*names):
    def damage(file):
        for name in names:
            del file[name]

    return damage


def put_attribute(name, key, value):
    def damage(file):
        file[name].attrs[key] = value

    return damage


def drop_attribute(name, key):
    def damage(file):
        del file[name].attrs[key]

    return damage


def as_text(file):
    replace(file, "spike_counts/value", COUNTS.astype("S3"))


def as_complex(file):
    replace(file, "mua/value", file["mua/value"][:].astype(np.complex64))


def link_to_nothing(file):
    del file["spike_counts/value"]
    file["spike_counts/value"] = h5py.SoftLink("/elsewhere")


def as_array(name):
    def damage(file):
        del file[name]
        file[name] = np.zeros(3)

    return damage


def link_out_of_the_file(file):
    del file["spike_counts/value"]
    file["spike_counts/value"] = h5py.ExternalLink("/etc/secret.h5", "/x")


def blank(file):
    file["mua/value"][100:175] = np.nan


ERRORS = {
    "counts as text": (as_text, "spike_counts/value", "values of type |S3", "array of numbers"),
    "complex values": (as_complex, "mua/value", "values of type complex64", "array of numbers"),
    "no rows": (lambda f: replace(f, "mua/value", np.empty((0, 4))), "mua/value", "no values", "(bins, units)"),
    "beyond float32": (lambda f: replace(f, "mua/value", np.full((500, 4), 1e300)), "mua/value", "float32", "unit of"),
    "rate as text": (put_attribute("mua", "sampling_rate", "50"), "mua", "sampling rate of '50'", "one number"),
    "array for a split": (as_array("train_domain"), "train_domain", "no Interval", "Build it again"),
    "array for units": (as_array("spikes"), "spikes", "no IrregularTimeSeries", "Build it again"),
    "foreign text": (put("units/area", 1, b"\xff"), "units/area", "not ASCII", "Build it again"),
    "two areas a unit": (lambda f: replace(f, "units/area", np.full((4, 2), b"A")), "units/area", "(4, 2)", "a row"),
    "a group of nothing": (lambda f: f.create_group("notes"), "file", "cannot be read", "missing"),
    "dangling link": (link_to_nothing, "spike_counts/value", "leads nowhere", "Remove the link"),
    "external link": (link_out_of_the_file, "spike_counts/value", "out of the file, to /etc/secret.h5", "Copy"),
    "unsorted timestamps": (swap_times, "spikes/timestamps", "at row 1,001", "Sort"),
    "timestamps NaN": (put("hand/timestamps", 7, np.nan), "hand/timestamps", "at row 7", "Sort"),
    "edited timestamps": (edit_time_index, "spikes/timestamp_indices_1s", "wrong rows", "Build it again"),
    "unit_index too large": (put("spikes/unit_index", 9, 4), "spikes/unit_index", "4 at row 9, for 4 units", "0 to 3"),
    "unit_index negative": (put("spikes/unit_index", 9, -1), "spikes/unit_index", "-1 at row 9", "0 to 3"),
    "no unit_index": (drop("spikes/unit_index"), "spikes/unit_index", "no whole numbers", "from 0"),
    "unit_index short": (shorten("spikes/unit_index"), "spikes/unit_index", "2,999 values, where 3,000", "one length"),
    "duplicated unit ids": (put("units/id", 1, b"u0"), "units/id", "used more than once: u0", "Rename"),
    "nameless unit": (put("units/id", 1, b""), "units/id", "1 units without a name", "Name each"),
    "units as bytes": (put_attribute("units", "_unicode_keys", [b"area"]), "units/id", "read as bytes", "Build it"),
    "no units": (drop("units"), "units", "no units", "Give units"),
    "area short": (shorten("units/area"), "units/area", "3 values, where 4", "one length"),
    "domain too short": (put("domain/end", 0, 9.0), "spikes", "reaches out of the recording's domain, 0 to 9", "clock"),
    "own domain too short": (put("spikes/domain/end", 0, 5.0), "spikes", "out of its own domain, 0 to 5 s", "cover"),
    "no domain": (drop("domain"), "domain", "no time span", "Interval 'domain'"),
    "no session": (drop("session"), "session", "no id", "session_id"),
    "empty subject": (put_attribute("subject", "id", ""), "subject", "no id", "subject_id"),
    "no origin": (drop_attribute("brainset", "origin_version"), "brainset", "no origin_version", "brainset_id"),
    "another session": (put_attribute("session", "id", "s2"), "file", "its session is s2", "s2.h5"),
    "overlapping splits": (overlap_splits, "train_domain", "1 intervals overlap with valid_domain", "Move the border"),
    "split out of the recording": (put("test_domain/end", 0, 11.0), "test_domain", "8 to 11 s reaches out", "domain"),
    "overlap in a split": (put("train_domain/start", 1, 4.0), "train_domain", "row 1 begins before", "border"),
    "trial without length": (put("trials/end", 1, 4.0), "trials", "1 without length", "after its start"),
    "unsorted trials": (put("trials/start", 0, 4.5), "trials", "", ""),
    "trial column short": (shorten("trials/side"), "trials/side", "1 values, where 2", "one length"),
    "starts without ends": (shorten("trials/end"), "trials", "equal number", "one end for each"),
    "counts short": (shorten("spike_counts/value"), "spike_counts/value", "499 rows at 50 Hz", "domain"),
    "fractional counts": (
        lambda f: replace(f, "spike_counts/value", COUNTS / 2), "spike_counts/value", "no counts", "mua",
    ),
    "units first": (lambda f: replace(f, "mua/value", COUNTS.T[:, :500].astype("f4")), "mua/value", "4 units", "units"),
    "infinite": (put("mua/value", (3, 1), np.inf), "mua/value", "1 infinite", "NaN"),
    "no neural data": (drop("spikes", "spike_counts", "mua"), "file", "no neural data", "spikes, spike_counts or mua"),
    "unknown object": (put_attribute("mua", "object", "Movie"), "mua", "Movie without", "Build it again"),
    "no index": (drop("spikes/timestamp_indices_1s"), "spikes", "without timestamp_indices_1s", "Build it again"),
    "times as text": (lambda f: replace(f, "trials/start", [b"a", b"b"]), "trials", "without start", "Build it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_faults_are_named_with_place_and_remedy(sound, name):
    damage, place, found, fix = ERRORS[name]
    with h5py.File(sound, "r+") as file:
        damage(file)
    faults = [f for f in find_faults(sound) if f.is_error]
    assert [f for f in faults if f.place == place and found in f.found and fix in f.fix], faults


def nan_in_most(file):
    file["mua/value"][:300] = np.nan


def go_on(file):
    file["hand/timestamps"][-1] = 10.5
    file["hand/domain/end"][0] = 11.0
    replace(file, "hand/timestamp_indices_1s", np.searchsorted(file["hand/timestamps"][:], np.arange(0.0, 11.5)))


WARNINGS = {
    "silent unit": (
        put("spike_counts/value", (slice(None), 2), 0),
        "spike_counts/value",
        "1 of 4 units are never active",
    ),
    "constant unit": (put("mua/value", (slice(None), 2), 3.0), "mua/value", "never active: u2"),
    "unit without spikes": (put("spikes/unit_index", OWNERS == 3, 0), "spikes", "never active: u3"),
    "a stretch without values": (blank, "mua/value", "1 stretches, the longest 1.5 s from 2 s"),
    "absent in most bins": (nan_in_most, "mua/value", "60.0% NaN"),
    "behaviour NaN": (put("hand/velocity", slice(100), np.nan), "hand/velocity", "10.0% NaN"),
    "behaviour goes on": (go_on, "hand", "0.005 to 10.5 s reaches out of the recording's domain"),
    "no splits": (drop("train_domain", "valid_domain"), "train_domain", "splits: test"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_a_recording_may_have_is_a_warning_alone(sound, name):
    damage, place, found = WARNINGS[name]
    with h5py.File(sound, "r+") as file:
        damage(file)
    faults = find_faults(sound)
    assert [(f.place, f.is_error) for f in faults] == [(place, False)] and found in faults[0].found


def test_dead_channels_that_are_marked_are_no_news(tmp_path):
    mua = RNG.normal(size=(N_BINS, N_UNITS))
    mua[:, 1] = np.nan
    units = {"id": ["a", "b", "c", "d"], "is_dead": [False, True, False, False]}
    save_recording(build(mua=(mua, BIN), units=units), tmp_path / "s1.h5")
    assert find_faults(tmp_path / "s1.h5") == []


def test_a_domain_in_two_parts_and_nested_data_are_sound(sound):
    recording = build()
    series = RegularTimeSeries(value=np.zeros((N_BINS, 2)), sampling_rate=1 / BIN)
    recording.video = Data(eye=series, shown=Interval([1.0, 2.0], [2.0, 3.0]), domain=recording.domain)
    recording.notes = ArrayDict(text=np.array(["a", "b"]))
    recording._domain = Interval([0.0, 5.0], [5.0, 10.0])
    save_recording(recording, sound)
    contents, faults = examine(sound)
    assert faults == [] and "video/eye/value" in contents.grids and "video/shown" in contents.intervals
    assert BinnedRecordings(sound.parent).get_recording("s1").video.eye.value.shape == (N_BINS, 2)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"not HDF5 at all"), "cannot be read"),
        (lambda path: h5py.File(path, "w").close(), "an HDF5 file of another kind, not a recording"),
        (lambda path: h5py.File(path, "w").attrs.update(nwb_version="2.7.0"), "an NWB file"),
    ],
)
def test_what_is_no_recording(tmp_path, write, found):
    write(tmp_path / "x.h5")
    [fault] = find_faults(tmp_path / "x.h5")
    assert fault.place == "file" and found in fault.found and fault.fix


def test_files_cut_at_any_byte_are_named(sound):
    content = sound.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        sound.write_bytes(content[: int(share * len(content))])
        assert any(f.is_error for f in find_faults(sound)), share


def test_slabs_change_nothing(sound, monkeypatch):
    with h5py.File(sound, "r+") as file:
        swap_times(file)
        put("mua/value", (slice(200), 1), np.nan)(file)
    whole, faults = examine(sound)
    monkeypatch.setattr(scans, "_SLAB_BYTES", 77)
    slabbed, slabbed_faults = examine(sound)
    assert slabbed_faults == faults and faults
    assert slabbed.spikes_per_unit.tolist() == whole.spikes_per_unit.tolist()
    for name in whole.grids:
        for a, b in zip(vars(whole.grids[name][2]).values(), vars(slabbed.grids[name][2]).values(), strict=True):
            np.testing.assert_allclose(a, b)


def test_only_one_slab_at_a_time_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        big = file.create_dataset("value", (100_000, 1024), "f4", chunks=(100, 1024), compression="gzip")
        rows = [(first, len(slab)) for first, slab in scans.slabs(big)]
    assert sum(n for _, n in rows) == 100_000
    assert all(n * 4096 <= scans._SLAB_BYTES and first % 100 == 0 for first, n in rows)


def test_command_tells_what_is_there_and_exits_with_1_on_faults(sound):
    result = CliRunner().invoke(main, ["validate", str(sound)])
    assert result.exit_code == 0 and "No faults" in result.output
    for text in ("subject rat", "spike_counts/value", "(500, 4)", "hand", "trials", "valid_domain"):
        assert text in result.output
    with h5py.File(sound, "r+") as file:
        overlap_splits(file)
    result = CliRunner().invoke(main, ["validate", str(sound), str(sound.parent / "none.h5")])
    assert result.exit_code == 1
    assert "train_domain" in result.output and "Move the border" in result.output.replace("\n", " ")
    assert "2 of 2 recordings have faults" in result.output


def test_test_images_that_are_trained_on_are_pointed_out(tmp_path):
    starts = np.arange(0.0, 10.0, 0.5)
    images = [f"im{k % 10}" for k in range(20)]  # each is shown before 5 s and after
    presentations = {"start": starts, "end": starts + 0.4, "image_id": images}
    save_recording(build(intervals={"presentations": presentations}), tmp_path / "s1.h5")
    faults = find_faults(tmp_path / "s1.h5")
    assert [(f.place, f.is_error) for f in faults] == [("presentations/image_id", False)] * 2
    assert "4 of 4 test images are in train too: im6, im7, im8" in faults[0].found
    assert "4 of 4 valid images are in train too: im0, im1, im2" in faults[1].found


def test_training_refuses_what_validation_calls_a_fault(sound, tmp_path):
    save_recording(build(session_id="s2"), tmp_path / "s2.h5")
    refuse_faulty([sound, tmp_path / "s2.h5"])
    with h5py.File(sound, "r+") as file:
        as_complex(file)
    with pytest.raises(InputError, match="s1.h5: mua/value: values of type complex64"):
        refuse_faulty([sound, tmp_path / "s2.h5"])


def test_a_sound_recording_is_examined_once_and_again_when_it_has_changed(sound, monkeypatch):
    examined = []
    monkeypatch.setattr(examination, "find_faults", lambda path: examined.append(path) or find_faults(path))
    for _ in range(3):
        refuse_faulty([sound])
    assert examined == [sound]
    with h5py.File(sound, "r+") as file:
        as_complex(file)
    for _ in range(2):  # a fault may be gone the next time, as that of a file that was open elsewhere
        with pytest.raises(InputError, match="complex64"):
            refuse_faulty([sound])
    assert examined == [sound] * 3


def test_a_recording_that_is_open_for_writing_is_not_called_damaged(sound):
    with h5py.File(sound, "r+"):
        code = "from neurobridge_tb.datasets.validation.examination import find_faults; "
        code += f"print(find_faults({str(sound)!r}))"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "open for writing elsewhere" in said
        code = f"from neurobridge_tb.datasets import BinnedRecordings; BinnedRecordings({str(sound.parent)!r})"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
        assert "open for writing elsewhere" in said and "emove" not in said


def test_hidden_files_are_no_recordings(sound):
    (sound.parent / "._s1.h5").write_bytes(b"resource fork")
    assert BinnedRecordings(sound.parent).recording_ids == ["s1"]


def test_more_recordings_than_open_files_are_allowed(tmp_path):
    for k in range(60):
        save_recording(build(session_id=f"r{k:02d}"), tmp_path / f"r{k:02d}.h5")
    for hard in (1000, 50):  # the limit can be raised, or files are opened as they are needed
        code = "import resource; from neurobridge_tb.datasets import BinnedRecordings; "
        code += f"resource.setrlimit(resource.RLIMIT_NOFILE, (50, {hard})); "
        code += f"dataset = BinnedRecordings({str(tmp_path)!r}); "
        code += "print(len([dataset.get_recording(r).units.id for r in dataset.recording_ids]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "60", done.stderr
