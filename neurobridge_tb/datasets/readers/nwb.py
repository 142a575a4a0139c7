"""Neurodata Without Borders files (https://nwb-schema.readthedocs.io), on disk or streamed by address."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.datasets.readers.choices import Choices
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name, identifier
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.errors import InputError, remedy, require

_MOST_NUMBERS = 50_000_000  # of a behaviour series; more is raw data
_MOST_COLUMNS = 64
_NO_BEHAVIOR = ("ElectricalSeries", "ImageSeries", "IndexSeries", "AnnotationSeries", "PatchClampSeries")
_PREFERRED = ("DfOverF", "Deconvolved", "Fluorescence")


def read_nwb(
    source: str | Path, choices: Choices | None = None, *, values: str | None = None, notes: Notes | None = None
) -> Data:
    """A recording of an NWB file's sorted units, or of its calcium or other values.

    Areas come from a column of units, else from their electrodes' ``location`` (calcium: the imaging plane's). All
    interval tables and behaviour series are taken; what is not is said in ``notes``.

    Args:
        source: Path, or an ``https://`` address that serves ranges, such as a DANDI asset's: only what is needed is
            read.
        choices: Units, tables, names and splits.
        values: Name of the series (T, N) that is taken as values of N units. Default: none where there are sorted
            units, else the calcium traces.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: No NWB file, or one without units and values.
        MissingExtraError: The extra ``readers`` is not installed.
    """
    notes = Notes() if notes is None else notes
    with open_nwb(source) as nwb:
        objects = list(nwb.objects.values())
        name = PurePosixPath(urlparse(str(source)).path).stem
        draft = Draft(file_name(name), f"NWB file {Path(str(source)).name}", pd.DataFrame(), notes)
        draft.subject = str(nwb.subject.subject_id) if nwb.subject is not None and nwb.subject.subject_id else None
        series = [o for o in objects if is_kind(o, "TimeSeries")]
        if values is None and nwb.units is not None and "spike_times" in nwb.units.colnames:
            draft.units = unit_rows(nwb, notes)
            draft.spikes = lambda row: np.asarray(nwb.units["spike_times"][row], dtype=np.float64)
        else:
            chosen = _value_series(series, values, source)
            draft.units, draft.values = _value_units(chosen), _grid(chosen, notes)
            notes.assumed.append(f"{chosen.name} ({chosen.parent.name}) holds the units' values")
            series.remove(chosen)
        draft.intervals = _intervals([o for o in objects if is_kind(o, "TimeIntervals")], notes)
        shown = [s for s in series if is_kind(s, "IndexSeries") and len(s.data)]
        if len(shown) == 1 and "presentations" not in draft.intervals:
            draft.intervals["presentations"] = _presentations(shown[0], notes)
            series.remove(shown[0])
        draft.behavior = behavior_series(series, notes)
        return draft.recording(choices or Choices())


@contextmanager
def open_nwb(source: str | Path) -> Iterator[Any]:
    """An NWB file as pynwb reads it, its arrays on demand."""
    pynwb = require("pynwb", extra="readers")
    address = str(source).startswith(("http://", "https://"))
    if not address and not Path(source).is_file():
        raise InputError(expected="an NWB file", found=f"no file {source}", fix="Check the path.")
    try:
        stream = require("remfile", extra="readers").File(str(source)) if address else str(source)
        with h5py.File(stream, "r") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pynwb, about the file's details
            with pynwb.NWBHDF5IO(file=file, mode="r", load_namespaces=True) as reader:
                yield reader.read()
    except InputError:
        raise
    except Exception as error:  # h5py, hdmf and remfile raise a dozen kinds
        raise InputError(
            expected=f"an NWB file at {source}",
            found=f"{type(error).__name__}: {error}",
            fix=remedy(error, "Check the address, and that the file was copied as a whole."),
        ) from error


def is_kind(item: Any, kind: str) -> bool:
    """Whether an object is of a type of NWB's schema, or of one derived from it."""
    return any(base.__name__ == kind for base in type(item).__mro__)


