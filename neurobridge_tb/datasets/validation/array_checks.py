"""Checks of the arrays that become a recording, see :mod:`neurobridge_tb.datasets.builder`.

Each function returns the checked array or object, or raises an InputError.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neurobridge_tb._upstream import ArrayDict, Data, Interval, IrregularTimeSeries
from neurobridge_tb.datasets.columns import Table, as_text, column_name, column_values, numbers, seconds, table_columns
from neurobridge_tb.datasets.validation.contents import SPLITS
from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

_TIME_NAMES = ("timestamps", "domain")
_TOLERANCE_S = 1e-6
_LONGEST_NAME = 200  # file systems take 255, of which parts and suffixes need some
_LARGEST_COUNT = np.iinfo(np.int32).max


def require_input(condition: bool, *, expected: str, found: str, fix: str) -> None:
    """Raise an InputError unless ``condition`` holds."""
    if not condition:
        raise InputError(expected=expected, found=found, fix=fix)


def grid(name: str, given: Any, n_units: int) -> tuple[NDArray, float]:
    """Values (T, N) and bin width in s, given as a pair."""
    require_input(
        isinstance(given, tuple | list) and len(given) == 2,
        expected=f"{name.removeprefix('spike_')}=(array, bin_size)",
        found=f"type {type(given).__name__}",
        fix="Give the bin width in seconds beside the array.",
    )
    width = seconds(f"bin_size of {name}", given[1])
    require_input(
        width.ndim == 0 and bool(0 < width < np.inf),
        expected=f"bin_size of {name} above 0 s",
        found=str(given[1]),
        fix="Give the bin width in seconds.",
    )
    return grid_values(name, given[0], n_units), float(width)


def moment(name: str, value: Any) -> float:
    """One time in s."""
    time = seconds(name, value)
    require_input(
        time.ndim == 0 and bool(np.isfinite(time)), expected=f"{name} in s", found=str(value), fix="Give one number."
    )
    return float(time)


def unit_table(units: Table) -> ArrayDict:
    """Columns of one length N with unique ids, in types that HDF5 recordings store."""
    columns = table_columns("units", units, ArrayDict)
    require_input(
        "id" in columns and columns["id"].ndim == 1 and columns["id"].size > 0,
        expected="units with a column 'id' that names each unit",
        found=f"columns {sorted(columns)}",
        fix="Give units={'id': [...], 'area': [...], ...}.",
    )
    columns |= {name: as_text(columns[name]) for name in ("id", "area") if name in columns and columns[name].ndim == 1}
    require_input(
        bool((columns["id"] != "").all()),
        expected="an id for each unit",
        found=f"none for {(columns['id'] == '').sum()} units",
        fix="Name each unit.",
    )
    names, times_used = np.unique(columns["id"], return_counts=True)
    require_input(
        bool((times_used == 1).all()),
        expected="a unit id for each unit alone",
        found=f"used more than once: {', '.join(names[times_used > 1][:5])}",
        fix="Rename them, e.g. with the probe's or the session's name in front.",
    )
    _one_length("units", columns, len(names), one_each="area")
    return ArrayDict(**columns)


def _one_length(owner: str, columns: dict[str, NDArray], length: int, one_each: str) -> None:
    for name, column in columns.items():
        fits = column.shape == (length,) if name == one_each else column.shape[:1] == (length,)
        require_input(
            fits,
            expected=f"{owner} column '{name}' of length {length}",
            found=f"shape {column.shape}",
            fix="Give each column one value a row.",
        )


def named(owner: str, given: Any) -> Mapping[str, Any]:
    """What is given by name; None is nothing."""
    require_input(
        given is None or isinstance(given, Mapping),
        expected=f"{owner} by name, in a dict",
        found=f"type {type(given).__name__}",
        fix=f"Give {owner}={{'name': ...}}.",
    )
    return given or {}


def recording_id(name: str, value: object) -> str:
    """An id as plain text that can name a file."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    names_a_file = bool(text.strip()) and not set(text) & set("/\\") and not text.startswith(".")
    require_input(
        value is not None and names_a_file and text.isascii() and text.isprintable() and len(text) <= _LONGEST_NAME,
        expected=f"{name} of ASCII text that can name a file, which is not hidden",
        found=repr(value) if len(text) <= _LONGEST_NAME else f"{len(text)} characters",
        fix="Replace '/' and the like by '_' or '-', and shorten long names.",
    )
    return text


