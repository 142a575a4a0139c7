"""The simulated raw files: published layout, same bytes, agreement with each other."""

import gzip
import io
import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.stats

from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation import VentralStream, simulate_tvsd
from neurobridge_tb.simulation.tvsd_files import WINDOW_MS, pairwise_reliability

SMALL = {"n_concepts": 5, "images_per_concept": 3, "n_test": 4, "n_repeats": 5, "image_size": 32}
N_TRAIN, N_TEST, N_REPEATS = 15, 4, 5


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated")
    simulate_tvsd(out, **SMALL, trials=True)
    return out


@pytest.fixture(scope="module")
def folder(workspace):
    return workspace / "raw" / "tvsd" / "monkeyF"


def text(file, reference):
    return file[reference][()].astype("<u2").tobytes().decode("utf-16-le")


def strings(path, name):
    with h5py.File(path) as file:
        return [text(file, reference) for reference in file[name][:, 0]]


def test_same_seed_same_bytes(workspace, tmp_path):
    time.sleep(1.1)  # a stored time would differ
    simulate_tvsd(tmp_path, **SMALL, trials=True)
    files = sorted(p.relative_to(workspace) for p in workspace.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(files) == N_TRAIN + N_TEST + 5
    for name in files:
        assert (workspace / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_other_seed_other_responses(folder, tmp_path):
    other = simulate_tvsd(tmp_path, **SMALL, seed=1)
    with h5py.File(folder / "THINGS_normMUA.mat") as a, h5py.File(other / "THINGS_normMUA.mat") as b:
        assert (
            abs(np.corrcoef(np.nan_to_num(a["train_MUA"][:]).ravel(), np.nan_to_num(b["train_MUA"][:]).ravel())[0, 1])
            < 0.3
        )
    assert not (other / "THINGS_MUA_trials.mat").exists()


def test_norm_file_has_the_published_variables(folder):
    pairs = N_REPEATS * (N_REPEATS - 1) // 2
    expected = {
        "train_MUA": (N_TRAIN, 1024), "test_MUA": (N_TEST, 1024), "test_MUA_reps": (N_REPEATS, N_TEST, 1024),
        "SNR": (4, 1024), "lats": (4, 1024), "SNR_max": (1024, 1), "oracle": (1024, 1), "reliab": (pairs, 1024),
        "tb": (300, 1),
    }  # fmt: skip
    with h5py.File(folder / "THINGS_normMUA.mat") as file:
        assert {name: dataset.shape for name, dataset in file.items()} == expected
        assert all(dataset.dtype == np.float64 for dataset in file.values())
        assert all(dataset.attrs["MATLAB_class"] == b"double" for dataset in file.values())
        assert file["tb"][0, 0] == -100 and file["tb"][-1, 0] == 199
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(file["SNR_max"][:, 0], np.nanmax(file["SNR"][:], axis=0))
        np.testing.assert_allclose(file["test_MUA"][:], np.nanmean(file["test_MUA_reps"][:], axis=0))


@pytest.mark.parametrize("name", ["THINGS_normMUA.mat", "THINGS_MUA_trials.mat", "_logs/things_imgs.mat"])
def test_v73_user_block(folder, name):
    with open(folder / name, "rb") as file:
        block = file.read(520)
    assert block.startswith(b"MATLAB 7.3 MAT-file")
    assert block[124:128] == b"\x00\x02IM"
    assert block[512:] == b"\x89HDF\r\n\x1a\n"
    assert scipy.io.matlab.matfile_version(folder / name)[0] == 2


def test_reliability_against_scipy(folder):
    with h5py.File(folder / "THINGS_normMUA.mat") as file:
        repeats, stored = file["test_MUA_reps"][:], file["reliab"][:]
    for channel in (0, 300, 700, 1023):
        k = 0
        for i in range(N_REPEATS):
            for j in range(i + 1, N_REPEATS):
                a, b = repeats[i, :, channel], repeats[j, :, channel]
                expected = np.nan if np.isnan(a + b).any() else scipy.stats.pearsonr(a, b).statistic
                np.testing.assert_allclose(stored[k, channel], expected, atol=1e-9)
                k += 1


def test_reliability_is_nan_only_where_a_repeat_is():
    repeats = np.random.default_rng(0).normal(size=(4, 10, 3))
    repeats[2, 5, 1] = np.nan
    missing = np.isnan(pairwise_reliability(repeats))
    assert missing[:, 1].tolist() == [False, True, False, True, False, True]
    assert not missing[:, [0, 2]].any()


def test_image_list_names_the_files_on_disk(workspace, folder):
    path = folder / "_logs" / "things_imgs.mat"
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        things, concepts, local = (strings(path, f"{split}_imgs/{f}") for f in ("things_path", "class", "local_path"))
        assert len(things) == len(concepts) == len(local) == n
        for image, concept in zip(things, concepts, strict=True):
            assert image.startswith(f"{concept}\\{concept}_")
            assert (workspace / "images" / image.replace("\\", "/")).is_file()
        assert all("\\" in name and name.endswith(".bmp") for name in local)


def describe(item):
    """Type and attributes of one object, as a reader meets them."""
    attributes = {
        key: [bytes(b"".join(v)) for v in value] if key == "MATLAB_fields" else np.asarray(value).dtype.kind
        for key, value in item.attrs.items()
    }
    return type(item).__name__, str(getattr(item, "dtype", "")), attributes


@pytest.mark.recordings
def test_image_list_is_built_like_the_published_one(folder):
    recordings = os.environ.get("NEUROBRIDGE_RECORDINGS")
    if not recordings:
        pytest.skip("NEUROBRIDGE_RECORDINGS is not set")
    published = gzip.open(Path(recordings) / "tvsd" / "things_imgs.mat.gz").read()
    with h5py.File(io.BytesIO(published)) as real, h5py.File(folder / "_logs" / "things_imgs.mat") as ours:
        assert ours.userblock_size == real.userblock_size
        assert set(ours) == set(real)
        assert len(real["#refs#"]) == 3 * (22248 + 100) + 1 and len(ours["#refs#"]) == 3 * (N_TRAIN + N_TEST) + 1
        assert describe(ours["#refs#/a"]) == describe(real["#refs#/a"])
        for split in ("train_imgs", "test_imgs"):
            assert describe(ours[split]) == describe(real[split])
            for field in real[split]:
                a, b = ours[split][field], real[split][field]
                assert describe(a) == describe(b) and a.ndim == b.ndim and a.shape[1] == b.shape[1]
                first, published_first = ours[a[0, 0]], real[b[0, 0]]
                assert describe(first) == describe(published_first)
                assert first.shape[1:] == published_first.shape[1:] == (1,)
        first = [ours[ours[f"test_imgs/{f}"][0, 0]].name for f in ("class",)]
        assert first == [real[real["test_imgs/class"][0, 0]].name]  # numbered in MATLAB's way


def test_trials_file_agrees_with_the_norm_file(folder):
    mapping = scipy.io.loadmat(folder / "_logs" / "1024chns_mapping_20220105.mat")["mapping"]
    assert mapping.shape == (1, 1024) and sorted(mapping[0]) == list(range(1, 1025))
    with h5py.File(folder / "THINGS_MUA_trials.mat") as file:
        table, time_ms = file["ALLMAT"][:].astype(int), file["tb"][:, 0]
        traces = file["ALLMUA"][:]
    n = N_TRAIN + N_TEST * N_REPEATS
    assert traces.shape == (300, n, 1024) and traces.dtype == np.float64 and table.shape == (6, n)
    trial, train, test, repeat, count, day = table
    assert ((train > 0) ^ (test > 0)).all() and set(day) == {1, 2, 3, 4} and set(count) <= {1, 2, 3, 4}
    assert (np.diff(trial) >= 0).all() and trial[0] == 1

    physical = traces[:, :, mapping[0].astype(int) - 1]
    area = VentralStream("F").electrodes.area
    response = np.empty((n, 1024))
    for name, (start, stop) in WINDOW_MS.items():
        inside = (time_ms >= start) & (time_ms < stop)
        response[:, area == name] = physical[inside][:, :, area == name].mean(axis=0)
    with h5py.File(folder / "THINGS_normMUA.mat") as file:
        stored_train, stored_reps = file["train_MUA"][:], file["test_MUA_reps"][:]
    live = np.nanvar(stored_train, axis=0) > 0.01
    assert 1000 < live.sum() < 1024
    for today in range(1, 5):
        shown = response[(day == today) & (test > 0)]
        rows = day == today
        with np.errstate(invalid="ignore"):
            response[rows] = (response[rows] - shown.mean(axis=0)) / shown.std(axis=0, ddof=1)
    complete = live & ~np.isnan(stored_train).any(axis=0) & ~np.isnan(stored_reps).any(axis=(0, 1))
    assert complete.sum() > 950
    for row in range(n):
        stored = stored_train[train[row] - 1] if train[row] else stored_reps[repeat[row] - 1, test[row] - 1]
        np.testing.assert_allclose(response[row, complete], stored[complete], atol=2e-3)


def test_traces_answer_after_the_latency_of_their_area(folder):
    mapping = scipy.io.loadmat(folder / "_logs" / "1024chns_mapping_20220105.mat")["mapping"][0].astype(int)
    with h5py.File(folder / "THINGS_MUA_trials.mat") as file:
        mean = np.nanmean(file["ALLMUA"][:], axis=1)[:, mapping - 1]
        time_ms = file["tb"][:, 0]
    with h5py.File(folder / "THINGS_normMUA.mat") as file:
        latency = file["lats"][0]
    area = VentralStream("F").electrodes.area
    onset = {}
    for name in ("V1", "V4", "IT"):
        course = np.nanmean(mean[:, (area == name) & ~np.isnan(latency)], axis=1)
        course = np.convolve(course - course[time_ms < 0].mean(), np.ones(5) / 5, "same")
        assert np.abs(course[time_ms < 20]).max() < 0.15 * course.max()  # silent before
        onset[name] = time_ms[course > 0.5 * course.max()][0]
    assert onset["V1"] < onset["V4"] < onset["IT"]


def test_dead_channels_and_missing_values(folder):
    with h5py.File(folder / "THINGS_normMUA.mat") as file:
        train, latency = file["train_MUA"][:], file["lats"][:]
    with np.errstate(invalid="ignore"):
        silent = np.nanvar(train, axis=0) < 0.01
    assert 0 < silent.sum() < 10
    assert np.isnan(train).any()
    assert np.isnan(latency[:, silent]).all()


def test_note_says_simulated_and_keeps_both_monkeys(tmp_path):
    for monkey in ("F", "N"):
        simulate_tvsd(tmp_path, **SMALL, monkey=monkey, noise=0.5)
    note = json.loads((tmp_path / "raw" / "tvsd" / "simulation.json").read_text())
    assert note["simulated"] is True
    assert note["monkeyF"]["noise"] == note["monkeyN"]["noise"] == 0.5
    assert note["monkeyN"]["images"] == "drawn"


def test_recorded_files_are_never_replaced(tmp_path):
    recorded = tmp_path / "raw" / "tvsd" / "monkeyF" / "THINGS_normMUA.mat"
    recorded.parent.mkdir(parents=True)
    recorded.write_bytes(b"recorded")
    with pytest.raises(InputError, match="not simulated"):
        simulate_tvsd(tmp_path, **SMALL)
    assert recorded.read_bytes() == b"recorded"


def test_a_damaged_note_is_named(tmp_path):
    note = tmp_path / "raw" / "tvsd" / "simulation.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"simulated": tr')
    with pytest.raises(InputError, match=r"a JSON object in .*simulation\.json"):
        simulate_tvsd(tmp_path)


def test_photos_of_the_user_are_read_where_they_lie(workspace, tmp_path):
    photos = workspace / "images"
    stages = []
    sizes = {**SMALL, "images_per_concept": 2}
    folder = simulate_tvsd(tmp_path, images_dir=photos, **sizes, progress=lambda *step: stages.append(step))
    assert not (tmp_path / "images").exists()
    for split in ("train", "test"):
        for name in strings(folder / "_logs" / "things_imgs.mat", f"{split}_imgs/things_path"):
            assert (photos / name.replace("\\", "/")).is_file()
    assert {name for name, _, _ in stages} == {"reading images", "simulating the ventral stream"}
    assert all(0 < done <= total for _, done, total in stages)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"monkey": "X"}, "'X'"),
        ({"noise": -1.0}, "-1.0"),
        ({"noise": float("nan")}, "nan"),
        ({"n_repeats": 2}, "2 repeats"),
        ({"n_test": 9}, "9"),
        ({"images_dir": "/no/such/folder"}, "no folder"),
    ],
)
def test_bad_settings_leave_no_raw_files(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        simulate_tvsd(tmp_path, **{**SMALL, **wrong})
    assert not (tmp_path / "raw").exists() and not (tmp_path / "images").exists()
