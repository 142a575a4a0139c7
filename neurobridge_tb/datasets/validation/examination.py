"""Whether a recording's HDF5 file is what torch_brain's Datasets and the models here expect, and what is in it.

The file format is that of ``torch_brain.data.Data.to_hdf5``. Arrays are read by slabs, see
:mod:`neurobridge_tb.datasets.validation.scans`.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.datasets.validation.clock_checks import spike_time_faults, split_length_faults
from neurobridge_tb.datasets.validation.contents import Contents, Fault
from neurobridge_tb.datasets.validation.image_checks import shared_image_faults
from neurobridge_tb.datasets.validation.object_checks import (
    GRIDS,
    REBUILD,
    TOLERANCE_S,
    column_faults,
    interval_faults,
    irregular_faults,
    kind_faults,
    lacking,
    link_faults,
    regular_faults,
)
from neurobridge_tb.errors import InputError, remedy

_DESCRIPTIONS = {
    "brainset": ("id", "origin_version", "derived_version", "source", "description"),
    "subject": ("id",),
    "session": ("id",),
}
_SOUND: dict[Path, int] = {}  # when files without faults had last been changed, in ns


def find_faults(path: str | Path) -> list[Fault]:
    """Everything that is wrong with a recording's file; an empty list is a sound recording.

    Args:
        path: HDF5 file; it is only read.
    """
    return examine(path)[1]


def examine(path: str | Path) -> tuple[Contents, list[Fault]]:
    """What a recording holds, and its faults; both from one pass over the file.

    Args:
        path: HDF5 file; it is only read.
    """
    path, contents = Path(path), Contents()
    if not path.is_file():
        return contents, [Fault("file", "no such file", "Check the path.")]
    faults: list[Fault] = []
    try:
        with h5py.File(path, "r") as file:
            for fault in _faults(file, path.stem, contents):
                faults.append(fault)
            if not any(fault.is_error for fault in faults):
                Data.from_hdf5(file)
    except (
        Exception
    ) as error:  # of a damaged file h5py raises OSError, RuntimeError, KeyError and whatever comes of them
        damaged = "Copy the file again, or prepare it again: it is no HDF5 file, or a part of it is damaged or missing."
        fix = remedy(error, damaged)
        faults.append(Fault("file", f"cannot be read ({error})", fix))
    return contents, faults


def _faults(file: h5py.File, name: str, contents: Contents) -> Iterator[Fault]:
    if file.attrs.get("object") != "Data":
        what = "an NWB file" if "nwb_version" in file.attrs else "an HDF5 file of another kind"
        fix = "Convert it: `brainsets prepare` for a known dataset, build_recording for your own."
        yield Fault("file", f"{what}, not a recording", fix)
        return
    links = list(link_faults(file))
    yield from links
    if any("out of the file" in fault.found for fault in links):
        return  # nothing is read from other files
    yield from kind_faults(file)
    yield from _descriptions(file, name, contents)
    yield from _units(file, contents)
    if isinstance(file.get("domain"), h5py.Group) and not lacking(file["domain"]):
        yield from interval_faults("domain", file["domain"], contents, disjoint=True)
        contents.domain = contents.intervals.pop("domain", (contents.domain, []))[0]
    if not len(contents.domain):
        yield Fault("domain", "no time span of the recording", f"It needs an Interval 'domain'. {REBUILD}")
    for place, group in sorted(_objects(file), key=lambda its: its[1].attrs["object"] != "Interval"):  # splits first
        kind, parts = group.attrs["object"], lacking(group)
        if parts:
            yield Fault(place, f"{kind} without {', '.join(parts)}", REBUILD)
        elif kind == "IrregularTimeSeries":
            yield from irregular_faults(place, group, contents)
        elif kind == "RegularTimeSeries":
            yield from regular_faults(place, group, contents)
        elif kind == "Interval" and place != "domain":
            yield from interval_faults(place, group, contents, disjoint=place.endswith("_domain"))
    if not {"spikes", *GRIDS} & set(file):
        yield Fault("file", "no neural data", "A recording holds spikes, spike_counts or mua.")
    yield from _silent_units(file, contents)
    yield from _splits(contents)
    yield from _spike_times(contents)
    yield from shared_image_faults(file, contents)


def _objects(group: h5py.Group, place: str = "") -> Iterator[tuple[str, h5py.Group]]:
    """Each object of a recording, those inside nested Data too."""
    for name, child in group.items():
        if isinstance(child, h5py.Group):
            if child.attrs.get("object", "Data") == "Data":
                yield from _objects(child, f"{place}{name}/")
            else:
                yield f"{place}{name}", child


def _descriptions(file: h5py.File, name: str, contents: Contents) -> Iterator[Fault]:
    for owner, keys in _DESCRIPTIONS.items():
        given = dict(file[owner].attrs) if owner in file else {}
        contents.descriptions |= {f"{owner}.{k}": str(v) for k, v in given.items()}
        missing = [key for key in keys if not (isinstance(given.get(key), str) and given[key])]
        if missing:
            yield Fault(owner, f"no {', '.join(missing)}", f"Give {owner}_id to build_recording. {REBUILD}")
    session = contents.descriptions.get("session.id")
    if session and session != name:
        yield Fault("file", f"named {name}.h5, but its session is {session}", f"Rename it to {session}.h5.")


def _units(file: h5py.File, contents: Contents) -> Iterator[Fault]:
    units = file.get("units")
    if units is None or not isinstance(units.get("id"), h5py.Dataset) or not units["id"].size:
        yield Fault("units", "no units, or none that have an id", "Give units={'id': [...], 'area': [...]}.")
        return
    contents.unit_ids = ids = as_text(units["id"][:])
    repeated = _repeated(ids)
    if len(repeated):
        found = f"{len(repeated)} ids used more than once: {', '.join(repeated[:5])}"
        yield Fault("units/id", found, "Rename them, e.g. with the probe's or the session's name in front.")
    if (ids == "").any():
        yield Fault("units/id", f"{(ids == '').sum()} units without a name", "Name each unit.")
    yield from column_faults("units", units, len(ids))
    if "area" in units and len(units["area"]) == len(ids):
        contents.areas = as_text(units["area"][:])


def _silent_units(file: h5py.File, contents: Contents) -> Iterator[Fault]:
    n_units = len(contents.unit_ids)
    marked = file["units/is_dead"][:] if "units/is_dead" in file else np.zeros(n_units, dtype=bool)
    active: dict[str, NDArray[np.bool_]] = {}
    if contents.spikes_per_unit is not None:
        active["spikes"] = contents.spikes_per_unit > 0
    for at, (_, _, scan) in contents.grids.items():
        if at in ("spike_counts/value", "mua/value"):
            active[at] = scan.total > 0 if at == "spike_counts/value" else scan.varies
    for at, activity in active.items():
        if not len(activity) == len(marked) == n_units:
            continue
        silent = contents.unit_ids[~activity & ~marked]
        if len(silent):
            found = f"{len(silent)} of {n_units} units are never active: {', '.join(silent[:3])}"
            fix = "Leave them out, or mark them in a column units.is_dead, unless they are truly silent."
            yield Fault(at, found, fix, is_error=False)


def _splits(contents: Contents) -> Iterator[Fault]:
    splits = contents.splits
    for a, b in combinations(splits, 2):
        later = np.searchsorted(np.sort(splits[b][:, 0]), splits[a][:, 1] - TOLERANCE_S)
        ended = np.searchsorted(np.sort(splits[b][:, 1]), splits[a][:, 0] + TOLERANCE_S, side="right")
        shared = splits[a][later > ended]
        if len(shared):
            found = f"{len(shared):,} intervals overlap with {b}_domain, the first at {shared[0, 0]:g} s"
            yield Fault(f"{a}_domain", found, "Move the border, so that no time serves two splits.")
    if len(contents.domain):
        yield from split_length_faults(splits, float(np.ptp(contents.domain)))
    if not {"train", "valid"} <= set(splits):
        found = f"splits: {', '.join(splits) or 'none'}"
        yield Fault("train_domain", found, "Pretraining needs train and valid.", is_error=False)


def _spike_times(contents: Contents) -> Iterator[Fault]:
    if "spikes" not in contents.events or contents.spikes_per_unit is None or not len(contents.domain):
        return
    scan = contents.events["spikes"][0]
    yield from spike_time_faults(
        all_whole=scan.count > 0 and scan.n_fractional == 0,
        spikes_per_unit=contents.spikes_per_unit,
        before=scan.before,
        seconds=float(np.ptp(contents.domain)),
        splits=contents.splits,
        start=float(contents.domain.min()),
    )


def _repeated(values: NDArray[np.str_]) -> NDArray[np.str_]:
    names, times_used = np.unique(values, return_counts=True)
    return names[times_used > 1]


def refuse_faulty(paths: Iterable[Path]) -> None:
    """Refuse recordings with faults before anything heavy: what ``neurobridge validate`` calls a fault.

    A file that was found sound is not read again, unless it has changed since.

    Args:
        paths: HDF5 files.

    Raises:
        InputError: Some have faults; the first ones are named.
    """
    changed = {path: path.stat().st_mtime_ns if path.exists() else 0 for path in paths}
    unread = [path for path, when in changed.items() if when != _SOUND.get(path)]
    faulty = {path: [f for f in find_faults(path) if f.is_error] for path in unread}
    _SOUND.update({path: changed[path] for path, faults in faulty.items() if not faults})
    found = [f"{path.name}: {fault.place}: {fault.found}" for path, faults in faulty.items() for fault in faults]
    if found:
        raise InputError(
            expected="recordings without faults",
            found="; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else ""),
            fix=f"`neurobridge validate {next(p for p, faults in faulty.items() if faults)}` says what to do.",
        )
