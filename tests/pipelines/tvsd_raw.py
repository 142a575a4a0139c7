"""Tiny raw files in TVSD's published layout."""

import h5py
import numpy as np

N_CHANNELS, N_REPEATS = 1024, 3
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
