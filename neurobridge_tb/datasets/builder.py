"""From arrays to a recording: the way in for your own data."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from neurobridge_tb._upstream import (
    ArrayDict,
    BrainsetDescription,
    Data,
    Interval,
    IrregularTimeSeries,
    RegularTimeSeries,
    SessionDescription,
    SubjectDescription,
)
from neurobridge_tb.datasets.columns import Table, column_values, table_columns
from neurobridge_tb.datasets.provenance import PSEUDO_POPULATION
from neurobridge_tb.datasets.spike_arrays import Spikes, spike_events
from neurobridge_tb.datasets.validation.array_checks import (
    behavior_objects,
    check_inside,
    grid,
    interval_table,
    moment,
    named,
    recording_id,
    require_input,
    split_domains,
    unit_table,
)
from neurobridge_tb.datasets.validation.clock_checks import (
    grid_faults,
    idle_faults,
    spike_time_faults,
    split_length_faults,
)
from neurobridge_tb.datasets.validation.contents import Fault
from neurobridge_tb.datasets.validation.scans import stretches
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_replaceable, write_aside

OWN_NAMES = ("brainset", "subject", "session", "units", "spikes", "domain")
_DAY_S = 86_400.0


def build_recording(
    *,
    brainset_id: str,
    session_id: str,
    subject_id: str,
    units: Table,
    spikes: Spikes | None = None,
    counts: tuple[ArrayLike, float] | None = None,
    mua: tuple[ArrayLike, float] | None = None,
    start: float | None = None,
    end: float | None = None,
    behavior: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    trials: Table | None = None,
    intervals: Mapping[str, Table] | None = None,
    splits: Mapping[str, tuple[ArrayLike, ArrayLike] | Table] | None = None,
    source: str = "arrays given to neurobridge_tb.datasets.build_recording",
    simulated: bool = False,
    pseudo_population: bool = False,
) -> Data:
    """Build a torch_brain recording from arrays, and check that they fit together.

    Args:
        brainset_id: Name of the collection, e.g. ``"my_lab_reaching"``.
        session_id: Name of this recording; also its file name, see :func:`save_recording`.
        subject_id: Name of the animal or person.
        units: Columns of length N, or a DataFrame. ``"id"`` is needed: text that names a unit in all recordings.
            ``"area"`` serves masking by region. Further columns are kept.
        spikes: Times of one unit each in s, in a list in the order of ``units`` or in a mapping by unit id; or a tuple
            ``(times, unit_index)``: sorted times, and the row of each spike's unit in ``units``. Stored as ``spikes``.
        counts: ``(array, bin_size)``: spike counts (T, N), NaN where absent, bin width in s. Stored as
            ``spike_counts.value``.
        mua: ``(array, bin_size)``: values (T, N), NaN where there is none, bin width in s. Stored as ``mua.value``.
        start: Time of the recording's start in s. Default 0; needed where the clock counts from long ago.
        end: Time of its end in s; silence after the last spike is data too. Default: the end of the last bin, or
            without bins the latest spike, behaviour or trial.
        behavior: ``"<object>_<quantity>"`` to ``(timestamps, values)``: sorted times in s, and values (n, ...).
            ``"hand_velocity"`` is stored as ``hand.velocity``. What has the name of a modality is stored where that is
            looked for: ``"wheel_velocity"`` as ``wheel.velocity``, ``"running_speed"`` as ``running.running_speed``.
            Quantities of one object share their timestamps.
        trials: Columns ``"start"`` and ``"end"`` in s, sorted, and any more; or a DataFrame.
        intervals: Further tables like ``trials`` by name, e.g. ``"presentations"``.
        splits: ``"train"``, ``"valid"``, ``"test"`` to ``(starts, ends)`` in s, or to a table with these columns:
            intervals that do not overlap, stored as ``train_domain`` and so on. Samplers draw windows inside them.
        source: Where the data come from, for the recording's description.
        simulated: The data come from a simulation, and the recording says so. Default False.
        pseudo_population: Units were recorded apart and their trials put side by side, and the recording says so.

    Returns:
        The recording; its domain is ``start`` to ``end``.

    Raises:
        InputError: Something does not fit, or times are no seconds.

    Warns:
        UserWarning: Times or counts look wrong, see :mod:`~neurobridge_tb.datasets.validation.clock_checks`.
    """
    ids = {name: recording_id(name, given) for name, given in (("session_id", session_id), ("subject_id", subject_id))}
    rows = unit_table(units)
    events = behavior_objects(named("behavior", behavior), taken=(*OWN_NAMES, "spike_counts", "mua"))
    if spikes is not None:
        events["spikes"] = spike_events(spikes, rows.id)
    given_tables = {"trials": trials, **named("intervals", intervals)}.items()
    tables = {name: table_columns(name, table, Interval) for name, table in given_tables if table is not None}
    tables = {name: columns for name, columns in tables.items() if columns}
    if start is None:
        start = 0.0
        _require_near_start({name: columns["timestamps"] for name, columns in events.items()})
        _require_near_start({name: columns["start"] for name, columns in tables.items() if "start" in columns})
    start = moment("start", start)
    series: dict[str, Any] = {}
    for name, given in (("spike_counts", counts), ("mua", mua)):
        if given is not None:
            values, width = grid(name, given, len(rows))
            series[name] = RegularTimeSeries(value=values, sampling_rate=1 / width, domain_start=start)
    require_input(
        bool(series) or spikes is not None,
        expected="spikes, counts or mua",
        found="none of them",
        fix="Give at least one kind of neural activity.",
    )
    own = {*OWN_NAMES, *events, *series, *dir(Data)}
    taken = [name for name in tables if name in own or not name.isidentifier() or name.endswith("_domain")]
    require_input(
        not taken,
        expected="tables of intervals named by one word that nothing else has",
        found=", ".join(taken),
        fix="Rename them.",
    )
    if end is None:
        ends = [s.domain.end[-1] for s in series.values()]
        ends = ends or [e["timestamps"][-1] for e in events.values() if len(e["timestamps"])]
        ends += [np.max(columns["end"]) for columns in tables.values() if "end" in columns and len(columns["end"])]
        end = float(max(ends, default=start))
    end = moment("end", end)
    require_input(
        end > start, expected=f"an end after the start, {start:g} s", found=f"{end:g} s", fix="Give end in seconds."
    )
    domain = Interval(start, end)
    for name, its in series.items():
        check_inside(f"bins of {name}", its.domain.start, its.domain.end, domain)
    for name, columns in events.items():
        times = columns["timestamps"]
        check_inside(f"timestamps of {name}", times, times, domain)
    require_input(
        end - start < 100 * _DAY_S,
        expected="a recording of less than 100 days",
        found=f"{(end - start) / _DAY_S:,.0f} days, {start:g} to {end:g} s",
        fix="Give times in seconds.",
    )
    domains = split_domains(named("splits", splits), domain)
    series |= {name: IrregularTimeSeries(**columns, domain=domain) for name, columns in events.items()}
    series |= {name: interval_table(name, columns, domain) for name, columns in tables.items()}
    _point_out(_doubts(series, len(rows), domain, domains))
    return Data(
        brainset=BrainsetDescription(
            id=recording_id("brainset_id", brainset_id),
            origin_version="simulated" if simulated else PSEUDO_POPULATION if pseudo_population else "unversioned",
            derived_version="1.0.0",
            source="a simulation" if simulated else source,
            description=" ".join(["Simulated recording" if simulated else "Recording", *ids.values()]),
        ),
        subject=SubjectDescription(id=ids["subject_id"]),
        session=SessionDescription(id=ids["session_id"]),
        units=rows,
        domain=domain,
        **series,
        **domains,
    )


def _require_near_start(times: Mapping[str, np.ndarray]) -> None:
    """Times that count from long ago, such as 1970, would make a recording of years from 0 on."""
    for name, of_series in times.items():
        require_input(
            not len(of_series) or of_series[0] < _DAY_S,
            expected=f"start=, as the first time of {name} is over a day after 0 s",
            found=f"{of_series[:1]} s and no start",
            fix="Give the recording's start on the same clock, or subtract it from all times.",
        )


def _doubts(series: Mapping[str, Any], n_units: int, domain: Interval, domains: Mapping[str, Interval]) -> list[Fault]:
    splits = {name.removesuffix("_domain"): np.stack([s.start, s.end], 1) for name, s in domains.items()}
    start = float(domain.start[0])
    seconds = float(domain.end[-1]) - start
    faults = split_length_faults(splits, seconds)
    activity = {name: its for name, its in series.items() if name in ("spikes", "spike_counts", "mua")}
    if not any(_is_active(name, its) for name, its in activity.items()):
        faults.append(Fault(", ".join(activity), "no activity of any unit", "Check what was read.", is_error=False))
    if "spikes" in series:
        times = series["spikes"].timestamps
        faults += spike_time_faults(
            all_whole=bool((times == np.floor(times)).all()),
            spikes_per_unit=np.bincount(series["spikes"].unit_index, minlength=n_units),
            before=np.searchsorted(times, start + np.arange(np.ceil(seconds))),
            seconds=seconds,
            splits=splits,
            start=start,
        )
    for name in ("spike_counts", "mua"):
        if name in series:
            its = series[name]
            idle = (np.isnan(its.value) | (its.value == 0)).all(1)
            bounds = start + stretches(idle) / its.sampling_rate
            faults += grid_faults(f"{name}/value", its.value, 1 / its.sampling_rate)
            faults += idle_faults(f"{name}/value", bounds, seconds, splits)
    return faults


def _is_active(name: str, its: Any) -> bool:
    """Whether any unit has a spike, or a value that is not always the same."""
    if name == "spikes":
        return len(its.timestamps) > 0
    return bool((np.fmax.reduce(its.value) > (0 if name == "spike_counts" else np.fmin.reduce(its.value))).any())


def _point_out(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.is_error:
            raise InputError(expected=f"{fault.place} in seconds, with activity", found=fault.found, fix=fault.fix)
        warnings.warn(f"{fault.place}: {fault.found}. {fault.fix}", stacklevel=3)


def save_recording(data: Data, path: str | Path) -> None:
    """Write a recording to ``<folder>/<session id>.h5``, aside and renamed; an existing file is replaced.

    Args:
        data: From :func:`build_recording`.
        path: Where to.

    Raises:
        InputError: The file name is not the session id, by which Datasets and models know the recording; a column
            that cannot be stored; or a file that is no recording is at ``path``.
    """
    path = Path(path)
    name = f"{data.session.id}.h5"
    require_input(
        path.name == name, expected=f"the file name {name}", found=str(path), fix=f"Save it as {path.parent / name}."
    )
    check_replaceable(path, _is_recording, "a recording")
    _spell_out_text(data)
    with write_aside(path) as aside, h5py.File(aside, "w") as file:
        data.to_hdf5(file)


def _is_recording(path: Path) -> bool:
    with h5py.File(path) as file:
        return file.attrs.get("object") == "Data"


def _spell_out_text(data: Data) -> None:
    """Text of tables that were added by hand, as bytes or objects, as torch_brain stores text."""
    for name in data.keys():
        table = getattr(data, name)
        if isinstance(table, ArrayDict) and not isinstance(table, IrregularTimeSeries | RegularTimeSeries):
            for key in table.keys():
                column = getattr(table, key)
                if isinstance(column, np.ndarray) and column.dtype.kind in "OSTM":
                    setattr(table, key, column_values(name, key, column))