def scalar_columns(table: Any, notes: Notes, owner: str) -> pd.DataFrame:
    """Columns with one number or text a row, without reading the others."""
    columns = {}
    for name in table.colnames:
        column = table[name]
        if type(column).__name__ == "VectorIndex" or is_kind(column, "DynamicTableRegion"):
            if name not in ("spike_times", "electrodes", "tags", "timeseries"):
                notes.leave(f"{owner}.{name}", "not one value a row")
        elif np.ndim(column.data) == 1 and len(column.data) == len(table):
            values = np.asarray(column.data[:])
            if values.dtype.kind in "biufUSO":
                columns[name] = as_text(values) if values.dtype.kind in "SO" and _textual(values) else values
        elif name != "spike_times":
            notes.leave(f"{owner}.{name}", "not one value a row")
    return pd.DataFrame(columns, index=table.id[:])


def _textual(values: NDArray) -> bool:
    return values.dtype.kind == "S" or all(isinstance(value, str | bytes) for value in values)


def unit_rows(nwb: Any, notes: Notes) -> pd.DataFrame:
    """Columns of the sorted units with one value a row, and their electrodes' ``location``."""
    table = scalar_columns(nwb.units, notes, "units")
    if nwb.electrodes is None or {"area", "area_name", "brain_region", "region", "location"} & set(table):
        return table
    places = nwb.electrodes["location"].data[:] if "location" in nwb.electrodes.colnames else None
    rows = _electrode_rows(nwb, table)
    if places is not None and rows is not None:
        table["location"] = np.where(rows < 0, "", as_text(places)[np.maximum(rows, 0)])
    return table


def _electrode_rows(nwb: Any, units: pd.DataFrame) -> NDArray[np.int64] | None:
    """(N,) row of each unit's first electrode, -1 where it has none; None where the file does not say."""
    if "electrodes" in nwb.units.colnames:
        region = nwb.units["electrodes"]
        if type(region).__name__ != "VectorIndex":
            return np.asarray(region.data[:], dtype=np.int64)
        ends, rows = np.asarray(region.data[:]), np.asarray(region.target.data[:], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]).astype(int)
        return np.array([rows[a] if a < b else -1 for a, b in zip(starts, ends, strict=True)], dtype=np.int64)
    if "peak_channel_id" in units:
        row_of = {int(electrode): row for row, electrode in enumerate(nwb.electrodes.id[:])}
        return np.array([row_of.get(int(channel), -1) for channel in units["peak_channel_id"]], dtype=np.int64)
    return None


def _value_series(series: list[Any], name: str | None, source: str | Path) -> Any:
    """The series of values that was named, or the calcium traces."""
    tabular = [s for s in series if np.ndim(s.data) == 2 and not is_kind(s, "ImageSeries")]
    if name is not None:
        found = [s for s in tabular if name in (s.name, f"{s.parent.name}/{s.name}")]
    else:
        traces = [s for s in tabular if is_kind(s, "RoiResponseSeries")]
        kinds = [[s for s in traces if kind in f"{s.parent.name}/{s.name}"] for kind in _PREFERRED]
        found = next((some for some in kinds if some), traces)
    if len(found) != 1:
        wanted = "sorted units with spike_times, or one series of calcium traces" if name is None else f"series {name}"
        raise InputError(
            expected=f"{wanted} in {source}",
            found=", ".join(f"{s.parent.name}/{s.name} {s.data.shape}" for s in tabular) or "no series of values",
            fix="Name the series that holds a column for each unit with --values.",
        )
    return found[0]


def _value_units(series: Any) -> pd.DataFrame:
    n_units = series.data.shape[1]
    if not is_kind(series, "RoiResponseSeries"):
        return pd.DataFrame(index=pd.Index(np.arange(n_units)))
    rows, plane = np.asarray(series.rois.data[:]), series.rois.table
    table = scalar_columns(plane, Notes(), "rois").iloc[rows]
    location = getattr(getattr(plane, "imaging_plane", None), "location", None)
    if location and "location" not in table:
        table = table.assign(location=str(location))
    return table


