"""ALF folders: one file an array, ``object.attribute.npy`` (https://github.com/int-brain-lab/ALF)."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.readers.choices import Choices
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name, identifier
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.datasets.readers.npy_arrays import load_array
from neurobridge_tb.errors import InputError, require
from neurobridge_tb.files import files_below, visible

_TRIAL_TIMES = (("intervals_0", "intervals_1"), ("stimOn_times", "response_times"))


def read_alf(source: str | Path, choices: Choices | None = None, *, notes: Notes | None = None) -> Data:
    """A recording of the spikes of an ALF session, with its trials and behaviour.

    All probes below the folder are taken, and all arrays beside them: objects with ``timestamps`` become behaviour
    (``wheel.position``), those with ``intervals`` tables. Columns of ``clusters`` become columns of units.

    Args:
        source: Folder that holds ``spikes.times.npy`` and ``spikes.clusters.npy``, itself or in folders of probes.
        choices: Units, tables, names and splits.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: No spikes, arrays that do not fit, or several revisions of one probe.
    """
    folder, notes = Path(source), Notes() if notes is None else notes
    units, trains = [], []
    for probe, place in _probes(folder).items():
        table, of_probe = _clusters(place, notes)
        if probe:
            table = table.assign(probe=probe)
            table.index = [f"{probe}_{number}" for number in table.index]
        units.append(table)
        trains += of_probe
    draft = Draft(
        session=file_name(folder.resolve().name),
        source=f"ALF folder {folder.name}",
        units=pd.concat(units),
        notes=notes,
        spikes=lambda row: trains[row],
    )
    for name, arrays in _objects(folder, notes).items():
        _add(draft, identifier(name), arrays)
    return draft.recording(choices or Choices())


def _probes(folder: Path) -> dict[str, Path]:
    """Folders with spikes, by the probe's name; ``""`` where the folder itself holds them."""
    files = files_below(folder) if folder.is_dir() else []
    found = sorted({path.parent for path in files if path.name.startswith("spikes.times") and path.suffix == ".npy"})
    names = [next((p for p in place.relative_to(folder).parts if p.startswith("probe")), "") for place in found]
    if not found or len(set(names)) < len(names):
        raise InputError(
            expected=f"spikes.times.npy in {folder}, once for each probe",
            found=", ".join(str(place) for place in found) or "none",
            fix="Name the folder of one sorting." if found else "Name the session's folder, or its alf folder.",
        )
    return dict(zip(names, found, strict=True))


def _array(folder: Path, name: str) -> NDArray | None:
    """``<name>.npy``, where the name may be followed by the file's id; None where there is none."""
    paths = [p for p in visible(folder, f"{name}*.npy") if re.fullmatch(rf"{re.escape(name)}(\.[\w-]+)?\.npy", p.name)]
    if len(paths) > 1:
        raise InputError(
            expected=f"one file of {name} in {folder}",
            found=", ".join(path.name for path in paths),
            fix="Keep the one that belongs to this sorting.",
        )
    return load_array(paths[0]) if paths else None


