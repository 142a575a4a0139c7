"""``brainsets prepare tvsd -s monkeyF_trials``: what is in the HDF5 file is what was in the raw trial file."""

import h5py
import numpy as np
import pytest
from tvsd_raw import (
    N_CHANNELS,
    TEST,
    TRAIN,
    check_trial_windows,
    mapping,
    traces,
    trial_table,
    write_image_names,
    write_mapping,
    write_trials,
)

from neurobridge_tb.datasets import Tvsd

TRIALS = "monkeyF_trials"
TABLE = trial_table()
N = TABLE.shape[1]


@pytest.fixture(scope="module")
def values():
    return traces(N)


def replace_trials(raw, table, values, **options):
    path = raw / "monkeyF" / "THINGS_MUA_trials.mat"
    path.unlink(missing_ok=True)
    write_trials(path, table, values, **options)


def read(folder):
    return Tvsd(folder.parent, variant="trials").get_recording("monkeyF_trials")


def test_each_window_is_the_binned_normalised_trace_of_its_image(raw_trials, prepare, values):
    check_trial_windows(prepare(item=TRIALS).parent, TABLE, values)


@pytest.mark.parametrize("size", [0.005, 0.1])
def test_bin_size(raw_trials, prepare, values, size):
    folder = prepare(f"--bin-size={size}", item=TRIALS)
    check_trial_windows(folder.parent, TABLE, values, samples=round(1000 * size))
    assert read(folder).brainset.bin_size == size


def test_unsorted_days_are_put_in_order(raw_trials, prepare, values):
    table = trial_table(n_days=3, sorted_days=False)
    replace_trials(raw_trials, table, values, chunks=(300, 8, 64))
    folder = prepare(item=TRIALS)
    check_trial_windows(folder.parent, table, values)
    presentations = read(folder).presentations
    assert (np.diff(presentations.day) >= 0).all()
    assert presentations.trial.tolist() == table[0, np.argsort(table[5], kind="stable")].tolist()


def test_seventh_row_of_the_table_is_kept(raw_trials, prepare, values):
    correct = np.arange(N) % 2
    replace_trials(raw_trials, np.vstack([TABLE, correct]), values)
    folder = prepare(item=TRIALS)
    check_trial_windows(folder.parent, TABLE, values)
    assert read(folder).presentations.correct.tolist() == correct.tolist()


def test_days_are_apart(raw_trials, prepare):
    data = read(prepare(item=TRIALS))
    first_day = int((TABLE[5] == 1).sum())
    edges = [0, 0.3 * first_day, 0.3 * (first_day + 1), 0.3 * (N + 1)]
    np.testing.assert_allclose(np.stack([data.domain.start, data.domain.end]).T.ravel(), edges)
    np.testing.assert_allclose(np.stack([data.mua.domain.start, data.mua.domain.end]).T.ravel(), edges)
    between = data.mua.value[30 * first_day : 30 * (first_day + 1)]
    assert len(data.mua.value) == 30 * (N + 1) and np.isnan(between).all()
    step = np.diff(data.presentations.start)
    assert np.flatnonzero(step > 0.31).tolist() == [first_day - 1]


def test_stored_statistics_give_back_the_raw_bins(raw_trials, prepare, values):
    data = read(prepare(item=TRIALS))
    k = int(np.flatnonzero(data.presentations.day == 2)[3])
    row = 30 * (k + 1)  # a window is empty between the days
    raw = data.mua.value[row : row + 30] * data.units.raw_deviation[:, 1] + data.units.raw_mean[:, 1]
    expected = values[:, k, mapping() - 1].reshape(30, 10, N_CHANNELS).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-4)


