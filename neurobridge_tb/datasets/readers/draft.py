"""From what a reader has found to a recording: the steps that all kinds of files share."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import ArrayDict, Data, Interval, IrregularTimeSeries
from neurobridge_tb.datasets.builder import OWN_NAMES, build_recording
from neurobridge_tb.datasets.columns import can_hold, column_values
from neurobridge_tb.datasets.readers.choices import Choices, check_bin_size, rows_where, values_listed
from neurobridge_tb.datasets.readers.names import file_name, free_name
from neurobridge_tb.datasets.readers.notes import Notes, contents
from neurobridge_tb.datasets.splits import Bounds, block_splits, row_splits
from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

_AREAS = ("area", "area_name", "brain_area", "brain_region", "region", "brainLocationAcronyms_ccf_2017", "location")
_NOWHERE = ("unknown", "none", "nan", "n/a", "na")  # what files write where they know no area
_MANY_SPIKES = 50
_UNITS = {"milliseconds": 1e3, "sample numbers at 30,000 Hz": 3e4}
_SLACK_S = 10.0  # intervals and behaviour may reach this far beyond the last spike


@dataclass
class Draft:
    """What a reader has found.

    Attributes:
        session: Name of the recording.
        source: Where it comes from.
        units: A row a unit; an index that names it.
        notes: Gets what is taken, left and assumed.
        spikes: Gives the times in s of one row of ``units``, (n,); None: values.
        values: Values (T, N) on a grid, its step in s, and the time of the first in s.
        behavior: Name to sorted times in s and values (n, ...).
        intervals: Name to a table with ``start`` and ``end`` in s.
        subject: Name of the animal or person, where the source says it.
        are_counts: Whether ``values`` are spike counts.
        span: Start and end of the recording in s. Default: those of its activity.
        split_by: Table whose rows are dealt among the splits where the user wants blocks: blocks make no sense here.
        strata: Column of that table: rows of one value are dealt among themselves.
        pseudo_population: Whether units were recorded apart.
    """

    session: str
    source: str
    units: pd.DataFrame
    notes: Notes
    spikes: Callable[[int], NDArray] | None = None
    values: tuple[NDArray, float, float] | None = None
    behavior: dict[str, tuple[NDArray, NDArray]] = field(default_factory=dict)
    intervals: dict[str, pd.DataFrame] = field(default_factory=dict)
    subject: str | None = None
    are_counts: bool = False
    span: tuple[float, float] | None = None
    split_by: str | None = None
    strata: str | None = None
    pseudo_population: bool = False

    def recording(self, choices: Choices) -> Data:
        """Choose units, tables and series, cut the splits, and build the recording.

        Raises:
            InputError: No unit is left, a table is on another clock, or what :func:`build_recording` refuses.
        """
        session = file_name(choices.session or self.session)
        self._name_units_once()
        kept = np.flatnonzero(rows_where(self.units, choices.where))
        if len(kept) < len(self.units):
            unmet = f"{', '.join(choices.where)} does not hold"
            self.notes.leave(f"{len(self.units) - len(kept)} of {len(self.units)} units", unmet)
        trains = self._trains(kept)
        if trains is not None and not all(map(len, trains)):
            active = np.array([len(train) > 0 for train in trains])
            self.notes.leave(f"{(~active).sum()} units", "no spikes")
            kept, trains = kept[active], [train for train in trains if len(train)]
        if not len(kept):
            raise InputError(
                expected="units that have activity" + "".join(f", {condition}" for condition in choices.where),
                found=f"none of {len(self.units)} in {self.source}{values_listed(self.units, choices.where)}",
                fix="Choose other units with --where.",
            )
        for name in [n for n in (*self.behavior, *self.intervals) if n.partition(".")[0] in choices.leave]:
            self.notes.leave(name, "by choice")
        there = {name.partition(".")[0] for name in (*self.behavior, *self.intervals)}
        for name in [name for name in choices.leave if name not in there]:
            self.notes.leave(name, f"there is none; there are {', '.join(sorted(there)) or 'no tables and no series'}")
        start, end = self.span or self._span(trains)
        intervals = {name: table for name, table in self.intervals.items() if name not in choices.leave}
        tables = {name: self._rows_inside(name, table, start, end) for name, table in intervals.items()}
        series = {name: its for name, its in self.behavior.items() if name.partition(".")[0] not in choices.leave}
        behavior = {name: self._inside(name, *its, start, end) for name, its in series.items()}
        tables = self._renamed(tables, behavior)
        end = max([end, *(float(table["end"].max()) for table in tables.values() if len(table))])
        if choices.presentations:
            tables["presentations"] = _presentations(tables, choices.presentations)
        grid = None if self.values is None else (self.values[0][:, kept], self.values[1])
        counts = grid if self.are_counts else None
        if trains is not None and choices.count_in is not None:
            check_bin_size("--count-in", choices.count_in)
            counts, trains = _counted(trains, choices.count_in, start, end), None
            end = start + choices.count_in * len(counts[0])
        units = self._unit_columns(kept, session, choices.area)
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", UserWarning)
            recording = build_recording(
                brainset_id=choices.brainset,
                session_id=session,
                subject_id=file_name(choices.subject or self.subject or "unknown"),
                units=units,
                spikes=trains,
                counts=counts,
                mua=None if self.are_counts else grid,
                start=start,
                end=None if grid is not None else end,
                behavior={_place(name): its for name, its in behavior.items() if len(its[0])},
                intervals={name: table for name, table in tables.items() if len(table)},
                splits=self._splits(choices, start, end, tables),
                source=self.source,
                pseudo_population=self.pseudo_population,
            )
        self.notes.assumed += [str(doubt.message) for doubt in doubts if issubclass(doubt.category, UserWarning)]
        self.notes.taken += contents(recording)
        return recording

    def _name_units_once(self) -> None:
        """Probes that were sorted apart and put into one table may number their units alike."""
        twice = self.units.index.duplicated(keep=False)
        if twice.any():
            names = self.units.index.astype(str)
            count = pd.Series(names).groupby(names).cumcount()
            self.units = self.units.set_axis([f"{name}_{k}" for name, k in zip(names, count, strict=True)], axis=0)
            self.notes.assumed.append(f"{twice.sum()} units share their ids, and are told apart by _0, _1 …")

    def _renamed(self, tables: dict[str, pd.DataFrame], behavior: Iterable[str]) -> dict[str, pd.DataFrame]:
        """Tables by names that nothing else in a recording has."""
        taken = {*OWN_NAMES, "spike_counts", "mua", *(_place(name).partition(".")[0] for name in behavior)}
        taken |= {MODALITY_REGISTRY[n].value_key.partition(".")[0] for n in behavior if n in MODALITY_REGISTRY}
        renamed: dict[str, pd.DataFrame] = {}
        for name, table in tables.items():
            new = name if name not in taken and can_hold(Data, name) else f"{name}_table"
            if new != name:
                self.notes.assumed.append(f"the table {name} is called {new}: something else has its name")
            renamed[new] = table
        return renamed

    def _trains(self, rows: NDArray) -> list[NDArray] | None:
        """Sorted spike times in s of some units; None where the activity is values.

        Raises:
            InputError: They are whole numbers, as sample numbers and milliseconds are.
        """
        if self.spikes is None:
            return None
        trains = [np.sort(self.spikes(int(row))) for row in rows]
        unknown = sum(int(np.isnan(train).sum()) for train in trains)
        if unknown:
            self.notes.leave(f"{unknown:,} spikes", "their times are NaN")
            trains = [train[~np.isnan(train)] for train in trains]
        count, last = sum(map(len, trains)), max((train[-1] for train in trains if len(train)), default=0.0)
        if count >= _MANY_SPIKES and all((train == np.floor(train)).all() for train in trains):
            raise InputError(
                expected="spike times in s",
                found=f"whole numbers only, {count:,} up to {last:,.0f}, as sample numbers or milliseconds are",
                fix="Divide them by the sampling rate (milliseconds: by 1,000) before they are written to the file.",
            )
        return trains

    def _span(self, trains: list[NDArray] | None) -> tuple[float, float]:
        if trains is None:
            assert self.values is not None
            values, step, start = self.values
            return start, start + step * len(values)
        first, last = min(float(t[0]) for t in trains), max(float(t[-1]) for t in trains)
        start = 0.0 if 0 <= first < _SLACK_S else float(np.floor(first))
        if start:
            self.notes.assumed.append(f"the recording starts at {start:g} s, with its first spike")
        return start, last

    def _rows_inside(self, name: str, table: pd.DataFrame, start: float, end: float) -> pd.DataFrame:
        sound = (table["start"] < table["end"]).to_numpy()  # NaN is neither
        if (~sound).any():
            self.notes.leave(f"{(~sound).sum():,} of {len(table):,} rows of {name}", "no length, or times missing")
        inside = ((table["start"] >= start) & (table["end"] <= end + _SLACK_S)).to_numpy()
        self._require_one_clock(name, inside[sound], table.loc[sound, ["start", "end"]].to_numpy(), start, end)
        if (sound & ~inside).any():
            self.notes.leave(
                f"{(sound & ~inside).sum():,} of {len(table):,} rows of {name}", "outside of the recording"
            )
        kept = table[sound & inside].sort_values(["start", "end"], kind="stable")
        columns: dict[str, NDArray] = {}
        for column in kept:
            try:
                key = free_name(str(column), columns, Interval)
                columns[key] = column_values(name, str(column), kept[column])
            except InputError as error:
                self.notes.leave(f"{name}.{column}", error.found)
        return pd.DataFrame({key: list(values) if values.ndim > 1 else values for key, values in columns.items()})

    def _inside(self, name: str, times: NDArray, values: NDArray, start: float, end: float) -> tuple[NDArray, NDArray]:
        inside = (times >= start) & (times <= end)
        self._require_one_clock(name, inside, times, start, end)
        if not inside.all():
            self.notes.leave(f"{(~inside).mean():.1%} of {name}", "outside of the recording")
        return times[inside], values[inside]

    def _require_one_clock(self, name: str, inside: NDArray, times: NDArray, start: float, end: float) -> None:
        if len(inside) and inside.mean() < 0.5:
            name = name.partition(".")[0]
            scaled = {
                unit: ((times / by >= start) & (times / by <= end + _SLACK_S)).mean() for unit, by in _UNITS.items()
            }
            looks = [
                f"They look like {unit}; times are seconds. Or: t" for unit, share in scaled.items() if share > 0.9
            ]
            raise InputError(
                expected=f"{name} within the recording, {start:g} to {end:g} s",
                found=f"{times.min():g} to {times.max():g} s, {1 - inside.mean():.0%} of it outside",
                fix=f"{(looks or ['T'])[0]}hey are on another clock, or of another recording: --leave {name} goes on "
                "without.",
            )

    def _unit_columns(self, kept: NDArray, session: str, area: str | None) -> pd.DataFrame:
        table = self.units.iloc[kept]
        if area is not None and area not in table:
            raise InputError(
                expected=f"a column '{area}' of units, for their areas",
                found=", ".join(map(str, table.columns)) or "no columns",
                fix="Name one of them with --area.",
            )
        named = area or next((name for name in _AREAS if name in table), None)
        columns: dict[str, NDArray] = {"id": np.array([f"{session}/{name}" for name in table.index], dtype=str)}
        for column in table:
            try:
                key = free_name(str(column), columns, ArrayDict)
                columns[key] = column_values("units", str(column), table[column])
            except InputError as error:
                self.notes.leave(f"units.{column}", error.found)
        if named is None:
            self.notes.assumed.append("no areas: no column of units names them")
        else:
            areas = column_values("units", named, table[named]).astype(str)
            columns["area"] = np.where(np.isin(np.char.lower(areas), _NOWHERE), "", areas)
            if named != "area":
                self.notes.assumed.append(f"units.{named} names the areas")
        return pd.DataFrame({key: values for key, values in columns.items() if values.ndim == 1})

    def _splits(self, choices: Choices, start: float, end: float, tables: dict[str, pd.DataFrame]) -> Bounds:
        plan = choices.split
        if plan.by == "blocks" and self.split_by:
            plan = replace(plan, by=self.split_by)
            self.notes.assumed.append(f"rows of {self.split_by} are dealt among the splits: there is no running time")
        if plan.by == "blocks":
            rows = [table[["start", "end"]].to_numpy(dtype=float) for table in tables.values() if len(table)]
            return block_splits(start, end, plan, np.concatenate(rows) if rows else None)
        if plan.by not in tables:
            raise InputError(
                expected=f"a table '{plan.by}' whose rows are dealt among the splits",
                found=", ".join(tables) or "no table",
                fix="Name one of them with --split, or take --split blocks.",
            )
        table = tables[plan.by]
        labels = table[self.strata].astype(str).tolist() if self.strata in table else None
        return row_splits(table["start"].to_numpy(float), table["end"].to_numpy(float), plan, labels)


def _counted(trains: list[NDArray], bin_size: float, start: float, end: float) -> tuple[NDArray, float]:
    """Spike counts (bins, units) and the bin width; the last bin ends at or after ``end``."""
    edges = start + bin_size * np.arange(int(np.ceil((end - start) / bin_size - 1e-6)) + 1)
    return np.stack([np.histogram(train, edges)[0] for train in trains], axis=1).astype(np.int32), bin_size


def _place(name: str) -> str:
    """Where a series is stored: where its modality is looked for, else as ``<name>.value``."""
    if name in MODALITY_REGISTRY:
        return name
    owner, _, quantity = name.partition(".")
    owner = free_name(owner, (*OWN_NAMES, "spike_counts", "mua"), Data)
    return f"{owner}.{free_name(quantity or 'value', ('timestamps', 'domain'), IrregularTimeSeries)}"


def _presentations(tables: dict[str, pd.DataFrame], named: str) -> pd.DataFrame:
    table, _, column = named.partition(".")
    if table not in tables or column not in tables[table]:
        columns = [f"{name}.{key}" for name, its in tables.items() for key in its if key not in ("start", "end")]
        raise InputError(
            expected=f"presentations=TABLE.COLUMN, a column that names the image that was shown, not {named!r}",
            found=", ".join(columns) or "no table",
            fix="Name one of these columns with --presentations.",
        )
    shown = tables[table][["start", "end"]].copy()
    shown["image_id"] = tables[table][column].astype(str)
    shown["repeat"] = shown.groupby("image_id").cumcount()
    return shown
