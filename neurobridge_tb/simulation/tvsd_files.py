"""Raw files of the THINGS Ventral Stream Spiking Dataset (Papale et al. 2025), as published.

Data: doi 10.12751/g-node.hc7zlv. One folder a monkey, with ``THINGS_normMUA.mat``, ``THINGS_MUA_trials.mat``,
``_logs/things_imgs.mat`` and ``_logs/1024chns_mapping_20220105.mat``. Shapes below are as h5py shows them.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from neurobridge_tb.files import write_aside
from neurobridge_tb.simulation.matlab_v73 import create_double, matlab_file, write_struct_arrays
from neurobridge_tb.simulation.recording import Recording, mean_and_deviation
from neurobridge_tb.simulation.ventral_stream import N_CHANNELS

TIME_MS = np.arange(-100, 200)
WINDOW_MS = {"V1": (25, 125), "V4": (50, 150), "IT": (75, 175)}
_SLAB = 16  # presentations in memory while the trials are written
_V5_HEADER = b"MATLAB 5.0 MAT-file Platform: posix, Created by: neurobridge_tb simulation"

Doubles = NDArray[np.float64]


def write_norm_file(path: str | Path, recording: Recording) -> None:
    """``THINGS_normMUA.mat``: one normalised response an image and channel, channels in physical order."""
    values = recording.normalised()
    train_rows, test_rows = recording.design.rows()
    repeats = values[test_rows]
    snr = recording.signal_to_noise()
    with matlab_file(path) as file:
        create_double(file, "train_MUA", values[train_rows])
        create_double(file, "test_MUA", mean_and_deviation(repeats)[0])
        create_double(file, "test_MUA_reps", repeats)
        create_double(file, "SNR", snr)
        create_double(file, "SNR_max", np.fmax.reduce(snr)[:, None])
        create_double(file, "lats", recording.latency_ms)
        create_double(file, "reliab", pairwise_reliability(repeats))
        create_double(file, "oracle", _oracle(repeats)[:, None])
        create_double(file, "tb", TIME_MS[:, None])


def pairwise_reliability(repeats: Doubles) -> Doubles:
    """Correlation over images of every pair of repeats.

    Args:
        repeats: Shape (repeats, images, channels).

    Returns:
        Shape (pairs, channels); pairs (1, 2), (1, 3), … (2, 3), … A repeat with a NaN has NaN correlations.
    """
    first, second = np.triu_indices(len(repeats), k=1)
    by_channel = _unit_columns(repeats).transpose(2, 0, 1)
    return (by_channel @ by_channel.swapaxes(1, 2))[:, first, second].T


def _oracle(repeats: Doubles) -> Doubles:
    """Correlation of a repeat with the mean of the others, averaged over repeats; shape (channels,)."""
    others = (repeats.sum(axis=0) - repeats) / (len(repeats) - 1)
    return (_unit_columns(repeats) * _unit_columns(others)).sum(axis=1).mean(axis=0)


def _unit_columns(repeats: Doubles) -> Doubles:
    centred = repeats - repeats.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def write_image_list(path: str | Path, train: Sequence[str], test: Sequence[str]) -> None:
    """``things_imgs.mat``: class and path of every image, in the order of the response rows.

    Args:
        path: File to write.
        train: Image ids ``<concept>/<file>`` (or ``<file>``, whose stem is then the concept).
        test: Image ids of the test images.
    """
    structs: dict[str, dict[str, Sequence[str]]] = {}
    for split, ids in (("test", test), ("train", train)):
        structs[f"{split}_imgs"] = {
            "class": [concept_of(image_id) for image_id in ids],
            "things_path": [image_id.replace("/", "\\") for image_id in ids],
            "local_path": [f"\\\\simulated\\_stims\\THINGS_{split}\\{k + 1:05d}.bmp" for k in range(len(ids))],
        }
    with matlab_file(path) as file:
        write_struct_arrays(file, structs)


def concept_of(image_id: str) -> str:
    """Folder of an image id, or the file's stem where there is none."""
    folder, _, name = image_id.rpartition("/")
    return folder or Path(name).stem


def write_mapping(path: str | Path, mapping: NDArray[np.int64]) -> None:
    """``1024chns_mapping_20220105.mat`` (v5): ``physical = raw[mapping - 1]``, shape (1, 1024), from 1."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"mapping": mapping[None].astype(np.float64)})
    content = bytearray(buffer.getvalue())
    content[:116] = _V5_HEADER.ljust(116)  # scipy writes the time here
    with write_aside(path) as aside:
        aside.write_bytes(content)


def write_trials_file(
    path: str | Path,
    recording: Recording,
    mapping: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """``THINGS_MUA_trials.mat``: every presentation at 1 kHz, channels in *raw* order, 2.4 MB a presentation.

    A trace is baseline, transient and sustained response after the site's latency, and noise. Its mean in the area's
    window is the presentation's response, so the normalised file follows from this one.
    """
    design = recording.design
    n = len(design.image)
    raw_from_physical = np.argsort(mapping - 1)
    kernels, inside = _response_kernels(recording), _window_weights(recording)
    with matlab_file(path) as file:
        create_double(file, "tb", TIME_MS[:, None])
        create_double(file, "ALLMAT", _trial_table(recording))
        shape = (len(TIME_MS), n, N_CHANNELS)
        traces = create_double(file, "ALLMUA", shape=shape, chunks=(len(TIME_MS), min(_SLAB, n), 64))
        for start in range(0, n, _SLAB):
            rows = slice(start, min(start + _SLAB, n))
            day = design.day[rows]
            baseline = recording.spontaneous_mean[day]
            evoked = recording.responses[rows] - baseline
            noise = rng.standard_normal((len(TIME_MS), *evoked.shape), dtype=np.float32)
            noise -= np.einsum("tpc,tc->pc", noise, inside)
            noise *= 3 * recording.spontaneous_sd[day]
            slab = baseline + evoked * kernels[:, day] + noise
            traces[:, rows] = slab[:, :, raw_from_physical]
            if progress is not None:
                progress(rows.stop, n)


def _trial_table(recording: Recording) -> Doubles:
    """Rows trial, train index, test index, repeat, position in the trial, day; all from 1, 0 = not of this split."""
    design = recording.design
    train = np.where(design.is_test, 0, design.image + 1)
    test = np.where(design.is_test, design.image - design.n_train + 1, 0)
    columns = (design.trial + 1, train, test, design.repeat + 1, design.position + 1, design.day + 1)
    return np.stack(columns).astype(np.float64)


def _window_weights(recording: Recording) -> NDArray[np.float32]:
    """Averages a trace over the window of each channel's area, shape (300, 1024)."""
    start, stop = (np.array([WINDOW_MS[a][k] for a in recording.electrodes.area]) for k in (0, 1))
    inside = (TIME_MS[:, None] >= start) & (TIME_MS[:, None] < stop)
    return (inside / inside.sum(axis=0)).astype(np.float32)


def _response_kernels(recording: Recording) -> NDArray[np.float32]:
    """Time course of a response of one, shape (300, 4 days, 1024): a transient, then a lower sustained level."""
    since = TIME_MS[:, None, None] - np.where(recording.is_dead, -np.inf, recording.latency_ms)
    since = np.maximum(since, 0)
    course = (1 - np.exp(-since / 6)) * (0.5 + 1.2 * np.exp(-since / 30))
    mean = np.einsum("tdc,tc->dc", course, _window_weights(recording))
    return (course / mean).astype(np.float32)
