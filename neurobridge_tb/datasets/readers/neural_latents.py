"""MC_Maze files of the Neural Latents Benchmark (Pei et al. 2021, arXiv:2109.04463): NWB, DANDI 000128, 000138-000140.

A set is a file of training and validation trials with all units and the hand, and a file of test trials with the
held-in units alone, from 0.25 s before to 0.45 s after the movement's onset. Both hold spikes at a resolution of 1 ms.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.builder import build_recording
from neurobridge_tb.datasets.readers.notes import Notes, contents
from neurobridge_tb.datasets.readers.nwb import behavior_series, is_kind, open_nwb, scalar_columns, unit_rows
from neurobridge_tb.datasets.splits import SplitPlan, deal
from neurobridge_tb.errors import InputError

# Around the movement's onset, in s: what is seen and co-smoothed, and what is predicted besides.
BEFORE_S, AFTER_S, FORWARD_S = 0.25, 0.45, 0.2
_GRID_S = 0.005  # windows begin on the benchmark's grid of bins
_SERIES = {"hand_pos": "hand_position", "hand_vel": "hand_velocity", "cursor_pos": "cursor_position"}
_CONDITION = ("trial_type", "trial_version")
_SETS = {"full": "mc_maze", "large": "mc_maze_large", "medium": "mc_maze_medium", "small": "mc_maze_small"}


def read_mc_maze(
    train: str | Path, test: str | Path | None = None, *, session: str | None = None, notes: Notes | None = None
) -> Data:
    """A recording of one of MC_Maze's sets; it is called what the benchmark calls it.

    The test trials follow the others, a second or two later. ``trials`` has ``move_onset``, ``nlb_split`` (train, val
    or test) and the condition; ``units.held_out`` says which units are predicted. Splits are windows from 0.25 s before
    to 0.65 s after the onset: nine tenths of the benchmark's training trials train, the others validate, and its
    validation trials are the test. Its test trials are in no split, as their targets are not public.

    Args:
        train: ``sub-Jenkins_ses-<set>_desc-train_behavior+ecephys.nwb``, path or address.
        test: ``sub-Jenkins_ses-<set>_desc-test_ecephys.nwb``. Default: no test trials.
        session: Name of the recording. Default: ``"mc_maze"`` or ``"mc_maze_large"`` and so on, by the file's name.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: Not such files, or not of one set.
        MissingExtraError: The extra ``readers`` is not installed.
    """
    notes = Notes() if notes is None else notes
    with open_nwb(train) as nwb:
        units, trials = _units(nwb, train, notes), _trials(nwb, train, notes)
        if "train" not in set(trials["nlb_split"]):
            raise InputError(
                expected=f"training trials in {train}",
                found=f"trials of {', '.join(sorted(set(trials['nlb_split'])))}",
                fix="Name first the file of training trials, then the test file of the same set.",
            )
        trains = {unit: _spikes(nwb, row) for row, unit in enumerate(units.index)}
        series = behavior_series([o for o in nwb.objects.values() if is_kind(o, "TimeSeries")], notes)
        behavior = {_SERIES[name]: its for name, its in series.items() if name in _SERIES}
        observed, subject = _observed(nwb), str(nwb.subject.subject_id) if nwb.subject else "unknown"
    end = max(float(trials["end"].max()), observed[:, 1].max(initial=0.0))
    if test is not None:
        with open_nwb(test) as nwb:
            known = _units(nwb, test, Notes())
            later, shift = _trials(nwb, test, notes), float(np.ceil(end) + 1)
            _check_one_set(units, known, later, train, test)
            for row, unit in enumerate(known.index):
                trains[unit] = np.concatenate([trains[unit], shift + _spikes(nwb, row)])
        later[["start", "end", "move_onset"]] += shift
        trials = pd.concat([trials, later], ignore_index=True)
    name = session or _SETS.get(_matched(r"ses-(\w+?)_", Path(str(train)).name), "mc_maze")
    onset = trials["move_onset"].to_numpy()
    window = mc_maze_window(onset[~np.isnan(onset)], _GRID_S)
    recording = build_recording(
        brainset_id="neural_latents_benchmark_2021",
        session_id=name,
        subject_id=subject,
        units=units.assign(id=[f"{name}/{unit}" for unit in units.index]),
        spikes=list(trains.values()),
        start=0.0,
        end=float(max(end, trials["end"].max(), window[1].max(initial=0.0))),
        behavior=behavior,
        trials=trials,
        splits=_splits(trials, observed, notes),
        source=f"MC_Maze of the Neural Latents Benchmark, {Path(str(train)).name}",
    )
    notes.taken += contents(recording)
    return recording


def mc_maze_window(onset: NDArray[np.float64], grid: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and end in s of the windows around movement onsets, on a grid of bins as ``nlb_tools`` lays them."""
    start = np.ceil(np.round((onset - BEFORE_S) / grid, 6)) * grid
    return start, start + BEFORE_S + AFTER_S + FORWARD_S


