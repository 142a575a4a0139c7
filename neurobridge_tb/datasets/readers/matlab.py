"""MATLAB files: rasters as the Neural Decoding Toolbox has them (http://www.readout.info), and arrays by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.readers.choices import Choices, check_bin_size, check_sampling_rate
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name, identifier
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.datasets.readers.rasters import is_raster, raster_draft
from neurobridge_tb.errors import InputError, require
from neurobridge_tb.files import visible


def read_matlab(
    source: str | Path,
    choices: Choices | None = None,
    *,
    spikes: str | None = None,
    clusters: str | None = None,
    sampling_rate: float | None = None,
    counts: str | None = None,
    mua: str | None = None,
    bin_size: float | None = None,
    behavior: Mapping[str, str] | None = None,
    tables: Mapping[str, str] | None = None,
    notes: Notes | None = None,
) -> Data:
    """A recording of MATLAB rasters, or of arrays of a ``.mat`` file of any version, by their names.

    Rasters need no names: see :mod:`neurobridge_tb.datasets.readers.rasters`. Fields of structs are named as in
    MATLAB, ``"data.spikes"``.

    Args:
        source: A ``.mat`` file, or a folder of rasters, one file a unit.
        choices: Units, tables, names and splits.
        spikes: Spike times: a cell array with one row of times a unit, or with ``clusters`` all times in one.
        clusters: The unit of each spike.
        sampling_rate: Hz, where spike times are sample numbers.
        counts: Spike counts (bins, units).
        mua: Other values (bins, units).
        bin_size: In s, of ``counts`` and ``mua``. Rasters: of a column, default 1 ms.
        behavior: ``{"hand_velocity": "X"}``: series with a row a bin, or with their times in ``"X_times"``.
        tables: ``{"trials": "T"}``: structs of columns, among them ``start`` and ``end`` in s.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: Not a MATLAB file, or names of activity that are missing or do not fit; what there is is listed.
    """
    path, notes, choices = Path(source), Notes() if notes is None else notes, choices or Choices()
    if sampling_rate is not None:
        check_sampling_rate(sampling_rate)
    named = {"spikes": spikes, "counts": counts, "mua": mua}
    files = visible(path, "*.mat") if path.is_dir() else [path]
    if not any(named.values()):
        contents = {file: load_mat(file) for file in files}
        if contents and all(map(is_raster, contents.values())):
            return raster_draft(path, contents, notes, step=bin_size or 1e-3).recording(choices)
        listed = [f"{name} {_kind(value)}" for file in files[:1] for name, value in contents[file].items()]
        raise InputError(
            expected=f"which array of {path} holds the activity, or rasters (raster_data, raster_labels)",
            found=", ".join(listed) or "no .mat file",
            fix="Name one with --spikes, --counts or --mua.",
        )
    content = load_mat(path)
    draft = Draft(file_name(path.stem), f"MATLAB file {path.name}", pd.DataFrame(), notes)
    if spikes is not None:
        trains = _trains(content, spikes, clusters, sampling_rate)
        draft.units = pd.DataFrame(index=pd.Index(list(trains)))
        draft.spikes = list(trains.values()).__getitem__
    else:
        name = str(counts or mua)
        values = np.asarray(_field(content, name))
        if values.ndim != 2 or values.dtype.kind not in "biuf" or not bin_size:
            raise InputError(
                expected=f"numbers (bins, units) in {name}, and --bin-size in s",
                found=f"shape {values.shape}, type {values.dtype}, bin size {bin_size}",
                fix="Give the bin width of the array, e.g. --bin-size 0.05.",
            )
        _check_bins(name, values, bin_size, notes)
        draft.units = pd.DataFrame(index=pd.Index([f"u{unit:04d}" for unit in range(values.shape[1])]))
        draft.values, draft.are_counts = (values, bin_size, 0.0), counts is not None
    for name, variable in (behavior or {}).items():
        draft.behavior[name] = _series(content, name, variable, draft)
    for name, variable in (tables or {}).items():
        draft.intervals[identifier(name)] = _table(content, name, variable)
    return draft.recording(choices)


def _check_bins(name: str, values: NDArray, bin_size: float, notes: Notes) -> None:
    check_bin_size("--bin-size", bin_size)
    if len(values) < values.shape[1]:
        notes.assumed.append(
            f"{name} is (bins, units), {len(values):,} bins of {values.shape[1]:,} units: transpose it if that is wrong"
        )


def _column(values: Any) -> list[Any] | NDArray:
    """A field of a struct as a column: cells of one value each are that value."""
    if isinstance(values, list):
        return [np.ravel(value)[0] if np.size(value) == 1 else value for value in values]
    return np.ravel(values)


def load_mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file, structs as dictionaries and cells as lists or arrays of objects.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        try:
            content = scipy.io.loadmat(path, simplify_cells=True)
        except NotImplementedError:  # version 7.3 is HDF5
            content = require("mat73", extra="readers").loadmat(str(path))
    except (OSError, ValueError, TypeError, scipy.io.matlab.MatReadError) as error:
        raise InputError(
            expected=f"a MATLAB file at {path}", found=str(error), fix="Check the path, or save it again in MATLAB."
        ) from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _field(content: dict[str, Any], name: str) -> Any:
    """A variable, or a field of a struct by a dotted name."""
    value: Any = content
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            there = value if isinstance(value, dict) else {}
            raise InputError(
                expected=f"an array named {name}",
                found=", ".join(f"{key} {_kind(its)}" for key, its in there.items()) or "no fields",
                fix="Correct the name.",
            )
        value = value[part]
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"struct({', '.join(value)})"
    return str(np.shape(value)) if isinstance(value, np.ndarray) else type(value).__name__


def _trains(
    content: dict[str, Any], spikes: str, clusters: str | None, sampling_rate: float | None
) -> dict[str, NDArray]:
    """Spike times in s by the unit's name."""
    times = _field(content, spikes)
    if clusters is None:
        cells = list(times) if isinstance(times, list) or np.asarray(times).dtype == object else [times]
        trains = {f"u{unit:04d}": _train(spikes, cell) for unit, cell in enumerate(cells)}
    else:
        owners, flat = np.ravel(_field(content, clusters)), np.ravel(times).astype(np.float64)
        if owners.shape != flat.shape:
            raise InputError(
                expected=f"a unit in {clusters} for each of {len(flat):,} spikes",
                found=f"{len(owners):,}",
                fix="Name the arrays of one sorting.",
            )
        trains = {f"c{owner:g}": flat[owners == owner] for owner in np.unique(owners)}
    return {unit: train.ravel() / (sampling_rate or 1.0) for unit, train in trains.items()}


