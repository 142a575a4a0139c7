"""Kilosort and Phy folders (https://phy.readthedocs.io, "Template-GUI files")."""

import ast
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.readers.choices import Choices, check_sampling_rate
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.datasets.readers.npy_arrays import load_array
from neurobridge_tb.errors import InputError


def read_phy(
    source: str | Path,
    choices: Choices | None = None,
    *,
    sampling_rate: float | None = None,
    notes: Notes | None = None,
) -> Data:
    """A recording of a folder with ``spike_times.npy`` and ``spike_clusters.npy``.

    Spike times are sample numbers. Columns of ``cluster_*.tsv`` become columns of units. Unless ``choices.where`` says
    otherwise, clusters of the group ``good`` are taken, or where nobody has sorted them, those that Kilosort labels so.

    Args:
        source: The folder.
        choices: Units, names and splits.
        sampling_rate: Hz. Default: ``sample_rate`` of ``params.py``, which is read as text and never run.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: Not such a folder, or no sampling rate.
    """
    folder, notes = Path(source), Notes() if notes is None else notes
    samples = load_array(folder / "spike_times.npy").ravel()
    name = "spike_clusters.npy" if (folder / "spike_clusters.npy").exists() else "spike_templates.npy"
    clusters = load_array(folder / name).ravel()
    if len(samples) != len(clusters) or not len(samples) or clusters.dtype.kind not in "iu":
        raise InputError(
            expected=f"a cluster for each spike in {folder}",
            found=f"{len(samples):,} spike times, {len(clusters):,} clusters of type {clusters.dtype}",
            fix="Take both files from one sorting.",
        )
    rate = _sampling_rate(folder, sampling_rate, samples, notes)
    order = np.argsort(clusters, kind="stable")
    numbers, firsts = np.unique(clusters[order], return_index=True)
    trains = dict(zip(numbers.tolist(), np.split(samples[order] / rate, firsts[1:]), strict=True))
    units = _cluster_table(folder, numbers, notes)
    choices = choices or Choices()
    if not choices.where:
        choices = _good_ones(units, choices, notes)
    session = file_name(folder.resolve().name)
    draft = Draft(session, f"Phy folder {session}", units, notes, lambda row: trains[int(units.index[row])])
    return draft.recording(choices)


def _sampling_rate(folder: Path, given: float | None, samples: NDArray, notes: Notes) -> float:
    """Hz, from the user or from ``params.py``; the two must agree."""
    written = _params(folder / "params.py").get("sample_rate")
    if given is None and written is None:
        seconds = f"{samples.max() / 30_000:,.0f} s at 30,000 Hz, {samples.max() / 25_000:,.0f} s at 25,000 Hz"
        raise InputError(
            expected=f"the sampling rate: sample_rate in {folder / 'params.py'}, or --sampling-rate",
            found=f"neither; the last spike is sample {samples.max():,}: {seconds}",
            fix="Give the rate that it was recorded with, e.g. --sampling-rate 30000.",
        )
    if given is not None and written is not None and given != written:
        raise InputError(
            expected=f"the sampling rate of {folder / 'params.py'}, {written:g} Hz",
            found=f"--sampling-rate {given:g}",
            fix="Leave --sampling-rate out, or correct params.py.",
        )
    rate = given if given is not None else float(written or 0)
    check_sampling_rate(rate)
    if samples.dtype.kind == "f" and (samples != np.floor(samples)).any():
        raise InputError(
            expected="whole sample numbers",
            found=f"times from {samples.min():g} to {samples.max():g}",
            fix="Spike times of a Phy folder are sample numbers.",
        )
    notes.taken.append(f"sampling rate {rate:g} Hz, {'as given' if written is None else 'from params.py'}")
    return rate


def _params(path: Path) -> dict[str, float]:
    """Numbers that are assigned in ``params.py``, without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (SyntaxError, ValueError) as error:
        raise InputError(
            expected=f"assignments in {path}", found=str(error), fix="Correct it, or move it away."
        ) from error
    numbers: dict[str, float] = {}
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            if isinstance(line.value.value, int | float):
                numbers |= {
                    target.id: float(line.value.value) for target in line.targets if isinstance(target, ast.Name)
                }
    return numbers


def _cluster_table(folder: Path, numbers: NDArray, notes: Notes) -> pd.DataFrame:
    table = pd.DataFrame(index=pd.Index(numbers, name="cluster_id"))
    for path in sorted([*folder.glob("cluster_*.tsv"), *folder.glob("cluster_*.csv")]):
        columns = _read_table(path)
        if columns is None:
            notes.leave(path.name, "not a table")
            continue
        if "cluster_id" not in columns and "id" not in columns:
            notes.leave(path.name, "no column cluster_id")
            continue
        columns = columns.set_index("cluster_id" if "cluster_id" in columns else "id")
        columns.index = pd.to_numeric(columns.index, errors="coerce")
        fresh = [name for name in columns if name not in table]
        table = table.join(columns.loc[~columns.index.duplicated(), fresh])
    return table


def _read_table(path: Path) -> pd.DataFrame | None:
    """A table of columns that are separated by tabs, commas or the like; None where it is none."""
    try:
        return pd.read_csv(path, sep=None, engine="python")
    except (ValueError, csv.Error):  # pandas' own errors are ValueErrors
        return None


def _good_ones(units: pd.DataFrame, choices: Choices, notes: Notes) -> Choices:
    labels = [name for name in ("group", "KSLabel") if name in units and units[name].notna().any()]
    named = next((name for name in labels if (units[name] == "good").any()), next(iter(labels), None))
    if named is None:
        notes.assumed.append("all clusters are units: no cluster_group.tsv or cluster_KSLabel.tsv tells which are good")
        return choices
    groups = units[named].fillna("unsorted").value_counts()
    listed = ", ".join(f"{group} {count}" for group, count in groups.items())
    notes.assumed.append(f"clusters with {named}=good are units ({listed}); --where {named}=… takes others")
    return replace(choices, where=(f"{named}=good",))
