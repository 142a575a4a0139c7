"""Checks of the arrays that become a recording, see :mod:`neurobridge_tb.datasets.builder`.

Each function returns the checked array or object, or raises an InputError.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurobridge_tb._upstream import ArrayDict, Interval
from neurobridge_tb.datasets.columns import Table, as_text, table_columns
from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

_SPLITS = ("train", "valid", "test")
_TIME_NAMES = ("timestamps", "domain")
_TOLERANCE_S = 1e-6


def require_input(condition: bool, *, expected: str, found: str, fix: str) -> None:
    """Raise an InputError unless ``condition`` holds."""
    if not condition:
        raise InputError(expected=expected, found=found, fix=fix)


def positive(name: str, value: float) -> float:
    """A bin width in s."""
    require_input(value > 0, expected=f"{name} above 0 s", found=str(value), fix="Give the bin width in seconds.")
    return float(value)


def unit_table(units: Table) -> ArrayDict:
    """Columns of one length N with unique ids, in types that HDF5 recordings store."""
    columns = table_columns("units", units)
    require_input(
        "id" in columns and columns["id"].ndim == 1 and columns["id"].size > 0,
        expected="units with a column 'id' that names each unit",
        found=f"columns {sorted(columns)}",
        fix="Give units={'id': [...], 'area': [...], ...}.",
    )
    columns["id"] = as_text(columns["id"])
    names, times_used = np.unique(columns["id"], return_counts=True)
    require_input(
        bool((times_used == 1).all()),
        expected="a unit id for each unit alone",
        found=f"used more than once: {', '.join(names[times_used > 1][:5])}",
        fix="Rename them, e.g. with the probe's or the session's name in front.",
    )
    _one_length("units", columns, len(names))
    return ArrayDict(**columns)


def _one_length(owner: str, columns: dict[str, NDArray], length: int) -> None:
    for name, column in columns.items():
        require_input(
            column.shape[:1] == (length,),
            expected=f"{owner} column '{name}' of length {length}",
            found=f"shape {column.shape}",
            fix="Give each column one value a row.",
        )


def recording_id(name: str, value: object) -> str:
    """An id as plain text that can name a file."""
    text = str(value)
    require_input(
        bool(text.strip()) and not set(text) & set("/\\\0") and text.isascii() and text not in (".", ".."),
        expected=f"{name} of ASCII text that can name a file",
        found=repr(value),
        fix="Replace '/' and the like by '_' or '-'.",
    )
    return text


def grid_values(name: str, array: ArrayLike, n_units: int) -> NDArray:
    """Values (T, N): float32 for ``name`` ``"mua"``, else whole numbers (float32 where some are NaN, absent)."""
    values = np.asarray(array)
    require_input(
        values.ndim == 2 and values.shape[1] == n_units and len(values) > 0 and values.dtype.kind in "iuf",
        expected=f"{name} of shape (bins, {n_units}), a column for each row of units",
        found=f"shape {values.shape}, type {values.dtype}",
        fix="Transpose the array if units come first, and give units in the order of its columns.",
    )
    if name == "mua":
        require_input(
            not np.isinf(values).any(),
            expected="finite values in mua, or NaN where there is none",
            found=f"{np.isinf(values).sum()} infinite values",
            fix="Replace them by NaN.",
        )
        return values.astype(np.float32)
    known = values[~np.isnan(values)]
    require_input(
        bool(len(known)) and bool((known >= 0).all()) and bool((known == np.floor(known)).all()),
        expected="whole counts from 0 up, or NaN where there is none",
        found=f"values from {known.min()} to {known.max()}" if len(known) else "NaN throughout",
        fix="Give spikes per bin, neither rates nor smoothed counts; values in general go into mua=.",
    )
    if values.dtype.kind in "iu":
        return values
    return values.astype(np.int32 if len(known) == values.size else np.float32)


def sorted_times(name: str, times: ArrayLike) -> NDArray[np.float64]:
    """Finite, sorted times (n,) in s."""
    array = np.asarray(times, dtype=np.float64)
    in_order = array.ndim == 1 and bool(np.isfinite(array).all()) and bool((np.diff(array) >= 0).all())
    require_input(
        in_order,
        expected=f"{name}: one row of finite times in s, sorted",
        found=f"shape {array.shape}" + (", not sorted or not finite" if array.ndim == 1 else ""),
        fix="Sort by time, and sort what belongs to the times the same way.",
    )
    return array


def behavior_objects(
    behavior: Mapping[str, tuple[ArrayLike, ArrayLike]], taken: tuple[str, ...]
) -> dict[str, dict[str, NDArray]]:
    """``{"hand_velocity": (t, v)}`` to ``{"hand": {"timestamps": t, "velocity": v}}``.

    What has the name of a modality goes where that modality is looked for.
    """
    objects: dict[str, dict[str, NDArray]] = {}
    for name, (timestamps, values) in behavior.items():
        owner, _, quantity = name.partition("." if "." in name else "_")
        modality = MODALITY_REGISTRY.get(name)
        if modality is not None and modality.timestamp_key.endswith(".timestamps"):
            owner, _, quantity = modality.value_key.partition(".")
        require_input(
            owner.isidentifier() and quantity.isidentifier() and owner not in taken and quantity not in _TIME_NAMES,
            expected="a behaviour's name like 'hand_velocity' or 'hand.velocity': an object and a quantity",
            found=repr(name),
            fix=f"Rename it; these names are taken: {', '.join([*taken, *_TIME_NAMES])}.",
        )
        times, array = sorted_times(f"timestamps of {name}", timestamps), np.asarray(values)
        require_input(
            len(array) == len(times),
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
    start, end = np.asarray(starts, dtype=np.float64), np.asarray(ends, dtype=np.float64)
    require_input(
        start.ndim == 1 and start.shape == end.shape and bool((start < end).all()),
        expected=f"{name}: starts and ends of equal number, each end after its start",
        found=f"{start.shape} starts and {end.shape} ends",
        fix="Give times in seconds; leave empty intervals out.",
    )
    check_inside(name, start, end, domain)
    return start, end


def interval_table(name: str, table: Table, domain: Interval) -> Interval:
    """A table of intervals with ``start``, ``end`` and any more columns, sorted."""
    columns = table_columns(name, table)
    require_input(
        {"start", "end"} <= set(columns),
        expected=f"{name} with columns 'start' and 'end'",
        found=f"columns {sorted(columns)}",
        fix="Give both in seconds.",
    )
    start, end = _bounds(name, columns["start"], columns["end"], domain)
    lengths = {name: len(column) for name, column in columns.items()}
    require_input(
        len(set(lengths.values())) == 1 and bool((np.diff(start) >= 0).all() and (np.diff(end) >= 0).all()),
        expected=f"{name} columns of one length, in the order of time",
        found=f"lengths {lengths}" if len(set(lengths.values())) > 1 else f"unsorted {name}",
        fix="Sort the rows by start.",
    )
    return Interval(**(columns | {"start": start, "end": end}), timekeys=["start", "end"])


def split_domains(splits: Mapping[str, tuple[ArrayLike, ArrayLike]], domain: Interval) -> dict[str, Interval]:
    """``train_domain`` and so on: intervals sorted by time, no two of which overlap."""
    require_input(
        set(splits) <= set(_SPLITS),
        expected=f"splits named {', '.join(_SPLITS)}",
        found=", ".join(splits),
        fix="Rename them.",
    )
    bounds = {name: _bounds(f"split '{name}'", *given, domain) for name, given in splits.items()}
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