def test_values_that_are_not_finite_are_absent_and_dead_units_are_marked(raw_trials, prepare):
    data = read(prepare(item=TRIALS))
    raw_channel = mapping()[data.units.channel] - 1
    bins = data.mua.value.reshape(-1, 30, N_CHANNELS)
    bins = np.delete(bins, int((TABLE[5] == 1).sum()), axis=0)
    absent = {int(r): np.argwhere(np.isnan(bins[:, :, raw_channel == r])[..., 0]) for r in (100, 101, 102, 103, 104)}
    assert len(absent[100]) == N * 30 and len(absent[101]) == 5 * 30
    assert absent[102].tolist() == [[7, 12]] and absent[103].tolist() == [[8, 25]] and not len(absent[104])
    assert sorted(raw_channel[data.units.is_dead]) == [*range(64), 100]
    assert np.nanmax(np.abs(bins[:, :, raw_channel < 64])) < 0.1  # noise of a dead unit is not blown up


def test_units_have_the_place_and_quality_of_the_norm_variant(raw_trials, prepare):
    prepare()
    trials = read(folder := prepare(item=TRIALS)).units
    norm = Tvsd(folder.parent).get_recording("monkeyF_norm").units
    for name in ("id", "area", "array", "channel", "snr", "reliability", "latency_ms"):
        np.testing.assert_array_equal(getattr(trials, name), getattr(norm, name))


@pytest.mark.parametrize("variant", ["norm", "trials"])
def test_reliability_chooses_units(raw_trials, prepare, variant):
    item = f"monkeyF_{variant}"
    whole = Tvsd(prepare(item=item).parent, [item]).get_recording(item)
    folder = prepare("--min-reliability=0.5", "--reprocess", item=item)
    some = Tvsd(folder.parent, [item]).get_recording(item)
    stays = whole.units.reliability >= 0.5
    assert 0 < stays.sum() < N_CHANNELS
    assert some.units.id.tolist() == whole.units.id[stays].tolist()
    np.testing.assert_allclose(some.mua.value, whole.mua.value[:, stays], rtol=1e-6, atol=1e-3)
    assert some.units.is_dead.tolist() == whole.units.is_dead[stays].tolist()


@pytest.mark.parametrize("variant", ["norm", "trials"])
def test_test_concepts_can_be_excluded(raw_trials, prepare, variant):
    item = f"monkeyF_{variant}"
    dataset = Tvsd(prepare("--exclude-test-concepts", item=item, VALID_FRACTION=0.3).parent, [item])
    presentations = dataset.get_recording(item).presentations
    by_split = {split: set(presentations.concept[presentations.split == split]) for split in set(presentations.split)}
    assert by_split["test"] == by_split["excluded"] == {"cat", "owl"}
    assert by_split["train"] | by_split["valid"] == {"dog", "bee", "fox"}
    sampled = sum(len(dataset.get_sampling_intervals(split)[item].start) for split in ("train", "valid", "test"))
    assert sampled == len(presentations) - 8


def test_both_variants_have_the_same_split(raw_trials, prepare):
    def valid(variant):
        folder = prepare(item=f"monkeyF_{variant}", VALID_FRACTION=0.3)
        presentations = Tvsd(folder.parent, variant=variant).get_recording(f"monkeyF_{variant}").presentations
        return set(presentations.image_id[presentations.split == "valid"])

    assert valid("norm") == valid("trials") and len(valid("norm")) == 6


