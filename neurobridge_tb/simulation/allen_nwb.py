"""A simulated session of Allen Visual Coding Neuropixels, as an NWB file in the published layout.

The layout is that of the public bucket's ``session_<id>.nwb`` (Brain Observatory 1.1; Siegle et al., Nature 2021), with
the tables and columns that readers of spikes use; waveforms, spike amplitudes, eye tracking and LFP are left out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.simulation.allen_session import PROBE_AREAS, Population, Schedule

BRAINSET = "allen_visual_coding_neuropixels_2019"
_SLAB = 1 << 20  # spikes written at a time
_CHANNELS, _SPACING_UM = 384, 10  # of a probe


def simulate_allen_session(
    out_dir: str | Path,
    *,
    session_id: int = 1,
    n_units: int = 300,
    seconds: float = 1800.0,
    rate: float = 4.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Simulate a session and write it where ``brainsets prepare`` looks for raw files.

    Spikes are written by slabs, so the session may be of any size. The same arguments give the same values.

    Args:
        out_dir: Workspace folder.
        session_id: Its number, default 1; another one is another animal.
        n_units: Units on six probes, default 300. About half of them pass the default quality filter.
        seconds: Length in s, at least 60; published sessions last about 9,600. Default 1,800.
        rate: Mean firing rate over units in Hz, default 4.
        seed: Seed of everything random, default 0.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        ``<out_dir>/raw/allen_visual_coding_neuropixels_2019/session_<id>/session_<id>.nwb``.

    Raises:
        InputError: Unusable settings, or a recorded file in that place.
    """
    for name, value, least in (("n_units", n_units, 1), ("seconds", seconds, 60), ("rate", rate, 1e-3)):
        if not value >= least:
            raise InputError(
                expected=f"{name.removeprefix('n_')} of at least {least:g}",
                found=f"{value}",
                fix="Correct the setting.",
            )
    path = Path(out_dir) / "raw" / BRAINSET / f"session_{session_id}" / f"session_{session_id}.nwb"
    if path.exists() and not _is_simulated(path):
        raise InputError(
            expected="no recorded session in the workspace under this number",
            found=f"a file that was not simulated: {path}",
            fix="Choose another session or workspace: simulated files never replace recorded ones.",
        )
    rng = np.random.default_rng([seed, session_id])
    schedule = Schedule.draw(seconds, rng)
    population = Population.draw(n_units, rate, rng)
    with write_aside(path) as aside, h5py.File(aside, "w") as file:
        _write_session(file, session_id, population.probe_names)
        _write_electrodes(file)
        for name, columns in schedule.tables.items():
            _table(file, f"intervals/{name}_presentations", columns, "TimeIntervals")
        _write_invalid_times(file, schedule.seconds)
        _write_running(file, schedule)
        _write_units(file, population, schedule, rng, progress)
    return path


def _is_simulated(path: Path) -> bool:
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        description = file.get("session_description")
        return isinstance(description, h5py.Dataset) and bytes(description[()]).startswith(b"SIMULATED")


def _write_session(file: h5py.File, session_id: int, probes: list[str]) -> None:
    _typed(file, "NWBFile", namespace="core", nwb_version="2.2.2")
    began = "2019-01-19T00:54:18-08:00"
    texts = {
        "identifier": str(session_id),
        "session_description": "SIMULATED by neurobridge_tb, not a recording",
        "session_start_time": began,
        "timestamps_reference_time": began,
        "general/institution": "none, simulated",
        "general/session_id": str(session_id),
        "general/stimulus": "brain_observatory_1.1",
        "general/subject/subject_id": f"simulated{session_id}",
        "general/subject/species": "Mus musculus",
        "general/subject/age": "P118D",
        "general/subject/sex": "M",
        "general/subject/genotype": "simulated",
    }
    for name, text in texts.items():
        file[name] = text
    file.create_dataset("file_create_date", data=[began], dtype=h5py.string_dtype())
    _typed(file["general/subject"], "Subject", namespace="core")
    for name in probes:
        _typed(file.create_group(f"general/devices/{name}"), "Device", namespace="core")
        group = file.create_group(f"general/extracellular_ephys/{name}")
        _typed(group, "ElectrodeGroup", namespace="core", description="simulated", location="See electrode locations")
        group["device"] = h5py.SoftLink(f"/general/devices/{name}")


def _write_electrodes(file: h5py.File) -> None:
    """Channels of all probes from the tip up; the highest are outside of the brain."""
    n_probes = len(PROBE_AREAS)
    local = np.tile(np.arange(_CHANNELS), n_probes)
    probe = np.repeat(np.arange(n_probes), _CHANNELS)
    names = np.array(list(PROBE_AREAS))
    groups = [file[f"general/extracellular_ephys/{name}"].ref for name in names[probe]]
    columns = {
        "id": channel_id(probe, local),
        "local_index": local,
        "location": [area_of(p, c) for p, c in zip(probe.tolist(), local.tolist(), strict=True)],
        "probe_id": 1000 + probe,
        "probe_vertical_position": 20 + _SPACING_UM * local,
        "probe_horizontal_position": np.where(local % 2, 43, 11),
        "valid_data": local % 191 != 190,  # the reference channels
        "group_name": names[probe],
        "group": np.array(groups, dtype=h5py.ref_dtype),
    }
    _table(file, "general/extracellular_ephys/electrodes", columns, "DynamicTable")


