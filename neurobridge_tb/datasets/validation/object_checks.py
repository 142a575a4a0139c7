"""Checks of the single objects of a recording's file: series and intervals, as torch_brain stores them.

Each check puts what it has read into ``contents`` and yields the faults that it finds.
"""

from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets.validation.clock_checks import SCANNED_BINS, grid_faults, idle_faults
from neurobridge_tb.datasets.validation.contents import SPLITS, Contents, Fault
from neurobridge_tb.datasets.validation.scans import GridScan, scan_grid, scan_times, scan_unit_index

TOLERANCE_S = 1e-6
GRIDS = ("spike_counts", "mua")
KINDS = {"units": "ArrayDict", "spikes": "IrregularTimeSeries", **dict.fromkeys(GRIDS, "RegularTimeSeries")}
KINDS |= dict.fromkeys(["domain", *(f"{split}_domain" for split in SPLITS)], "Interval")
REBUILD = "Build it again with neurobridge_tb.datasets.build_recording and save_recording."
_MOST = float(np.finfo(np.float32).max)  # models read float32
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # object: its attributes, its rows of numbers
    "ArrayDict": (("_unicode_keys",), ()),
    "Interval": (("_unicode_keys", "timekeys"), ("start", "end")),
    "IrregularTimeSeries": (
        ("_unicode_keys", "timekeys"),
        ("timestamps", "timestamp_indices_1s", "domain/start", "domain/end"),
    ),
    "RegularTimeSeries": (("sampling_rate",), ("domain/start", "domain/end")),
}


def lacking(group: h5py.Group) -> list[str]:
    """What torch_brain needs to read an object and is not there."""
    kind = str(group.attrs.get("object"))
    if kind not in _PARTS:
        return [f"a kind that torch_brain knows ({', '.join(_PARTS)})"]
    attributes, rows = _PARTS[kind]
    return [a for a in attributes if a not in group.attrs] + [r for r in rows if not _is_row_of_numbers(group.get(r))]


