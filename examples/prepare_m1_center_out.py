"""Prepare a motor-cortex recording (MATLAB arrays) as a torch_brain recording: an example for your own data.

The recording is a macaque's M1 during centre-out reaches, 95 channels, 1,456 trials laid end to end: ``contdata95.mat``
with ``Y`` (bins, 95) spike counts and ``X`` (bins, 4) hand position x, y and velocity x, y, in the repository
nickmatton/NeuralSignalDecoding. A trial starts where both velocities are 0; the hand jumps there, so each trial is an
interval of its own, and windows stay inside it.

    python examples/prepare_m1_center_out.py contdata95.mat --out processed/m1_center_out
    neurobridge pretrain dataset=binned dataset.root=processed/m1_center_out
"""

import argparse
from pathlib import Path

import numpy as np
import scipy.io

from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.errors import InputError

N_VALID_TRIALS = 100


def read(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Kinematics X (bins, 4) and counts Y (bins, channels)."""
    expected = f"a MATLAB file with X (bins, 4) and Y (bins, channels) at {source}"
    fix = "Download contdata95.mat from the repository nickmatton/NeuralSignalDecoding."
    try:
        content = scipy.io.loadmat(source)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(expected=expected, found=str(error), fix=fix) from error
    X, Y = content.get("X"), content.get("Y")
    if X is None or Y is None or X.ndim != 2 or Y.ndim != 2 or X.shape[1] != 4 or len(X) != len(Y):
        shapes = {name: value.shape for name, value in content.items() if hasattr(value, "shape")}
        raise InputError(expected=expected, found=f"shapes {shapes}", fix=fix)
    return X, Y


def prepare(source: Path, out: Path, bin_width: float) -> Path:
    """Write ``<out>/m1_center_out.h5``.

    The first 80 % of the trials train, the last 100 of those validate, and the last 20 % of the trials test.

    Args:
        source: ``contdata95.mat``.
        out: Folder of the recording.
        bin_width: Bin width in s.
    """
    X, Y = read(source)
    first_bins = np.flatnonzero((X[:, 2:] == 0).all(axis=1))
    if len(first_bins) == 0 or first_bins[0] != 0:
        raise InputError(
            expected="trials that begin with zero velocity, the first at the first bin",
            found=f"{len(first_bins)} trial starts",
            fix="Check that X holds position x, y and velocity x, y.",
        )
    edges = bin_width * np.append(first_bins, len(X))
    starts, ends = edges[:-1], edges[1:]
    n_fit = int(0.8 * len(starts))
    n_train = n_fit - N_VALID_TRIALS
    if n_train < 1:
        raise InputError(
            expected=f"more than {N_VALID_TRIALS / 0.8:.0f} trials",
            found=f"{len(starts)}",
            fix="Use the whole recording.",
        )
    bin_centers = bin_width * (np.arange(len(X)) + 0.5)
    recording = build_recording(
        brainset_id="m1_center_out",
        session_id="m1_center_out",
        subject_id="m1_monkey",
        units={"id": [f"m1/ch{c:02d}" for c in range(Y.shape[1])], "area": ["M1"] * Y.shape[1]},
        counts=(Y, bin_width),
        behavior={"hand_position": (bin_centers, X[:, :2]), "hand_velocity": (bin_centers, X[:, 2:])},
        trials={"start": starts, "end": ends},
        splits={
            "train": (starts[:n_train], ends[:n_train]),
            "valid": (starts[n_train:n_fit], ends[n_train:n_fit]),
            "test": (starts[n_fit:], ends[n_fit:]),
        },
    )
    path = out / "m1_center_out.h5"
    save_recording(recording, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="contdata95.mat")
    parser.add_argument("--out", type=Path, required=True, help="folder for m1_center_out.h5")
    parser.add_argument(
        "--bin-width",
        type=float,
        default=0.05,
        help="in s; uncertain: the source says 0.05, its velocities (10 x the change of position) say 0.1",
    )
    arguments = parser.parse_args()
    try:
        print(prepare(arguments.source, arguments.out, arguments.bin_width))
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
