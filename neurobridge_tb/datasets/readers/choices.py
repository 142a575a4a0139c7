"""What a user may choose about any source."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb.datasets.splits import SplitPlan
from neurobridge_tb.errors import InputError

_MOST_LISTED = 8  # values of a column
_LONGEST_BIN_S, _LOWEST_RATE_HZ = 10.0, 500.0
_COMPARE: dict[str, Callable] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Choices:
    """What is taken from a source, and how the recording is named and cut.

    Attributes:
        session: Name of the recording. Default: the source's name.
        subject: Name of the animal or person. Default: what the source says, else ``"unknown"``.
        brainset: Name of the collection. Default ``"imported"``.
        where: Conditions on columns of units, all of which hold for the units that are taken: ``"quality=good"``,
            ``"group=good,mua"`` (either), ``"snr>2"``, ``"isi_violations<=0.5"``, ``"area!=root"``.
        area: Column of units that names the area. Default: the first of the usual names that is there.
        leave: Tables and series that are left out, by name.
        presentations: ``"table.column"``: the column names the image that each row of the table shows; makes
            ``presentations`` with ``image_id`` and ``repeat`` of it.
        count_in: Bin width in s in which spikes are counted, as alignment needs it. Default: spikes stay events.
        split: How the recording is cut into training, validation and test.
    """

    session: str | None = None
    subject: str | None = None
    brainset: str = "imported"
    where: tuple[str, ...] = ()
    area: str | None = None
    leave: tuple[str, ...] = ()
    presentations: str | None = None
    count_in: float | None = None
    split: SplitPlan = field(default_factory=SplitPlan)


def rows_where(units: pd.DataFrame, conditions: tuple[str, ...]) -> NDArray[np.bool_]:
    """(N,) units for which all conditions hold, see :class:`Choices`.

    Raises:
        InputError: A condition that cannot be read, or names a column that is not there.
    """
    kept = np.ones(len(units), dtype=bool)
    for condition in conditions:
        match = re.fullmatch(r"\s*([\w.]+?)\s*(<=|>=|!=|<|>|=)\s*(.+?)\s*", condition)
        if match is None or match[1] not in units:
            raise InputError(
                expected="a condition such as quality=good or snr>2, on a column of units",
                found=repr(condition),
                fix=f"Columns: {', '.join(map(str, units.columns))}.",
            )
        column, compare, value = units[match[1]], match[2], match[3]
        if compare == "=":
            kept &= _is_one_of(column, value)
        elif compare == "!=":
            kept &= ~_is_one_of(column, value)
        else:
            kept &= _COMPARE[compare](pd.to_numeric(column, errors="coerce"), _number(condition, value)).to_numpy()
    return kept


def _is_one_of(column: pd.Series, listed: str) -> NDArray[np.bool_]:
    """(N,) whether a value is among those that are listed with commas; 1 and 1.0 are the same number."""
    values = [value.strip() for value in listed.split(",")]
    found = column.astype(str).isin(values)
    if pd.api.types.is_numeric_dtype(column):
        found |= column.isin(pd.to_numeric(pd.Series(values), errors="coerce").dropna())
    return found.to_numpy()


def check_bin_size(option: str, seconds: float) -> None:
    """Refuse a bin width that is no number of seconds.

    Raises:
        InputError: Not above 0 s, or longer than 10 s.
    """
    if not 0 < seconds <= _LONGEST_BIN_S:
        raise InputError(
            expected=f"{option} in s, above 0 and at most {_LONGEST_BIN_S:g}",
            found=f"{seconds:g}",
            fix=f"If these are milliseconds, give {option} {seconds / 1000:g}.",
        )


def check_sampling_rate(rate: float) -> None:
    """Refuse a sampling rate that is no number of Hz.

    Raises:
        InputError: Below 500 Hz.
    """
    if not rate >= _LOWEST_RATE_HZ:
        raise InputError(
            expected=f"--sampling-rate in Hz, {_LOWEST_RATE_HZ:g} at least",
            found=f"{rate:g}",
            fix=f"If these are kHz, give --sampling-rate {1000 * rate:g}.",
        )


def values_listed(units: pd.DataFrame, conditions: tuple[str, ...]) -> str:
    """How often each value of the columns that conditions name occurs, e.g. ``"; group: mua 3, noise 2"``."""
    lines = ""
    for name in dict.fromkeys(re.split(r"[!<>=]", condition)[0].strip() for condition in conditions):
        counts = units[name].astype(str).value_counts()
        lines += f"; {name}: " + ", ".join(f"{value} {count}" for value, count in counts.head(_MOST_LISTED).items())
    return lines


def _number(condition: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(expected="a number to compare with", found=repr(condition), fix="Correct it.") from None
