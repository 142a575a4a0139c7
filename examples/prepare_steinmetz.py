"""Prepare mouse Neuropixels sessions (arrays by trial) as torch_brain recordings: an example for your own data.

Sessions of a visual decision task (Steinmetz et al., Nature 2019), as counts in 40 bins of 10 ms from the onset of the
stimulus. One ``.npz`` a session, named ``session_01.npz`` and so on: ``counts`` (trials, units, 40), ``bin_times``
(trials, 40) in s on the recording's clock, ``brain_area`` (units,), ``contrast_left``, ``contrast_right``, ``feedback``
(trials,), ``mouse`` and ``date``.

Nothing is known between trials, which are seconds apart, so the trials are laid end to end: trial k is the interval
[0.4 k, 0.4 (k + 1)) s, and ``trials.recorded_start`` keeps its time on the recording's clock. Splits hold one interval
for each trial, and windows stay inside it. The splits follow each other in time: the first 70 % of the trials train,
the next 10 % validate, the last 20 % test. So a model is tested on a later part of the recording than it learnt from.

    python examples/prepare_steinmetz.py sessions --out processed/steinmetz
    neurobridge pretrain dataset=binned dataset.root=processed/steinmetz windows=trial model.sequence_length=0.4 \
        model.latent_step=0.1
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.errors import InputError

BIN_WIDTH = 0.01
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
_BY_TRIAL = ("counts", "bin_times", "contrast_left", "contrast_right", "feedback")


def read(source: Path) -> dict[str, NDArray]:
    """The arrays of one session, see above."""
    expected = f"a session with {', '.join(_BY_TRIAL)}, brain_area, mouse and date in {source}"
    fix = "Give the folder of the session_*.npz files, or adapt `read` to your own arrays."
    try:
        with np.load(source, allow_pickle=False) as file:
            session = {name: file[name] for name in (*_BY_TRIAL, "brain_area", "mouse", "date")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(expected=expected, found=str(error), fix=fix) from error
    shapes = {name: array.shape for name, array in session.items()}
    counts, times = session["counts"], session["bin_times"]
    fits = counts.ndim == 3 and len(counts) > 0 and times.shape == (len(counts), counts.shape[2])
    fits = fits and all(len(session[name]) == len(counts) for name in _BY_TRIAL)
    if not fits or session["brain_area"].shape != counts.shape[1:2]:
        raise InputError(expected=expected, found=f"shapes that do not fit: {shapes}", fix=fix)
    if not np.allclose(np.diff(times, axis=1), BIN_WIDTH, atol=2e-4):  # float32 times of 1,000 s
        raise InputError(expected=f"bins of {BIN_WIDTH} s", found="other steps in bin_times", fix=fix)
    return session


def deal(n_trials: int) -> dict[str, NDArray]:
    """Trial numbers of each split, one split after the other in the shares above."""
    edges = np.round(n_trials * np.cumsum(list(SHARES.values()))[:-1]).astype(int)
    return dict(zip(SHARES, np.split(np.arange(n_trials), edges), strict=True))


def prepare(source: Path, out: Path, merge: int = 1) -> Path:
    """Write one session to ``<out>/steinmetz_<number>_<mouse>_<date>.h5``.

    Args:
        source: The ``.npz`` file.
        out: Folder of the recordings.
        merge: So many bins of 10 ms become one.
    """
    session = read(source)
    n_trials, n_units, n_bins = session["counts"].shape
    if n_bins % merge:
        raise InputError(expected=f"a divisor of the {n_bins} bins of a trial", found=f"{merge}", fix="Correct merge.")
    counts = session["counts"].swapaxes(1, 2).reshape(n_trials * n_bins // merge, merge, n_units).sum(1, dtype=np.uint8)
    session_id = f"steinmetz_{source.stem.removeprefix('session_')}_{session['mouse']}_{session['date']}"
    edges = BIN_WIDTH * n_bins * np.arange(n_trials + 1)
    starts, ends = edges[:-1], edges[1:]
    recording = build_recording(
        brainset_id="steinmetz",
        session_id=session_id,
        subject_id=str(session["mouse"]),
        units={"id": [f"{session_id}/u{n:04d}" for n in range(n_units)], "area": session["brain_area"]},
        counts=(counts, merge * BIN_WIDTH),
        trials={
            "start": starts,
            "end": ends,
            "recorded_start": session["bin_times"][:, 0].astype(np.float64),
            **{name: session[name] for name in ("contrast_left", "contrast_right", "feedback")},
        },
        splits={name: (starts[part], ends[part]) for name, part in deal(n_trials).items()},
    )
    path = out / f"{session_id}.h5"
    save_recording(recording, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of session_*.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--merge", type=int, default=1, help="so many bins of 10 ms become one (default 1)")
    arguments = parser.parse_args()
    sources = sorted(arguments.source.glob("session_*.npz"))
    if not sources:
        raise SystemExit(f"No session_*.npz in {arguments.source}")
    try:
        for source in sources:
            print(prepare(source, arguments.out, arguments.merge))
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