def grid_values(name: str, array: ArrayLike, n_units: int) -> NDArray:
    """Values (T, N): float32 for ``name`` ``"mua"``, else whole numbers (float32 where some are NaN, absent)."""
    values = numbers(name, array)
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    require_input(
        values.ndim == 2 and values.shape[1] == n_units and len(values) > 0,
        expected=f"{name} of shape (bins, {n_units}), a column for each row of units",
        found=f"shape {values.shape}, type {values.dtype}",
        fix="Transpose the array if units come first, and give units in the order of its columns.",
    )
    if name == "mua":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        require_input(
            not np.isinf(values).any(),
            expected="finite values in mua, as float32 holds them, or NaN where there is none",
            found=f"{np.isinf(values).sum()} infinite values",
            fix="Replace them by NaN, or choose a larger unit of measurement.",
        )
        return values
    known = values[~np.isnan(values)]
    require_input(
        bool(len(known)) and known.min() >= 0 and known.max() <= _LARGEST_COUNT and bool((known % 1 == 0).all()),
        expected=f"whole counts from 0 up to {_LARGEST_COUNT:,}, or NaN where there is none",
        found=f"values from {known.min()} to {known.max()}" if len(known) else "NaN throughout",
        fix="Give spikes per bin, neither rates nor smoothed counts; values in general go into mua=.",
    )
    if values.dtype.kind in "iu":
        return values
    return values.astype(np.int32 if len(known) == values.size else np.float32)


def sorted_times(name: str, times: ArrayLike) -> NDArray[np.float64]:
    """Finite, sorted times (n,) in s."""
    array = seconds(name, times)
    unknown = (~np.isfinite(array)).sum()
    require_input(
        array.ndim == 1 and not unknown and bool((np.diff(array) >= 0).all()),
        expected=f"{name}: one row of finite times in s, sorted",
        found=f"{unknown:,} that are not finite"
        if unknown
        else f"shape {array.shape}" + ", not sorted" * (array.ndim == 1),
        fix="Leave out what has no time."
        if unknown
        else "Sort by time, and sort what belongs to the times the same way.",
    )
    return array


def behavior_objects(
    behavior: Mapping[str, tuple[ArrayLike, ArrayLike]], taken: tuple[str, ...]
) -> dict[str, dict[str, NDArray]]:
    """``{"hand_velocity": (t, v)}`` to ``{"hand": {"timestamps": t, "velocity": v}}``.

    What has the name of a modality goes where that modality is looked for.
    """
    objects: dict[str, dict[str, NDArray]] = {}
    for name, given in behavior.items():
        require_input(
            isinstance(given, tuple | list) and len(given) == 2,
            expected=f"behavior '{name}' as (timestamps, values)",
            found=f"type {type(given).__name__}",
            fix="Give times in seconds beside the values.",
        )
        timestamps, values = given
        owner, _, quantity = name.partition("." if "." in name else "_")
        modality = MODALITY_REGISTRY.get(name)
        if modality is not None and modality.timestamp_key.endswith(".timestamps"):
            owner, _, quantity = modality.value_key.partition(".")
        free = owner not in taken and not owner.endswith("_domain") and not hasattr(Data, owner)
        require_input(
            owner.isidentifier() and quantity.isidentifier() and free and quantity not in _TIME_NAMES,
            expected="a behaviour's name like 'hand_velocity' or 'hand.velocity': an object and a quantity",
            found=repr(name),
            fix=f"Rename it; these names are taken: {', '.join([*taken, *_TIME_NAMES])}.",
        )
        times = sorted_times(f"timestamps of {name}", timestamps)
        array = column_values("behavior", column_name("behavior", quantity, IrregularTimeSeries), values)
        require_input(
            array.shape[:1] == times.shape,
            expected=f"{len(times)} values of {name}, one for each timestamp",
            found=f"shape {array.shape}",
            fix="Put time first.",
        )
        columns = objects.setdefault(owner, {"timestamps": times})
        require_input(
            np.array_equal(columns["timestamps"], times),
            expected=f"the same timestamps for all quantities of '{owner}'",
            found=f"others for {name}",
            fix="Interpolate to one time axis, or use another object name.",
        )
        columns[quantity] = array
    return objects