def _train(spikes: str, cell: Any) -> NDArray[np.float64]:
    """Spike times of one cell of a cell array."""
    try:
        return np.atleast_1d(np.asarray([] if cell is None else cell, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(
            expected=f"in each cell of {spikes} the spike times of one unit, all trials together",
            found=f"a cell that holds {_kind(cell)}: cells of trials, or text",
            fix="Add each trial's start to its times, and put a unit's trials into one array.",
        ) from error


def _series(content: dict[str, Any], name: str, variable: str, draft: Draft) -> tuple[NDArray, NDArray]:
    """Times and values of a behaviour: a row a bin, or with times of its own."""
    values = np.asarray(_field(content, variable))
    beside = f"{variable}_times"
    if draft.values is not None and len(values) == len(draft.values[0]):
        _, step, start = draft.values
        return start + step * (np.arange(len(values)) + 0.5), values
    times = np.ravel(_field(content, beside)).astype(np.float64)
    if len(times) != len(values):
        raise InputError(
            expected=f"a time in {beside} for each of {len(values)} values of {name}",
            found=f"{len(times)}",
            fix="Put time first in the array.",
        )
    return times, values


def _table(content: dict[str, Any], name: str, variable: str) -> pd.DataFrame:
    struct = _field(content, variable)
    if isinstance(struct, list) or (isinstance(struct, np.ndarray) and struct.dtype == object):
        rows = [row for row in struct if isinstance(row, dict)]  # a struct array: one struct a row
        struct = {key: [row.get(key) for row in rows] for key in rows[0]} if rows else struct
    columns = {key: _column(column) for key, column in struct.items()} if isinstance(struct, dict) else {}
    if not {"start", "end"} <= set(columns) or len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{key} {len(column)}" for key, column in columns.items())
        raise InputError(
            expected=f"a struct {variable} with fields start and end and any more of one length, for {name}",
            found=lengths or _kind(struct),
            fix="MATLAB tables are opaque in files: use table2struct(T, 'ToScalar', true).",
        )
    table = pd.DataFrame(columns)
    text = {key: table[key].str.rstrip() for key in table if pd.api.types.is_string_dtype(table[key])}
    return table.assign(**text)  # rows of a char matrix are padded
