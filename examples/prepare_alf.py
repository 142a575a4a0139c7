"""Prepare spikes in ALF files (one array a file, as the IBL writes them) as a torch_brain recording.

Needs ``spikes.times.npy`` (s, sorted) and ``spikes.clusters.npy`` in one folder. Clusters that have spikes become
units. Training, validation and test follow one another in time: 70, 10 and 20 % of the recording.

``_ibl_wheel.timestamps.npy`` and ``_ibl_wheel.position.npy`` (rad) and ``_ibl_trials.table.pqt`` are read only with
--wheel and --trials: arrays of different recordings have different clocks, and nothing in the files says whether they
belong together. What lies outside of the recording is left out.

    python examples/prepare_alf.py alf --session mouse7_2024-05-01 --out processed/alf
    neurobridge pretrain dataset=binned dataset.root=processed/alf model.modality=spikes +model.bin_size=0.02
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.errors import InputError, require

BORDERS = {"train": (0.0, 0.7), "valid": (0.7, 0.8), "test": (0.8, 1.0)}  # shares of the recording


def read(folder: Path, name: str) -> NDArray:
    """One array of an ALF folder."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            expected=f"an array of numbers at {path}",
            found=str(error),
            fix="Give the folder that holds spikes.times.npy and spikes.clusters.npy.",
        ) from error


def read_trials(folder: Path, end: float) -> dict[str, NDArray]:
    """Trials with both times inside the recording: from ``intervals_0`` or ``stimOn_times`` on, with all columns."""
    require("pyarrow", extra="ibl")
    import pandas as pd

    path = folder / "_ibl_trials.table.pqt"
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(expected=f"a trials table at {path}", found=str(error), fix="Leave out --trials.") from error
    names = ("intervals_0", "intervals_1") if "intervals_0" in table else ("stimOn_times", "response_times")
    if not set(names) <= set(table):
        raise InputError(
            expected=f"intervals, or stimOn_times and response_times, in {path}",
            found=f"columns {', '.join(table)}",
            fix="Name the columns that hold each trial's start and end in `read_trials`.",
        )
    start, stop = (table[name] for name in names)
    table = table[(start >= 0) & (start < stop) & (stop <= end)]
    columns = {name: table[name].to_numpy() for name in table if table[name].dtype.kind in "biuf"}
    return {"start": columns[names[0]], "end": columns[names[1]], **columns}


def prepare(
    folder: Path,
    out: Path,
    *,
    session: str,
    subject: str = "unknown",
    end: float | None = None,
    wheel: bool = False,
    trials: bool = False,
) -> Path:
    """Write ``<out>/<session>.h5``.

    Args:
        folder: The ALF files.
        out: Folder of the recording.
        session: Name of the recording.
        subject: Name of the animal.
        end: End of the recording in s. Default: the last spike.
        wheel: The wheel's arrays are of the same recording.
        trials: The trials table is of the same recording.
    """
    times, clusters = read(folder, "spikes.times"), read(folder, "spikes.clusters")
    if times.ndim != 1 or times.shape != clusters.shape or not times.size:
        raise InputError(
            expected="spikes.times and spikes.clusters of one length",
            found=f"shapes {times.shape} and {clusters.shape}",
            fix="Take both from one probe of one recording.",
        )
    numbers, unit_index = np.unique(clusters, return_inverse=True)
    stop = float(times[-1]) if end is None else end
    more: dict[str, Any] = {}
    if wheel:
        moments, position = read(folder, "_ibl_wheel.timestamps"), read(folder, "_ibl_wheel.position")
        inside = (moments >= 0) & (moments <= stop)
        more["behavior"] = {"wheel_position": (moments[inside], position[inside])}
    if trials:
        more["trials"] = read_trials(folder, stop)
    recording = build_recording(
        brainset_id="alf",
        session_id=session,
        subject_id=subject,
        units={"id": [f"{session}/c{number:04d}" for number in numbers], "cluster": numbers.astype(np.int64)},
        spikes=(times, unit_index),
        end=stop,
        splits={name: ([a * stop], [b * stop]) for name, (a, b) in BORDERS.items()},
        **more,
    )
    path = out / f"{session}.h5"
    save_recording(recording, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the ALF files of one probe")
    parser.add_argument("--session", required=True, help="name of the recording, and of its file")
    parser.add_argument("--subject", default="unknown", help="name of the animal")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--end", type=float, help="end of the recording in s (default: the last spike)")
    parser.add_argument("--wheel", action="store_true", help="the wheel files are of the same recording")
    parser.add_argument("--trials", action="store_true", help="the trials table is of the same recording")
    arguments = vars(parser.parse_args())
    try:
        print(prepare(arguments.pop("folder"), arguments.pop("out"), **arguments))
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
