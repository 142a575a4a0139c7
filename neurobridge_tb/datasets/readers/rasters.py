"""Rasters around an event, one file a unit: ``raster_data`` (trials, times), ``raster_labels``, ``raster_site_info``.

Format: Meyers, *The Neural Decoding Toolbox*, Frontiers in Neuroinformatics 2013. Units may have been recorded one
after the other. Their trials of one condition are then put side by side, in the order of each file: a
pseudo-population, whose trials have no noise in common, and the recording says so.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name, identifier
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.errors import InputError


def is_raster(content: dict[str, Any]) -> bool:
    return isinstance(content.get("raster_data"), np.ndarray) and isinstance(content.get("raster_labels"), dict)


def raster_draft(source: Path, contents: dict[Path, dict[str, Any]], notes: Notes, *, step: float) -> Draft:
    """Trials laid end to end, each as long as a raster.

    Args:
        source: Where the files are.
        contents: Variables of each file; a file is a unit.
        notes: Gets what was taken, left and assumed.
        step: Length of a raster's column in s.

    Raises:
        InputError: Rasters that differ in length or labels, or hold no counts.
    """
    labels = {
        path: {identifier(k): np.ravel(v).astype(str) for k, v in c["raster_labels"].items()}
        for path, c in contents.items()
    }
    rasters = {path: np.atleast_2d(content["raster_data"]) for path, content in contents.items()}
    first = next(iter(contents))
    names, n_times = list(labels[first]), rasters[first].shape[1]
    for path, raster in rasters.items():
        lengths = {len(column) for column in labels[path].values()}
        if list(labels[path]) != names or lengths != {len(raster)} or raster.shape[1:] != (n_times,):
            raise InputError(
                expected=f"rasters (trials, {n_times}), each trial with labels {', '.join(names)}, as in {first.name}",
                found=f"{raster.shape}, "
                + ", ".join(f"{len(column)} labels {name}" for name, column in labels[path].items())
                + f" in {path.name}",
                fix="Import the files of one experiment.",
            )
        if not ((raster >= 0) & (raster == np.floor(raster))).all():
            raise InputError(
                expected=f"spike counts in raster_data of {path.name}, whole numbers from 0 up",
                found=f"{raster.min():g} to {raster.max():g}",
                fix="Give spikes in each column, neither rates nor NaN; leave trials out that were not recorded.",
            )
    conditions: list[tuple[str, ...]] = sorted(
        {condition for its in labels.values() for condition in zip(*its.values(), strict=True)}
    )
    trials_of: dict[Path, dict[tuple[str, ...], NDArray]] = {}
    for path in contents:
        rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for row, condition in enumerate(zip(*labels[path].values(), strict=True)):
            rows[condition].append(row)
        trials_of[path] = {condition: np.array(rows[condition], dtype=int) for condition in conditions}
    repeats = {c: min(len(trials_of[path][c]) for path in contents) for c in conditions}
    most = {c: max(len(trials_of[path][c]) for path in contents) for c in conditions}
    for condition in conditions:
        if repeats[condition] < most[condition]:
            why = f"a unit has {repeats[condition]} of {most[condition]} trials"
            notes.leave(f"last trials of {'/'.join(condition)}", why)
    laid = [(c, repeat) for repeat in range(max(most.values())) for c in conditions if repeat < repeats[c]]
    if not laid:
        raise InputError(
            expected="trials of one condition in every file", found="none", fix="Import the files of one experiment."
        )
    trains = []
    for path in contents:
        order = np.array([trials_of[path][condition][repeat] for condition, repeat in laid])
        raster = rasters[path][order].astype(np.int64)
        trains.append(step * (np.repeat(np.arange(raster.size), raster.ravel()) + 0.5))
    apart = len({tuple(its.values())[0].tobytes() for its in labels.values()}) > 1
    draft = Draft(
        session=file_name(source.resolve().stem),
        source=f"rasters of {len(contents)} units" + (", a pseudo-population" if apart else ""),
        units=pd.DataFrame([_site(content, path) for path, content in contents.items()]).set_index("file"),
        notes=notes,
        spikes=trains.__getitem__,
        span=(0.0, step * n_times * len(laid)),
        split_by="trials",
    )
    onset = _alignment(contents[first], step)
    start = step * n_times * np.arange(len(laid))
    table = pd.DataFrame([condition for condition, _ in laid], columns=names)
    draft.strata = "condition"
    draft.intervals["trials"] = table.assign(
        start=start,
        end=start + step * n_times,
        onset=start + onset,
        repeat=[repeat for _, repeat in laid],
        condition=["/".join(condition) for condition, _ in laid],
    )
    notes.assumed.append(
        f"a column of raster_data is {1000 * step:g} ms; the event is {onset:g} s after a trial's start"
    )
    if apart:
        draft.pseudo_population = True
        notes.assumed.append(
            "units were recorded apart: trials of one condition stand side by side, a pseudo-population"
        )
    return draft


def _site(content: dict[str, Any], path: Path) -> dict[str, Any]:
    info = content.get("raster_site_info")
    scalars = {k: v for k, v in info.items() if np.ndim(v) == 0} if isinstance(info, dict) else {}
    return {"file": path.stem} | {identifier(k): v for k, v in scalars.items() if k != "alignment_event_time"}


def _alignment(content: dict[str, Any], step: float) -> float:
    """Time in s from the start of a raster to the event; the file counts columns from 1."""
    info = content.get("raster_site_info")
    column = info.get("alignment_event_time") if isinstance(info, dict) else None
    return 0.0 if column is None else step * (float(np.ravel(column)[0]) - 1)