def channel_id(probe: NDArray[np.int64], local: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of a channel in the whole session."""
    return 850_000_000 + 1000 * probe + local


def area_of(probe: int, local: int) -> str:
    """Area of a channel: three stretches of a probe, "None" above the brain."""
    areas = (*list(PROBE_AREAS.values())[probe], "None")
    return areas[np.searchsorted([120, 220, 350], local, side="right")]


def _write_invalid_times(file: h5py.File, seconds: float) -> None:
    """One second in which a probe, and one in which the stimulus, was not right."""
    start = np.array([0.3, 0.7]) * seconds
    tags = ["EcephysProbe", "1002", "probeC", "EcephysSession", "1", "stimulus"]
    group = _table(file, "intervals/invalid_times", {"start_time": start, "stop_time": start + 1}, "TimeIntervals")
    _ragged(group, "tags", np.array(tags, dtype=object), np.array([3, 6]))
    group.attrs["colnames"] = ["start_time", "stop_time", "tags"]


def _write_running(file: h5py.File, schedule: Schedule) -> None:
    module = file.create_group("processing/running")
    _typed(module, "ProcessingModule", namespace="core", description="running speed data")
    series = module.create_group("running_speed")
    _typed(series, "TimeSeries", namespace="core", description="simulated", comments="none")
    data = series.create_dataset("data", data=schedule.running_speed)
    data.attrs.update({"unit": "cm/s", "conversion": 1.0, "resolution": -1.0})
    timestamps = series.create_dataset("timestamps", data=schedule.running_times)
    timestamps.attrs.update({"unit": "seconds", "interval": np.int32(1)})


def _write_units(
    file: h5py.File,
    population: Population,
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    n = len(population.base_rate)
    local = population.channel
    peak = channel_id(population.probe, local)
    columns = {
        "id": 950_000_000 + np.arange(n) + 10_000 * int(file["identifier"][()]),
        "cluster_id": np.arange(n),
        "local_index": np.arange(n),
        "peak_channel_id": peak,
        **population.metrics,
    }
    group = _table(file, "units", columns, "Units")
    times = group.create_dataset("spike_times", shape=(0,), maxshape=(None,), dtype=np.float64, chunks=(_SLAB // 16,))
    ends = np.zeros(n, dtype=np.int64)
    waiting: list[NDArray[np.float64]] = []
    total = written = 0
    for unit in range(n):
        spikes = schedule.spikes(population.log_rate(unit, schedule), rng)
        waiting.append(spikes)
        total += len(spikes)
        ends[unit] = total
        if total - written >= _SLAB or unit == n - 1:
            times.resize((total,))
            times[written:] = np.concatenate(waiting)
            waiting, written = [], total
        if progress is not None:
            progress("simulating units", unit + 1, n)
    _typed(times, "VectorData", description="times (s) of detected spiking events")
    _index(group, "spike_times", ends)
    firing_rate = np.diff(ends, prepend=0) / schedule.seconds
    _column(group, "firing_rate", firing_rate)
    group.attrs["colnames"] = [*(name for name in columns if name != "id"), "firing_rate", "spike_times"]


def _table(file: h5py.File, name: str, columns: Mapping[str, Any], kind: str) -> h5py.Group:
    """A DynamicTable: one dataset a column, all of one length."""
    group = file.create_group(name)
    namespace = "hdmf-common" if kind == "DynamicTable" else "core"
    _typed(group, kind, namespace=namespace, description="simulated")
    rows = {"id": np.arange(len(next(iter(columns.values()))))} | dict(columns)
    for key, values in rows.items():
        _column(group, key, values)
    group.attrs["colnames"] = [key for key in rows if key != "id"]
    return group


def _column(group: h5py.Group, name: str, values: Any) -> None:
    array = np.asarray(values)
    if array.dtype.kind == "U" or (array.dtype.kind == "O" and h5py.check_ref_dtype(array.dtype) is None):
        dataset = group.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
    else:
        dataset = group.create_dataset(name, data=array)
    if name == "id":
        _typed(dataset, "ElementIdentifiers")
    else:
        _typed(dataset, "VectorData", description="simulated")


def _ragged(group: h5py.Group, name: str, values: NDArray, ends: NDArray[np.int64]) -> None:
    _column(group, name, values)
    _index(group, name, ends)


def _index(group: h5py.Group, name: str, ends: NDArray[np.int64]) -> None:
    """Where the values of each row of a ragged column end."""
    dataset = group.create_dataset(f"{name}_index", data=ends)
    _typed(dataset, "VectorIndex", description="simulated", target=group[name].ref)


def _typed(item: h5py.Group | h5py.Dataset, kind: str, namespace: str = "hdmf-common", **attributes: Any) -> None:
    item.attrs.update(
        {"neurodata_type": kind, "namespace": namespace, "object_id": f"simulated{item.name}", **attributes}
    )
