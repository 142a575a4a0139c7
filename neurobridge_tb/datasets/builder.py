"""From arrays to a recording: the way in for your own data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from neurobridge_tb._upstream import (
    BrainsetDescription,
    Data,
    Interval,
    IrregularTimeSeries,
    RegularTimeSeries,
    SessionDescription,
    SubjectDescription,
)
from neurobridge_tb.datasets.array_checks import (
    behavior_objects,
    check_inside,
    grid_values,
    positive,
    require_input,
    sorted_times,
    split_domains,
    trial_interval,
    unit_indices,
    unit_table,
)
from neurobridge_tb.files import write_aside

_OWN_NAMES = ("brainset", "subject", "session", "units", "spikes", "trials", "domain")


def build_recording(
    *,
    brainset_id: str,
    session_id: str,
    subject_id: str,
    units: Mapping[str, ArrayLike],
    spikes: tuple[ArrayLike, ArrayLike] | None = None,
    counts: tuple[ArrayLike, float] | None = None,
    mua: tuple[ArrayLike, float] | None = None,
    start: float = 0.0,
    end: float | None = None,
    behavior: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    trials: Mapping[str, ArrayLike] | None = None,
    splits: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    simulated: bool = False,
) -> Data:
    """Build a torch_brain recording from arrays, and check that they fit together.

    Args:
        brainset_id: Name of the collection, e.g. ``"my_lab_reaching"``.
        session_id: Name of this recording; also its file name, see :func:`save_recording`.
        subject_id: Name of the animal or person.
        units: Columns of length N. ``"id"`` is needed: strings that name a unit in all recordings. ``"area"`` serves
            masking by region. Further columns are kept.
        spikes: ``(times, unit_index)``: sorted spike times in s, and the row of each spike's unit in ``units``.
            Stored as ``spikes``.
        counts: ``(array, bin_size)``: spike counts (T, N), bin width in s. Stored as ``spike_counts.value``.
        mua: ``(array, bin_size)``: values (T, N), NaN where there is none, bin width in s. Stored as ``mua.value``.
        start: Time of the recording's start in s. Default 0.
        end: Time of its end in s; silence after the last spike is data too. Default: the end of the last bin, or
            without bins the latest spike, behaviour or trial.
        behavior: ``"<object>_<quantity>"`` to ``(timestamps, values)``: sorted times in s, and values (n, ...).
            ``"hand_velocity"`` is stored as ``hand.velocity``. What has the name of a modality is stored where that is
            looked for: ``"wheel_velocity"`` as ``wheel.velocity``, ``"running_speed"`` as ``running.running_speed``.
            Quantities of one object share their timestamps.
        trials: Columns ``"start"`` and ``"end"`` in s, sorted, and any more.
        splits: ``"train"``, ``"valid"``, ``"test"`` to ``(starts, ends)`` in s: intervals that do not overlap, stored
            as ``train_domain`` and so on. Samplers draw windows inside them.
        simulated: The data come from a simulation, and the recording says so. Default False.

    Returns:
        The recording; its domain is ``start`` to ``end``.

    Raises:
        InputError: Something does not fit.
    """
    table = unit_table(units)
    grids = {"spike_counts": counts, "mua": mua}
    series: dict[str, Any] = {
        name: RegularTimeSeries(
            value=grid_values(name, given[0], len(table)),
            sampling_rate=1 / positive(f"bin_size of {name}", given[1]),
            domain_start=float(start),
        )
        for name, given in grids.items()
        if given is not None
    }
    events = behavior_objects(behavior or {}, taken=(*_OWN_NAMES, *series))
    if spikes is not None:
        times = sorted_times("times of spikes", spikes[0])
        events["spikes"] = {"timestamps": times, "unit_index": unit_indices(spikes[1], len(times), len(table))}
    require_input(
        bool(series) or spikes is not None,
        expected="spikes, counts or mua",
        found="none of them",
        fix="Give at least one kind of neural activity.",
    )
    trial_columns = {name: np.asarray(column) for name, column in (trials or {}).items()}

    if end is None:
        ends = [s.domain.end[-1] for s in series.values()]
        ends = ends or [e["timestamps"][-1] for e in events.values() if len(e["timestamps"])]
        end = max([*ends, *trial_columns.get("end", [])], default=start)
    require_input(
        end > start, expected=f"an end after the start, {start:g} s", found=f"{end:g} s", fix="Give end in seconds."
    )
    domain = Interval(float(start), float(end))
    for name, grid in series.items():
        check_inside(f"bins of {name}", grid.domain.start, grid.domain.end, domain)
    for name, columns in events.items():
        times = columns["timestamps"]
        check_inside(f"timestamps of {name}", times, times, domain)
        series[name] = IrregularTimeSeries(**columns, domain=domain)
    if trial_columns:
        series["trials"] = trial_interval(trial_columns, domain)
    return Data(
        brainset=BrainsetDescription(
            id=brainset_id,
            origin_version="simulated" if simulated else "unversioned",
            derived_version="1.0.0",
            source="a simulation" if simulated else "arrays given to neurobridge_tb.datasets.build_recording",
            description=f"{'Simulated recording' if simulated else 'Recording'} {session_id} of {subject_id}",
        ),
        subject=SubjectDescription(id=subject_id),
        session=SessionDescription(id=session_id),
        units=table,
        domain=domain,
        **series,
        **split_domains(splits or {}, domain),
    )


def save_recording(data: Data, path: str | Path) -> None:
    """Write a recording to ``<folder>/<session id>.h5``, aside and renamed; an existing file is replaced.

    Args:
        data: From :func:`build_recording`.
        path: Where to.

    Raises:
        InputError: The file name is not the session id, by which Datasets and models know the recording.
    """
    path = Path(path)
    name = f"{data.session.id}.h5"
    require_input(
        path.name == name, expected=f"the file name {name}", found=str(path), fix=f"Save it as {path.parent / name}."
    )
    with write_aside(path) as aside, h5py.File(aside, "w") as file:
        data.to_hdf5(file)