@pytest.mark.parametrize(
    "chunks", [None, True, (300, 16, 64), (7, 5, 1000), (1, N, 8), (300, N, 1)], ids=lambda chunks: str(chunks)
)
def test_chunks_of_the_raw_file_make_no_difference(pipeline_module, tmp_path, values, chunks, monkeypatch):
    for limit in ("SLAB_BYTES", "WIDE_SLAB_BYTES"):  # many slabs, cut along all axes
        monkeypatch.setitem(pipeline_module, limit, 500_000)
    write_trials(tmp_path / "raw.mat", TABLE, values, chunks=chunks)
    slot = np.arange(N) + (np.arange(N) > 9)
    is_train = np.arange(N) % 3 > 0
    raw_channel = np.random.default_rng(0).permutation(N_CHANNELS)[:900]
    with h5py.File(tmp_path / "raw.mat") as raw, h5py.File(tmp_path / "out.h5", "w") as out:
        assert 4 * np.prod(pipeline_module["slab_shape"](raw["ALLMUA"], 10)) < 1_000_000
        value = out.create_dataset("bins", (30 * (N + 1), 900), "f4", fillvalue=7)
        moments = pipeline_module["bin_trials"](
            raw["ALLMUA"], value, slot=slot, day=np.zeros(N, int), is_train=is_train, raw_channel=raw_channel,
            samples=10, report=lambda _: None,
        )  # fmt: skip
        windows = value[:].reshape(N + 1, 30, 900)
    binned = values.reshape(30, 10, N, N_CHANNELS).mean(axis=1, dtype=np.float64).swapaxes(0, 1)
    binned[~np.isfinite(binned)] = np.nan
    np.testing.assert_allclose(windows[slot], binned[:, :, np.sort(raw_channel)], rtol=1e-6)
    assert (windows[10] == 7).all()
    counted = binned[is_train][:, :, raw_channel]
    np.testing.assert_allclose(moments[0, 0], np.isfinite(counted).sum((0, 1)))
    np.testing.assert_allclose(moments[1, 0], np.nansum(counted, (0, 1)))
    np.testing.assert_allclose(moments[2, 0], np.nansum(counted**2, (0, 1)))


@pytest.mark.parametrize(
    "chunks", [None, (1, 16, 1024), (1, 1, 1024), (300, 1, 1024), (1, 25248, 8), (300, 25248, 1), (19, 1578, 64),
               (10, 25248, 1024)],
    ids=lambda chunks: str(chunks),
)  # fmt: skip
def test_slabs_of_the_real_file_fit_memory_and_chunks(pipeline_module, chunks, tmp_path):
    with h5py.File(tmp_path / "sparse.h5", "w") as file:
        traces = file.create_dataset("ALLMUA", (300, 25248, 1024), "f8", chunks=chunks)
        slab = pipeline_module["slab_shape"](traces, 10)
    assert 8 * np.prod(slab) <= 200 << 20
    assert slab[0] % 10 == 0
    if chunks != (10, 25248, 1024):  # 2 GB: cannot but be cut
        whole = [s == n or s % c == 0 for s, n, c in zip(slab, (300, 25248, 1024), chunks or (1, 1, 1), strict=True)]
        assert all(whole)


# Faults


def with_table(change):
    table = TABLE.copy()
    change(table)
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE[:5], r"\(6, presentations\)[\s\S]*\(5, 26\)"),
        (np.vstack([TABLE, TABLE[:2]]), r"\(6, presentations\)[\s\S]*\(8, 26\)"),
        (trial_table()[:, :20], r"\(300, 20, 1024\)[\s\S]*\(300, 26, 1024\)"),  # fewer rows than trials
        (np.hstack([TABLE, TABLE]), r"\(300, 52, 1024\)[\s\S]*\(300, 26, 1024\)"),  # fewer trials than rows
    ],
)
def test_table_of_another_shape_is_named_before_anything_is_read(raw_trials, prepare, table, message):
    replace_trials(raw_trials, table, N)
    with pytest.raises(SystemExit, match=message):
        prepare(item=TRIALS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table[1:3, 4].fill(0), "1 others; column 4: training image 0, test image 0"),
        (lambda table: table[1:3, 4].fill(1), "1 others; column 4: training image 1, test image 1"),
        (lambda table: table[5, 4:6].fill(np.nan), "2 others; column 4: .* day -1"),
        (lambda table: table[1].__imul__(2), r"a training image of 1 to 20 or a test image of 1 to 2, and"),
    ],
)
def test_rows_that_say_nothing_are_named(raw_trials, prepare, change, message):
    replace_trials(raw_trials, with_table(change), N)
    with pytest.raises(ValueError, match=message):
        prepare(item=TRIALS)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("variant", ["norm", "trials"])
