"""Tiny raw files in TVSD's published layout, and what each window must hold, on either upstream line.

Both lines are held to the same numbers, made from the raw arrays by plain numpy: so their windows are equal too.
"""

import h5py
import numpy as np
import scipy.io

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import Tvsd

N_CHANNELS, N_REPEATS, N_SAMPLES = 1024, 3, 300
TRAIN = [f"{concept}\\{concept}_{i:02d}b.jpg" for concept in ("cat", "dog", "owl", "bee", "fox") for i in range(4)]
TEST = ["cat\\cat_90s.jpg", "owl\\owl_91s.jpg"]


def write_image_names(path, names):
    """``things_imgs.mat``: object references to uint16 characters. ``names`` has the keys train and test."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for part, part_names in names.items():
            references = np.empty((len(part_names), 1), dtype=h5py.ref_dtype)
            for row, name in enumerate(part_names):
                characters = np.frombuffer(name.encode("utf-16-le"), dtype=np.uint16)[:, None]
                references[row, 0] = file.create_dataset(f"#refs#/{part}{row}", data=characters).ref
            file.create_dataset(f"{part}_imgs/things_path", data=references)


def response_arrays(seed=0):
    """The variables of ``THINGS_normMUA.mat``, with a dead array, a dead channel, NaN and an infinite value."""
    rng = np.random.default_rng(seed)
    train = rng.normal(0, 0.44, (len(TRAIN), N_CHANNELS))
    test = rng.normal(0, 0.44, (N_REPEATS, len(TEST), N_CHANNELS))
    train[:, 64:128] = 1e-6 * train[:, 64:128]
    test[:, :, 64:128] = 0
    train[:, 200] = test[:, :, 200] = np.nan
    train[3, 7], train[4, 8] = np.nan, np.inf
    latencies = rng.uniform(20, 120, (4, N_CHANNELS))
    latencies[0, :10] = np.nan
    return {
        "train_MUA": train,
        "test_MUA": test.mean(0),
        "test_MUA_reps": test,
        "SNR_max": rng.uniform(0, 9, (N_CHANNELS, 1)),
        "reliab": rng.uniform(0, 1, (3, N_CHANNELS)),
        "lats": latencies,
    }


def write_responses(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array


def response_rows():
    """``mua.value`` of the norm variant (n_bins, 1024): train_MUA, then test_MUA_reps; NaN where not finite."""
    arrays = response_arrays()
    rows = np.concatenate([arrays["train_MUA"], *arrays["test_MUA_reps"]]).astype(np.float32)
    rows[~np.isfinite(rows)] = np.nan
    return rows


def response_image_ids():
    """Image id of each row of the norm variant."""
    return [name.replace("\\", "/") for name in TRAIN + TEST * N_REPEATS]


def trial_table(n_days=2, sorted_days=True):
    """``ALLMAT`` (6, presentations): trial, train_idx, test_idx, rep, count, day; all from 1, images in mixed order."""
    rng = np.random.default_rng(1)
    n_test = len(TEST) * N_REPEATS
    n = len(TRAIN) + n_test
    train = np.concatenate([1 + np.arange(len(TRAIN)), np.zeros(n_test)])
    test = np.concatenate([np.zeros(len(TRAIN)), np.tile(1 + np.arange(len(TEST)), N_REPEATS)])
    repeat = np.concatenate([np.ones(len(TRAIN)), np.repeat(1 + np.arange(N_REPEATS), len(TEST))])
    train, test, repeat = np.stack([train, test, repeat])[:, rng.permutation(n)]
    day = 1 + np.arange(n) * n_days // n
    table = np.stack([1 + np.arange(n) // 4, train, test, repeat, 1 + np.arange(n) % 4, day])
    return table if sorted_days else table[:, rng.permutation(n)]


def traces(n, seed=2):
    """``ALLMUA`` (300, n, 1024 raw channels) float32, with a dead array, a dead channel, NaN and an infinite value.

    Raw channels 0-63 are dead, channel 100 has no value, and channel 101 none in the first presentations.
    """
    rng = np.random.default_rng(seed)
    level = rng.uniform(2, 9, N_CHANNELS).astype(np.float32)
    values = level * (1 + rng.standard_normal((N_SAMPLES, n, N_CHANNELS), dtype=np.float32))
    values[:, :, :64] = 3 + 1e-5 * values[:, :, :64]
    values[:, :, 100] = values[:, :5, 101] = values[123, 7, 102] = np.nan
    values[250, 8, 103] = np.inf
    return values


def mapping():
    """(1024,) from 1: the raw channel of each physical channel."""
    return np.random.default_rng(3).permutation(N_CHANNELS) + 1


def write_mapping(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"mapping": values[None].astype(np.float64)})


def write_trials(path, table, values, chunks=None):
    """``values``: ``ALLMUA``, or its number of presentations, which are then zero and take no room."""
    content = {"shape": (N_SAMPLES, values, N_CHANNELS), "dtype": "f8"} if isinstance(values, int) else {"data": values}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["tb"] = np.arange(-100.0, 200.0)[:, None]
        file["ALLMAT"] = table.astype(np.float64)
        file.create_dataset("ALLMUA", chunks=chunks, **content)


def expected_trials(table, values, is_train, samples=10):
    """What ``mua.value`` of the trials variant must hold, by plain numpy from whole arrays.

    Args:
        table: ``ALLMAT``.
        values: ``ALLMUA``.
        is_train: (presentations,) in the order of ``table``.
        samples: Of a bin.

    Returns:
        (presentations, bins, 1024 physical channels) float32, in the order of ``table``.
    """
    physical = values[:, :, mapping() - 1].astype(np.float64)
    with np.errstate(invalid="ignore"):
        binned = physical.reshape(N_SAMPLES // samples, samples, *physical.shape[1:]).mean(axis=1).swapaxes(0, 1)
    binned[~np.isfinite(binned)] = np.nan
    out = np.empty(binned.shape, np.float32)
    for day in np.unique(table[5]):
        today = table[5] == day
        bins = binned[today & is_train].reshape(-1, N_CHANNELS)
        count = np.maximum(np.isfinite(bins).sum(0), 1)
        mean = np.nansum(bins, 0) / count
        variance = np.nansum((bins - mean) ** 2, 0) / count
        border = 1e-3 * np.median(variance[np.isfinite(bins).any(0)])
        out[today] = (binned[today] - mean) / np.sqrt(np.maximum(variance, border))
    return out


def check_norm_windows(processed_dir):
    """Each window of each split, read through the Dataset, is the raw row of its image; and none is left out."""
    dataset = Tvsd(processed_dir)
    rows, names = response_rows(), response_image_ids()
    seen = []
    for split in ("train", "valid", "test"):
        for start, end in dataset.get_sampling_intervals(split)["monkeyF_norm"]:
            window = dataset[DatasetIndex("monkeyF_norm", float(start), float(end))]
            row = round(start / 0.4)
            np.testing.assert_array_equal(window.mua.value, rows[[row]])
            assert window.presentations.image_id.tolist() == [names[row]]
            assert window.presentations.split.tolist() == [split]
            seen.append(row)
    assert sorted(seen) == list(range(len(names)))


def check_trial_windows(processed_dir, table, values, samples=10):
    """Each window of each split holds the normalised bins of its presentation; and none is left out."""
    dataset = Tvsd(processed_dir, variant="trials")
    presentations = dataset.get_recording("monkeyF_trials").presentations
    order = np.argsort(table[5], kind="stable")
    is_train = np.empty(len(order), dtype=bool)
    is_train[order] = presentations.split == "train"
    expected = expected_trials(table, values, is_train, samples)
    names = [name.replace("\\", "/") for name in TRAIN + TEST]
    seen = []
    for split in ("train", "valid", "test"):
        for start, end in dataset.get_sampling_intervals(split)["monkeyF_trials"]:
            window = dataset[DatasetIndex("monkeyF_trials", float(start), float(end))]
            k = int(np.searchsorted(presentations.start, start))
            _, train, test, repeat, position, day = table[:6, order[k]].astype(int)
            assert window.mua.value.dtype == np.float32
            np.testing.assert_allclose(window.mua.value, expected[order[k]], rtol=2e-4, atol=2e-4)
            np.testing.assert_allclose(window.mua.timestamps, np.arange(300 // samples) * samples / 1000, atol=1e-9)
            shown = window.presentations
            assert shown.image_id.tolist() == [names[train - 1 if train else len(TRAIN) + test - 1]]
            assert shown.image_index.tolist() == [train - 1]
            assert shown.split.tolist() == [split]
            assert (shown.repeat[0], shown.position[0], shown.day[0]) == (0 if train else repeat - 1, position, day)
            np.testing.assert_allclose([shown.start[0], shown.end[0]], [0.1, 0.3], atol=1e-9)
            seen.append(k)
    assert sorted(seen) == list(range(len(order)))
