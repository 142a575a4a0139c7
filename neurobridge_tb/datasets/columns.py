"""Columns of tables as HDF5 recordings store them: numbers, and text in ASCII."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import ArrayDict, Interval
from neurobridge_tb.errors import InputError

_COARSEST_S = 5e-3  # to which times may be rounded

Table: TypeAlias = Mapping[str, Any] | pd.DataFrame  # columns by name, each array-like


def table_columns(owner: str, table: Table, kind: type[ArrayDict]) -> dict[str, NDArray]:
    """Every column of a table, see :func:`column_values`; those of an Interval's times in s.

    Args:
        owner: What the table holds, for messages, e.g. ``"units"``.
        table: A mapping of names to columns, or a DataFrame.
        kind: Class of torch_brain that gets the columns.

    Raises:
        InputError: No such table, or a column that cannot be stored; it is named.
    """
    if not isinstance(table, Mapping | pd.DataFrame):
        raise InputError(
            expected=f"{owner}: columns by name, in a dict or a DataFrame",
            found=f"type {type(table).__name__}",
            fix="Give {'name': values, ...}, or pandas.DataFrame(...) of it.",
        )
    names = [column_name(owner, str(name), kind) for name in table]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            expected=f"{owner} columns of different names",
            found=f"twice: {', '.join(sorted(twice))}",
            fix="Rename one of them, or leave it out.",
        )
    times = ("start", "end") if kind is Interval else ()
    return {
        str(name): seconds(f"{name} of {owner}", table[name])
        if name in times
        else column_values(owner, str(name), table[name])
        for name in table
    }


def column_name(owner: str, name: str, kind: type[ArrayDict]) -> str:
    """A name under which an object of torch_brain, of class ``kind``, can hold and store a column.

    Raises:
        InputError: It is empty, begins with "_" (which torch_brain does not store), has a "/" (which HDF5 takes for a
            folder), or is that of a method.
    """
    if not can_hold(kind, name):
        raise InputError(
            expected=f"names of {owner} columns without '/', that do not begin with '_' and that torch_brain's tables "
            "do not use themselves",
            found=repr(name),
            fix="Rename the column.",
        )
    return name


def can_hold(kind: type, name: str) -> bool:
    """Whether objects of a class of torch_brain can hold and store something by this name, see :func:`column_name`."""
    hides_a_method = hasattr(kind, name) and name != "split"  # which torch_brain never calls, and is a usual name
    stored = name.strip() not in ("", ".") and not name.startswith("_") and not set(name) & set("/\0")
    return stored and not hides_a_method


def column_values(owner: str, name: str, column: Any) -> NDArray:
    """A column as an array of numbers or of ASCII text.

    Text is accepted in any form: str, bytes, numpy's or pandas' strings, categories. A missing value is ``""`` in text
    and NaN among numbers. Dates become ISO text, durations seconds.

    Args:
        owner: What the table holds, for messages.
        name: The column's name, for messages.
        column: (n, ...) values.

    Raises:
        InputError: Ragged or mixed values, complex numbers, or text that is not ASCII.
    """
    array = _plain(column)
    if array is None or array.dtype.kind not in "biufU":
        raise InputError(
            expected=f"{owner} column '{name}' of numbers or of text",
            found=f"type {_kind(column)}",
            fix="Give one number or one text a row, or leave the column out.",
        )
    if array.dtype.kind == "U":
        foreign = next((text for text in array.ravel() if not text.isascii()), None)
        if foreign is not None:
            raise InputError(
                expected=f"{owner} column '{name}' of ASCII text, which is what HDF5 recordings store",
                found=f"{foreign!r}, not ASCII",
                fix="Spell it in ASCII, or leave the column out.",
            )
    return array.astype(np.float32) if array.dtype == np.float16 else array


def numbers(name: str, values: Any) -> NDArray:
    """Numbers as they are; those that are masked or missing are NaN.

    Args:
        name: What they are, for messages.
        values: (n, ...) an array, also masked or sparse, a DataFrame, a tensor, or a list.

    Raises:
        InputError: Text, complex numbers, dates, or rows of different lengths.
    """
    array = _plain(values)
    if array is None or array.dtype.kind not in "biuf":
        raise InputError(
            expected=f"{name}: an array of numbers",
            found=f"type {_kind(values)}",
            fix="Convert them, or leave them out.",
        )
    return array


def seconds(name: str, times: Any) -> NDArray[np.float64]:
    """Times or durations in s; durations with a unit of their own (timedeltas, neo's quantities) are converted.

    Raises:
        InputError: Text, dates, or times that are rounded to more than 5 ms, as float32 has them after 18 hours.
    """
    if hasattr(times, "rescale"):  # of the package quantities
        times = times.rescale("s")
    array = _plain(times)
    if array is None or array.dtype.kind not in "biuf":
        text = str(array.ravel()[0]) if array is not None and array.size else ""
        raise InputError(
            expected=f"{name} in s, as numbers",
            found=text or f"type {_kind(times)}",
            fix="Of dates, give the seconds since the recording's start: (t - t[0]) / numpy.timedelta64(1, 's').",
        )
    latest = np.abs(array).max(initial=0, where=np.isfinite(array))
    if array.dtype in (np.float16, np.float32) and np.spacing(latest) > _COARSEST_S:
        raise InputError(
            expected=f"{name} to a few milliseconds",
            found=f"{array.dtype}, in which {latest:,.0f} s is rounded to {np.spacing(latest):.2g} s",
            fix="Give them as float64 from where they are read, or from the recording's start on.",
        )
    return array.astype(np.float64)


def _plain(column: Any) -> NDArray | None:
    """Numbers or str, None where the values are neither."""
    if isinstance(column, np.ma.MaskedArray):
        absent: Any = np.nan if column.dtype.kind in "biuf" else None
        column = np.where(column.mask, absent, column.data) if column.mask.any() else column.data
    elif hasattr(column, "toarray"):  # scipy's sparse arrays
        column = column.toarray()
    elif hasattr(column, "detach"):  # a tensor
        column = column.detach().cpu()
    try:
        array = np.asarray(column)
    except ValueError:  # rows of different lengths
        return None
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "M":
        return np.where(np.isnat(array), "", np.datetime_as_string(array))
    if array.dtype.kind == "m":
        return array / np.timedelta64(1, "s")
    if array.dtype.kind != "O" and array.dtype.kind != "T":
        return array
    return _of_objects(array)


def _of_objects(array: NDArray) -> NDArray | None:
    values = list(array.ravel())
    given = [value for value in values if not _missing(value)]
    if all(isinstance(value, str | bytes | PurePath) for value in given):
        return np.array([_text(value) for value in values], dtype=str).reshape(array.shape)
    if all(isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating) for value in given):
        known = [np.nan if _missing(value) else value for value in values]
        return np.array(known, dtype=None if len(given) == len(values) else np.float64).reshape(array.shape)
    if all(isinstance(value, timedelta) for value in given):
        return np.array([np.nan if _missing(value) else value.total_seconds() for value in values]).reshape(array.shape)
    if all(isinstance(value, pd.Timestamp) or hasattr(value, "isoformat") for value in given):
        return np.array(["" if _missing(value) else value.isoformat() for value in values], dtype=str)
    return None


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value))


def _text(value: Any) -> str:
    if _missing(value):
        return ""
    if isinstance(value, PurePath):
        return value.as_posix()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def as_text(values: Iterable[Any]) -> NDArray[np.str_]:
    """Any column of text or numbers as ``<U`` strings: bytes are decoded, missing values are ``""``."""
    return np.array([_text(value) for value in np.asarray(values).ravel().tolist()], dtype=str)


def _kind(column: Any) -> str:
    try:
        array = np.asarray(column)
    except ValueError:
        return "ragged: rows of different lengths"
    if array.dtype.kind != "O":
        return str(array.dtype)
    return "object, of " + ", ".join(sorted({type(value).__name__ for value in array.ravel() if not _missing(value)}))