def test_image_list_of_another_length_is_named(raw_trials, prepare, part, variant):
    names = {"train": TRAIN, "test": TEST}
    write_image_names(raw_trials / "monkeyF" / "_logs" / "things_imgs.mat", names | {part: names[part][:-1]})
    with pytest.raises(SystemExit, match=r"'(train_MUA|test_MUA_reps)' with shape[\s\S]*Found shape"):
        prepare(item=f"monkeyF_{variant}")


def test_day_without_training_presentations_is_named(raw_trials, prepare):
    table = TABLE.copy()
    table[5] = np.where(table[2] > 0, 4, 1)
    replace_trials(raw_trials, table, N)
    with pytest.raises(ValueError, match=r"training presentations on each day[\s\S]*none on day 4"):
        prepare(item=TRIALS)


@pytest.mark.parametrize("variant", ["norm", "trials"])
def test_zero_units_after_filtering(raw_trials, prepare, variant):
    with pytest.raises(ValueError, match=r"units with a reliability of at least 1.0[\s\S]*--min-reliability"):
        prepare("--min-reliability=1", item=f"monkeyF_{variant}")
    assert not list(raw_trials.parent.parent.glob("processed/**/*.h5"))


def test_norm_file_in_the_place_of_the_trial_file(raw_trials, prepare):
    path = raw_trials / "monkeyF" / "THINGS_MUA_trials.mat"
    path.unlink()
    path.write_bytes((raw_trials / "monkeyF" / "THINGS_normMUA.mat").read_bytes())
    with pytest.raises(SystemExit, match=r"variable 'ALLMAT'[\s\S]*Found variables \['SNR_max'"):
        prepare(item=TRIALS)


def test_other_times_are_named(raw_trials, prepare):
    replace_trials(raw_trials, TABLE, N)
    with h5py.File(raw_trials / "monkeyF" / "THINGS_MUA_trials.mat", "r+") as file:
        file["tb"][...] = file["tb"][...] / 1000
    with pytest.raises(SystemExit, match=r"'tb' of -100 to 199[\s\S]*-0.1 to 0.199"):
        prepare(item=TRIALS)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: write_mapping(path, np.arange(1024)), "1024 values from 0.0 to 1023.0"),
        (lambda path: write_mapping(path, np.arange(1, 1000)), "999 values"),
        (lambda path: path.write_bytes(b"<html></html>"), "cannot be read"),
        (lambda path: h5py.File(path, "w").close(), "cannot be read"),
    ],
)
def test_bad_mapping_is_named(raw_trials, prepare, write, message):
    path = raw_trials / "monkeyF" / "_logs" / "1024chns_mapping_20220105.mat"
    path.unlink()
    write(path)
    with pytest.raises(SystemExit, match=rf"'mapping'[\s\S]*{message}"):
        prepare(item=TRIALS)


@pytest.mark.parametrize("option", ["--bin-size=0.03", "--bin-size=0", "--bin-size=0.2", "--min-reliability=2"])
def test_bad_options_are_refused(pipeline_module, option, capsys):
    with pytest.raises(SystemExit):
        pipeline_module["parser"].parse_args([option])
    assert option.split("=")[0] in capsys.readouterr().err


def test_trials_are_in_the_manifest_where_they_are_named(raw_trials, pipeline_module, monkeypatch):
    pipeline, parse = pipeline_module["Pipeline"], pipeline_module["parser"].parse_args
    (raw_trials / "monkeyN").mkdir()
    assert pipeline.get_manifest(raw_trials, parse([])).index.tolist() == ["monkeyF_norm"]
    for named in (["-s", "monkeyF_trials"], ["--single=monkeyF_trials"]):
        monkeypatch.setattr("sys.argv", ["runner", *named])
        assert "monkeyF_trials" in pipeline.get_manifest(raw_trials, parse([])).index