def _is_row_of_numbers(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 1 and item.dtype.kind in "iuf"


def _is_numeric(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf"


def kind_faults(file: h5py.File) -> Iterator[Fault]:
    """What has a name that the models look for, and is something else."""
    for name, kind in KINDS.items():
        item = file.get(name)
        if item is not None and not (isinstance(item, h5py.Group) and item.attrs.get("object") == kind):
            yield Fault(name, f"no {kind}", REBUILD)


def link_faults(group: h5py.Group, place: str = "") -> Iterator[Fault]:
    """Names that lead nowhere, or out of the file: what they lead to would be read as part of the recording."""
    for name in group:
        at, link = f"{place}{name}", group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield Fault(at, f"a link out of the file, to {link.filename}", "Copy what it leads to into the file.")
        elif group.get(name) is None:
            yield Fault(at, "a link that leads nowhere", "Remove the link, or copy what it led to into the file.")
        elif isinstance(group[name], h5py.Group):
            yield from link_faults(group[name], f"{at}/")


def irregular_faults(place: str, group: h5py.Group, contents: Contents) -> Iterator[Fault]:
    """Timestamps in order and inside the domains, with their index; spikes with units, behaviour without NaN."""
    timestamps, index = group["timestamps"], group["timestamp_indices_1s"][:]
    start = group["domain/start"][:]
    scan = scan_times(timestamps, start[0] + np.arange(len(index), dtype=np.float64) if len(start) else np.empty(0))
    columns = {k: v.shape for k, v in group.items() if k not in ("timestamps", "timestamp_indices_1s", "domain")}
    contents.events[place] = scan, columns
    if scan.unsorted_at is not None:
        found = f"not sorted, or not finite, at row {scan.unsorted_at:,}"
        yield Fault(f"{place}/timestamps", found, "Sort by time, and sort what belongs to the times the same way.")
    elif not np.array_equal(scan.before, index):
        found = "does not fit the timestamps, so that windows would hold the wrong rows"
        yield Fault(f"{place}/timestamp_indices_1s", found, f"Do not edit timestamps in the file. {REBUILD}")
    yield from column_faults(place, group, scan.count)
    own = np.append(start, group["domain/end"][:])
    yield from _covered(place, scan.first, scan.last, own, "its own domain")
    yield from _in_recording(place, scan.first, scan.last, contents)
    if place == "spikes":
        n_units, unit_index = len(contents.unit_ids), group.get("unit_index")
        if unit_index is None or unit_index.dtype.kind not in "iu":
            yield Fault("spikes/unit_index", "no whole numbers", "It names the row of units of each spike, from 0.")
            return
        contents.spikes_per_unit, wrong_at = scan_unit_index(unit_index, n_units)
        if wrong_at is not None:
            found = f"{unit_index[wrong_at]} at row {wrong_at:,}, for {n_units} units"
            yield Fault("spikes/unit_index", found, f"It counts the rows of units from 0 to {n_units - 1}.")
        return
    for key, column in group.items():
        if key in columns and column.dtype.kind == "f" and column.size:
            yield from _not_a_number(f"{place}/{key}", scan_grid(column))


def regular_faults(place: str, group: h5py.Group, contents: Contents) -> Iterator[Fault]:
    """As many rows as the domain is long; counts and MUA with a column for each unit, and values that may be there."""
    rate, n_units = group.attrs["sampling_rate"], len(contents.unit_ids)
    if not isinstance(rate, float | np.floating | np.integer):
        yield Fault(place, f"a sampling rate of {rate!r}", f"It is one number, in Hz. {REBUILD}")
        return
    rate = float(rate)
    own = np.append(group["domain/start"][:], group["domain/end"][:])
    span = float(np.ptp(own)) if len(own) else 0.0
    if len(own):
        yield from _in_recording(place, own.min(), own.max(), contents)
    if place in GRIDS and not _is_numeric(group.get("value")):
        held = group.get("value")
        found = f"values of type {held.dtype}" if isinstance(held, h5py.Dataset) else "no array 'value'"
        yield Fault(f"{place}/value", found, "Activity is an array of numbers, (bins, units).")
    elif place in GRIDS and not group["value"].size:
        yield Fault(f"{place}/value", f"no values, shape {group['value'].shape}", "Activity is (bins, units).")
    for key, value in group.items():
        if not _is_numeric(value) or not value.ndim or not value.size:
            continue
        at, is_activity = f"{place}/{key}", place in GRIDS and key == "value"
        scan = scan_grid(value)
        contents.grids[at] = value.shape, rate, scan
        if not rate > 0 or abs(span * rate - len(value)) > 0.5:
            found = f"{len(value):,} rows at {rate:g} Hz, for a domain of {span:g} s"
            yield Fault(at, found, f"The domain is as long as the rows are. {REBUILD}")
        if is_activity and value.shape[1:] != (n_units,):
            found = f"shape {value.shape}, for {n_units} units"
            yield Fault(at, found, "It is (bins, units), in the order of units: transpose it if units come first.")
        if is_activity and rate > 0 and len(scan.absent) and scan.n_nan <= value.size / 2:
            lengths = np.diff(scan.absent).ravel()
            longest = scan.absent[lengths.argmax()]
            found = f"no value of any unit in {len(lengths):,} stretches, the longest {lengths.max() / rate:g} s from "
            found += f"{(own.min() if len(own) else 0.0) + longest[0] / rate:g} s"
            yield Fault(at, found, "Windows there are left out; check that they are meant.", is_error=False)
        if scan.n_inf and is_activity:
            yield Fault(at, f"{scan.n_inf:,} infinite values", "Replace them by NaN.")
        if is_activity and max(-scan.minimum, scan.maximum) > _MOST:
            found = f"values from {scan.minimum:g} to {scan.maximum:g}, beyond float32"
            yield Fault(at, found, "Choose a larger unit of measurement.")
        if place == "spike_counts" and (scan.n_fractional or scan.minimum < 0):
            found = f"{scan.n_fractional:,} values that are no counts, least {scan.minimum:g}"
            yield Fault(at, found, "Give spikes per bin, from 0 up; values in general go into mua.")
        elif is_activity and value.ndim == 2 and rate > 0:
            yield from grid_faults(at, value[:SCANNED_BINS], 1 / rate)
        if is_activity and rate > 0 and len(own):
            yield from idle_faults(at, own.min() + scan.idle / rate, span, contents.splits)
        if not is_activity or scan.n_nan > value.size / 2:  # less is usual in activity, where NaN means absent
            yield from _not_a_number(at, scan)


def interval_faults(place: str, group: h5py.Group, contents: Contents, *, disjoint: bool) -> Iterator[Fault]:
    """Each end after its start, in the order of time, inside the domain, and with ``disjoint`` without overlap."""
    if group["start"].shape != group["end"].shape:
        yield Fault(place, "no starts and ends of equal number", "Give one end for each start.")
        return
    bounds = np.stack([group["start"][:], group["end"][:]], axis=1).astype(np.float64)
    contents.intervals[place] = bounds, [k for k in group if k not in ("start", "end")]
    yield from column_faults(place, group, len(bounds))
    if not len(bounds):
        return
    wrong = np.flatnonzero(~(bounds[:, 0] < bounds[:, 1]))
    if len(wrong):
        found = f"{len(wrong):,} without length or not finite, the first at row {wrong[0]:,}"
        yield Fault(place, found, "Each end is after its start.")
    elif (np.diff(bounds, axis=0) < 0).any():
        yield Fault(place, f"not in the order of time at row {_first(np.diff(bounds, axis=0).min(1) < 0):,}", "Sort.")
    elif disjoint and (bounds[1:, 0] < bounds[:-1, 1] - TOLERANCE_S).any():
        row = _first(bounds[1:, 0] < bounds[:-1, 1] - TOLERANCE_S)
        yield Fault(place, f"row {row:,} begins before the one before it ends", "Move the border.")
    yield from _in_recording(place, bounds[:, 0].min(), bounds[:, 1].max(), contents)


def column_faults(place: str, group: h5py.Group, length: int) -> Iterator[Fault]:
    """Every array of an object is as long as the object."""
    lengths = {k: v.shape[:1] for k, v in group.items() if isinstance(v, h5py.Dataset) and k != "timestamp_indices_1s"}
    for key, found in lengths.items():
        if found != (length,):
            wrong = f"{found[0] if found else 1:,} values, where {length:,} are due"
            yield Fault(f"{place}/{key}", wrong, "Columns of one object have one length.")
    as_text = np.asarray(group.attrs.get("_unicode_keys", []), dtype=str)
    for key in lengths:
        if group[key].dtype.kind not in "biufSO":
            yield Fault(f"{place}/{key}", f"values of type {group[key].dtype}", "Columns are numbers or text.")
        if group[key].dtype.kind in "SO" and key not in as_text:
            yield Fault(f"{place}/{key}", "text not stored as torch_brain stores it, so read as bytes", REBUILD)
        elif key in as_text and not _is_ascii(group[key]):
            yield Fault(f"{place}/{key}", "text that is not ASCII, which torch_brain cannot read", REBUILD)
        if (place == "units" and key in ("id", "area") or key == "image_id") and group[key].ndim > 1:
            yield Fault(f"{place}/{key}", f"shape {group[key].shape}", "Give one text a row.")


def _is_ascii(column: h5py.Dataset) -> bool:
    try:
        column[:].astype("U")
    except UnicodeDecodeError:
        return False
    return True


def _in_recording(place: str, first: float, last: float, contents: Contents) -> Iterator[Fault]:
    """Activity and splits lie inside the recording's domain; behaviour may go on after it, and is not read there."""
    is_error = place in ("spikes", *GRIDS) or place.endswith("_domain")
    yield from _covered(place, first, last, contents.domain, "the recording's domain", is_error)


def _covered(
    place: str, first: float, last: float, domain: NDArray[np.float64], whose: str, is_error: bool = True
) -> Iterator[Fault]:
    if not len(domain) or not first <= last:
        return
    start, end = domain.min(), domain.max()
    if first < start - TOLERANCE_S or last > end + TOLERANCE_S:
        found = f"{first:g} to {last:g} s reaches out of {whose}, {start:g} to {end:g} s"
        yield Fault(place, found, "Use one clock in seconds for everything, and let the domain cover it.", is_error)


def _not_a_number(place: str, scan: GridScan) -> Iterator[Fault]:
    if scan.n_inf and place.partition("/")[0] not in GRIDS:
        fix = "Check the device that measured them: they are read as absent."
        yield Fault(place, f"{scan.n_inf:,} infinite values", fix, is_error=False)
    if scan.n_nan:
        share = scan.n_nan / (scan.finite.sum() + scan.n_nan + scan.n_inf)
        yield Fault(place, f"{share:.1%} NaN", "Check that they are meant: NaN is read as absent.", is_error=False)


def _first(is_wrong: NDArray[np.bool_]) -> int:
    """Row of the first pair of neighbours that is wrong: the later of the two."""
    return int(np.argmax(is_wrong)) + 1