def _times(series: Any) -> NDArray[np.float64]:
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:], dtype=np.float64)
    return series.starting_time + np.arange(len(series.data)) / series.rate


def _numbers(series: Any) -> NDArray:
    data = np.asarray(series.data[:])
    factor, offset = float(series.conversion or 1.0), float(series.offset or 0.0)
    return data if factor == 1 and offset == 0 else data * factor + offset


def _grid(series: Any, notes: Notes) -> tuple[NDArray, float, float]:
    """Values (T, N) on an even grid, its step and its start in s."""
    times, data = _times(series), _numbers(series).astype(np.float32)
    if len(times) != len(data) or len(times) < 2 or not (np.diff(times) > 0).all():
        raise InputError(
            expected=f"frames of {series.name} at rising times, one each",
            found=f"{len(data)} frames, {len(times)} times" + (", not rising" if len(times) == len(data) > 1 else ""),
            fix="Name another series with --values.",
        )
    step = float(np.median(np.diff(times)))
    even = times[0] + step * np.arange(len(times))
    if np.abs(times - even).max() > step / 2:
        even = np.arange(times[0], times[-1], step)
        notes.assumed.append(f"{series.name}: uneven frames, interpolated to {1 / step:g} Hz")
        data = np.stack([np.interp(even, times, column) for column in data.T], axis=1)
    return data, step, float(times[0])


def behavior_series(series: list[Any], notes: Notes) -> dict[str, tuple[NDArray, NDArray]]:
    """Times in s and values of each series that is a behaviour, by name."""
    taken: dict[str, tuple[NDArray, NDArray]] = {}
    for its in series:
        shape, name = np.shape(its.data), identifier(its.name)
        if any(is_kind(its, kind) for kind in (*_NO_BEHAVIOR, "RoiResponseSeries", "IntervalSeries")):
            notes.leave(its.name, f"of type {type(its).__name__}")
        elif not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] > _MOST_COLUMNS):
            notes.leave(its.name, f"shape {shape}")
        elif np.prod(shape) > _MOST_NUMBERS or np.asarray(its.data[:1]).dtype.kind not in "biuf" or not shape[0]:
            notes.leave(its.name, f"raw data of shape {shape}" if shape[0] else "empty")
        else:
            times, data = _times(its), _numbers(its)
            known = np.isfinite(times)
            if len(times) != len(data) or (np.diff(times[known]) < 0).any():
                notes.leave(its.name, "timestamps that are not sorted, or not one a value")
                continue
            name = name if name not in taken else f"{identifier(its.parent.name)}_{name}"
            taken[name] = times[known], data[known]
    return taken


def _presentations(series: Any, notes: Notes) -> pd.DataFrame:
    """Which image was shown when: each until the next."""
    indices, start = np.asarray(series.data[:], dtype=np.int64), _times(series)
    images = getattr(series, "indexed_images", None)
    if images is not None:
        order = getattr(images, "order_of_images", None)
        names = [image.name for image in (order.data if order is not None else images.images.values())]
        image_id = np.array(names)[indices]
    else:
        image_id = np.array([f"{getattr(series.indexed_timeseries, 'name', 'image')}_{index}" for index in indices])
    last = start[-1] + (np.median(np.diff(start)) if len(start) > 1 else 1.0)
    notes.assumed.append(f"{series.name}: an image is shown until the next")
    table = pd.DataFrame({"start": start, "end": np.append(start[1:], last), "image_id": image_id})
    return table.assign(repeat=table.groupby("image_id").cumcount())


def _intervals(tables: list[Any], notes: Notes) -> dict[str, pd.DataFrame]:
    taken: dict[str, pd.DataFrame] = {}
    for table in tables:
        name = identifier(table.name)
        if name in taken:
            name = f"{identifier(table.parent.name)}_{name}"
        if not len(table):
            notes.leave(name, "empty")
            continue
        columns = scalar_columns(table, notes, name).rename(columns={"start": "start_", "end": "end_"})
        taken[name] = columns.rename(columns={"start_time": "start", "stop_time": "end"}).reset_index(drop=True)
    return taken