def _units(nwb: Any, source: str | Path, notes: Notes) -> pd.DataFrame:
    if nwb.units is None or "heldout" not in nwb.units.colnames or "spike_times" not in nwb.units.colnames:
        raise InputError(
            expected=f"sorted units with a column 'heldout' in {source}",
            found=", ".join(nwb.units.colnames) if nwb.units is not None else "no units",
            fix="Take the files of DANDI 000128, 000138, 000139 or 000140; `neurobridge import nwb` takes others.",
        )
    table = unit_rows(nwb, notes).rename(columns={"heldout": "held_out"})
    return table[[name for name in ("held_out", "location") if name in table]]


def _trials(nwb: Any, source: str | Path, notes: Notes) -> pd.DataFrame:
    table = scalar_columns(nwb.trials, notes, "trials") if nwb.trials is not None else pd.DataFrame()
    wanted = ("start_time", "stop_time", "move_onset_time", "split")
    if not set(wanted) <= set(table):
        raise InputError(
            expected=f"trials with {', '.join(wanted)} in {source}",
            found=", ".join(table.columns) or "no trials",
            fix="Take the files of DANDI 000128, 000138, 000139 or 000140.",
        )
    renamed = dict(zip(wanted, ("start", "end", "move_onset", "nlb_split"), strict=True))
    kept = [name for name in (*wanted, *_CONDITION) if name in table]
    return table[kept].rename(columns=renamed).reset_index(drop=True)


def _spikes(nwb: Any, row: int) -> NDArray[np.float64]:
    """Spike times in s, each in the middle of its millisecond: so no bin's border meets one."""
    times = np.asarray(nwb.units["spike_times"][row], dtype=np.float64)
    return (np.floor(np.round(1000 * np.sort(times), 6)) + 0.5) / 1000


def _observed(nwb: Any) -> NDArray[np.float64]:
    """(n, 2) stretches in s in which spikes were recorded, joined where they touch."""
    if "obs_intervals" not in nwb.units.colnames:
        return np.array([[-np.inf, np.inf]])
    spans = np.asarray(nwb.units["obs_intervals"][0], dtype=np.float64)
    spans = spans[np.argsort(spans[:, 0])]
    first = np.flatnonzero(np.append(True, spans[1:, 0] > spans[:-1, 1] + 1e-3))
    return np.stack([spans[first, 0], spans[np.append(first[1:], len(spans)) - 1, 1]], axis=1)


def _check_one_set(units: pd.DataFrame, known: pd.DataFrame, trials: pd.DataFrame, train: Any, test: Any) -> None:
    unknown = set(known.index) - set(units.index[~units["held_out"].astype(bool)])
    if unknown or set(trials["nlb_split"]) != {"test"}:
        raise InputError(
            expected=f"test trials of the held-in units of {train} in {test}",
            found=f"trials of {', '.join(sorted(set(trials['nlb_split'])))}"
            + f", and {len(unknown)} other units" * bool(unknown),
            fix="Name first the file of training trials, then the test file of the same set.",
        )


def _splits(trials: pd.DataFrame, observed: NDArray[np.float64], notes: Notes) -> dict[str, tuple[NDArray, NDArray]]:
    start, end = mc_maze_window(trials["move_onset"].to_numpy(), _GRID_S)
    inside = ((observed[:, 0] <= start[:, None]) & (end[:, None] <= observed[:, 1])).any(1)
    alone = np.append(True, start[1:] >= end[:-1] - 1e-9) & np.append(start[1:] >= end[:-1] - 1e-9, True)
    split = trials["nlb_split"].to_numpy()
    used = inside & alone & (split != "test")
    if missed := int((~used & (split != "test")).sum()):
        notes.leave(f"{missed} of {(split != 'test').sum()} windows", "cut short, or touching the next one")
    train, val = np.flatnonzero(used & (split == "train")), np.flatnonzero(used & (split == "val"))
    dealt = np.array(deal(len(train), SplitPlan("trials", (0.9, 0.1, 0.0))))
    rows = {"train": train[dealt == "train"], "valid": train[dealt == "valid"], "test": val}
    return {name: (start[chosen], end[chosen]) for name, chosen in rows.items() if len(chosen)}


def _matched(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