def check_inside(name: str, starts: NDArray, ends: NDArray, domain: Interval) -> None:
    """Raise an InputError where something reaches out of the recording."""
    if len(starts) == 0:
        return
    require_input(
        starts.min() >= domain.start[0] - _TOLERANCE_S and ends.max() <= domain.end[-1] + _TOLERANCE_S,
        expected=f"{name} inside the recording, {domain.start[0]:.13g} to {domain.end[-1]:.13g} s",
        found=f"{starts.min():.13g} to {ends.max():.13g} s",
        fix="Use one clock in seconds for everything, and give its start.",
    )


def _bounds(name: str, starts: ArrayLike, ends: ArrayLike, domain: Interval) -> tuple[NDArray, NDArray]:
    start, end = (np.atleast_1d(seconds(name, times)) for times in (starts, ends))
    fit = start.ndim == 1 and start.shape == end.shape
    wrong = int((~(start < end)).sum()) if fit else 0
    require_input(
        fit and not wrong,
        expected=f"{name}: starts and ends of equal number, each end after its start",
        found=f"{wrong:,} of {len(start):,} without a length, or without a time"
        if fit
        else f"shapes {start.shape}, {end.shape}",
        fix="Give times in seconds; leave rows without a length out.",
    )
    check_inside(name, start, end, domain)
    return start, end


def interval_table(name: str, columns: dict[str, NDArray], domain: Interval) -> Interval:
    """A table of intervals with ``start``, ``end`` and any more columns, sorted."""
    require_input(
        {"start", "end"} <= set(columns),
        expected=f"{name} with columns 'start' and 'end'",
        found=f"columns {sorted(columns)}",
        fix="Give both in seconds.",
    )
    start, end = _bounds(name, columns["start"], columns["end"], domain)
    _one_length(name, columns, len(start), one_each="image_id")
    require_input(
        bool((np.diff(start) >= 0).all() and (np.diff(end) >= 0).all()),
        expected=f"{name} in the order of time",
        found=f"unsorted {name}",
        fix="Sort the rows by start.",
    )
    return Interval(**(columns | {"start": start, "end": end}), timekeys=["start", "end"])


def _starts_and_ends(name: str, given: Any) -> tuple[ArrayLike, ArrayLike]:
    if isinstance(given, Mapping | pd.DataFrame) and {"start", "end"} <= set(given):
        return given["start"], given["end"]
    require_input(
        isinstance(given, tuple | list | np.ndarray) and len(given) == 2,
        expected=f"{name}: (starts, ends), or a table with start and end",
        found=f"type {type(given).__name__}",
        fix="Give two arrays of times in seconds.",
    )
    return given[0], given[1]


def split_domains(splits: Mapping[str, Any], domain: Interval) -> dict[str, Interval]:
    """``train_domain`` and so on: intervals sorted by time, no two of which overlap."""
    require_input(
        set(splits) <= set(SPLITS),
        expected=f"splits named {', '.join(SPLITS)}",
        found=", ".join(splits),
        fix="Rename them.",
    )
    bounds = {
        name: _bounds(f"split '{name}'", *_starts_and_ends(f"split '{name}'", given), domain)
        for name, given in splits.items()
    }
    rows = sorted((s, e, name) for name, (starts, ends) in bounds.items() for s, e in zip(starts, ends, strict=True))
    for (start, end, name), (next_start, next_end, next_name) in zip(rows, rows[1:], strict=False):
        require_input(
            end <= next_start + _TOLERANCE_S,
            expected="splits whose intervals do not overlap",
            found=f"{name} {start:g} to {end:g} s, {next_name} {next_start:g} to {next_end:g} s",
            fix="Move the border, so that no time serves two splits.",
        )
    domains = {}
    for name, (start, end) in bounds.items():
        order = np.argsort(start)
        start, end = start[order], end[order]
        end[:-1] = np.minimum(end[:-1], start[1:])  # neighbours may overlap by a rounding error
        domains[f"{name}_domain"] = Interval(start, end)
    return domains