def _clusters(folder: Path, notes: Notes) -> tuple[pd.DataFrame, list[NDArray]]:
    """A row for each cluster that has spikes, and its spike times in s."""
    times, clusters = _array(folder, "spikes.times"), _array(folder, "spikes.clusters")
    if times is None or clusters is None or times.size != clusters.size or not times.size or not _whole(clusters):
        shapes = " and ".join(
            "none" if array is None else f"{array.shape} {array.dtype}" for array in (times, clusters)
        )
        raise InputError(
            expected=f"spikes.times.npy and spikes.clusters.npy, numbers from 0 up, of one length in {folder}",
            found=f"shapes {shapes}",
            fix="Take both from one probe of one recording.",
        )
    times, clusters = times.ravel(), clusters.ravel().astype(np.int64)
    order = np.argsort(clusters, kind="stable")
    numbers, firsts = np.unique(clusters[order], return_index=True)
    table = pd.DataFrame({"cluster": numbers}, index=[f"c{number:04d}" for number in numbers])
    loaded = {path.name: _loaded(path, notes) for path in visible(folder, "clusters.*.npy")}
    columns = {name: values for name, values in loaded.items() if values is not None}
    lengths = {name: len(values) for name, values in columns.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        raise InputError(
            expected=f"a row for each cluster of one sorting in all of clusters.*.npy of {folder}",
            found=", ".join(f"{name} {length}" for name, length in lengths.items()),
            fix="The files are of different revisions: take all from one.",
        )
    for name, values in columns.items():
        _column(table, name.split(".")[1], values, notes)
    acronyms = _array(folder, "channels.brainLocationAcronyms_ccf_2017")
    if acronyms is not None and "channels" in table:
        if _whole(table["channels"].to_numpy()) and table["channels"].max() < len(acronyms):
            table["area"] = acronyms[table["channels"].to_numpy(dtype=np.int64)]
        else:
            notes.leave("areas", f"clusters.channels beyond the {len(acronyms)} channels")
    for path in visible(folder, "clusters.metrics*.pqt"):
        metrics = _parquet(path)
        if "cluster_id" in metrics and not metrics["cluster_id"].duplicated().any():  # whatever the order of its rows
            metrics = metrics.set_index("cluster_id").reindex(range(int(numbers.max()) + 1))
        for name in metrics:
            _column(table, str(name), metrics[name].to_numpy(), notes)
    return table, np.split(times[order].astype(np.float64), firsts[1:])


def _whole(values: NDArray) -> bool:
    """Whether these are whole numbers from 0 up, of whatever type."""
    return values.dtype.kind in "iuf" and bool((values >= 0).all() and (values == np.floor(values)).all())


def _loaded(path: Path, notes: Notes) -> NDArray | None:
    """The array of a file; None, and said, where it would have to be unpickled or is damaged."""
    try:
        return load_array(path)
    except InputError as error:
        notes.leave(path.name, error.found)
        return None


def _column(table: pd.DataFrame, name: str, values: NDArray, notes: Notes) -> None:
    """Add a column of ``clusters``, whose rows are cluster numbers."""
    if values.ndim == 1 and len(values) > table["cluster"].max():
        table[name if name not in table else f"clusters_{name}"] = values[table["cluster"]]
    else:
        notes.leave(f"clusters.{name}", f"shape {values.shape}, for clusters up to {table['cluster'].max()}")


def _objects(folder: Path, notes: Notes) -> dict[str, dict[str, NDArray]]:
    """Arrays beside the spikes, by object and attribute: those of the folder itself and of ``alf`` in it."""
    objects: dict[str, dict[str, NDArray]] = {}
    for path in visible(folder, "*.*.npy", "alf/*.*.npy"):
        name, attribute = path.name.split(".")[:2]
        name = re.sub(r"^_[a-z]+_", "", name)  # a namespace, as in _ibl_wheel
        if name not in ("spikes", "clusters", "channels", "templates"):
            if (values := _loaded(path, notes)) is not None:
                objects.setdefault(name, {})[attribute] = values
    for path in visible(folder, "*trials.table*.pqt", "alf/*trials.table*.pqt"):
        table = _parquet(path)
        objects.setdefault("trials", {}).update({str(name): table[name].to_numpy() for name in table})
    return objects


def _parquet(path: Path) -> pd.DataFrame:
    require("pyarrow", extra="readers")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(expected=f"a table at {path}", found=str(error), fix="Copy the file again.") from error


def _add(draft: Draft, name: str, arrays: dict[str, NDArray]) -> None:
    """Add an object to the draft: a series of behaviour, or a table of intervals."""
    if "intervals" in arrays and arrays["intervals"].ndim == 2:
        bounds = arrays.pop("intervals")
        arrays |= {"intervals_0": bounds[:, 0], "intervals_1": bounds[:, 1]}
    times = next((pair for pair in _TRIAL_TIMES if set(pair) <= set(arrays)), None)
    if times:
        start, end = (np.asarray(arrays[key], dtype=np.float64).ravel() for key in times)
        columns = {key: np.ravel(values) for key, values in arrays.items() if np.size(values) == len(start)}
        for key in arrays.keys() - columns.keys():
            draft.notes.leave(f"{name}.{key}", f"shape {np.shape(arrays[key])} for {len(start)} rows")
        draft.intervals[name] = pd.DataFrame({"start": start, "end": end} | columns)
        if times[0] == "stimOn_times":
            draft.notes.assumed.append(f"{name} last from {times[0]} to {times[1]}: there are no intervals")
    elif "timestamps" in arrays:
        moments = np.asarray(arrays.pop("timestamps"), dtype=np.float64).ravel()
        for attribute, values in arrays.items():
            if len(values) == len(moments) and values.dtype.kind in "biuf":
                draft.behavior[f"{name}.{identifier(attribute)}"] = moments, values
            else:
                draft.notes.leave(f"{name}.{attribute}", f"shape {values.shape} for {len(moments)} timestamps")
    else:
        draft.notes.leave(name, f"no timestamps and no intervals among {', '.join(arrays)}")
