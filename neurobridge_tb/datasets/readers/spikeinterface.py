"""Sortings of SpikeInterface (https://spikeinterface.readthedocs.io), and of what it reads by itself or through neo."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets.readers.choices import Choices
from neurobridge_tb.datasets.readers.draft import Draft
from neurobridge_tb.datasets.readers.names import file_name
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.datasets.readers.npy_arrays import load_array
from neurobridge_tb.errors import InputError, require


def read_spikeinterface(
    source: Any, choices: Choices | None = None, *, file_format: str | None = None, notes: Notes | None = None
) -> Data:
    """A recording of a sorting's units.

    Properties of units become their columns, and so do an analyzer's quality metrics. Folders are read without
    SpikeInterface, which would unpickle some of their files; properties that need that are left out.

    Args:
        source: A sorting object; or a folder made by ``sorting.save(folder=…)`` or by a SortingAnalyzer; or with
            ``file_format``, whatever that format's files are.
        choices: Units, names and splits.
        file_format: A format that ``spikeinterface.extractors`` reads, by the name of its function without ``read_``,
            e.g. ``"blackrock_sorting"`` or ``"spykingcircus"``.
        notes: Gets what was taken, left and assumed.

    Raises:
        InputError: Not a sorting, or one of several segments, whose clocks have nothing in common.
    """
    notes = Notes() if notes is None else notes
    if file_format is not None:
        draft = _of_object(_extract(source, file_format), Path(source).stem, notes)
    elif hasattr(source, "get_unit_spike_train"):
        draft = _of_object(source, "sorting", notes)
    else:
        draft = _of_folder(Path(source), notes)
    return draft.recording(choices or Choices())


def _extract(source: Any, file_format: str) -> Any:
    extractors = require("spikeinterface.extractors", extra="readers")
    read = getattr(extractors, f"read_{file_format}", None)
    if read is None or file_format in ("phy", "kilosort"):  # reading Phy's folders that way runs their params.py
        formats = sorted(name.removeprefix("read_") for name in dir(extractors) if name.startswith("read_"))
        raise InputError(
            expected="a format that spikeinterface.extractors reads" + ("" if read is None else "; Phy has its own"),
            found=repr(file_format),
            fix="Use `neurobridge import phy`." if read else f"Formats: {', '.join(formats)}.",
        )
    try:
        sorting = read(source)
    except Exception as error:  # any of the extractors' own kinds
        raise InputError(
            expected=f"a sorting that read_{file_format} of spikeinterface can open at {source}",
            found=f"{type(error).__name__}: {error}",
            fix="Check the path and the format.",
        ) from error
    if not hasattr(sorting, "get_unit_spike_train"):
        raise InputError(expected="a format of sortings", found=f"{file_format}, of recordings", fix="Sort it first.")
    return sorting


def _of_object(sorting: Any, name: str, notes: Notes) -> Draft:
    _require_one_segment(sorting.get_num_segments())
    units = pd.DataFrame(index=pd.Index([str(unit) for unit in sorting.unit_ids]))
    for key in sorting.get_property_keys():
        _add(units, key, np.asarray(sorting.get_property(key)), notes)
    notes.taken.append(f"sampling rate {sorting.sampling_frequency:g} Hz")

    def train(row: int) -> NDArray:
        return np.asarray(sorting.get_unit_spike_train(sorting.unit_ids[row], return_times=True), dtype=np.float64)

    return Draft(file_name(name), f"SpikeInterface {type(sorting).__name__}", units, notes, train)


def _of_folder(source: Path, notes: Notes) -> Draft:
    folder = source / "sorting" if (source / "sorting").is_dir() else source
    try:
        info = json.loads((folder / "numpysorting_info.json").read_text(encoding="utf-8"))
        ids, rate, segments = info["unit_ids"], float(info["sampling_frequency"]), int(info["num_segments"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            expected=f"a folder made by sorting.save(folder=…) or a SortingAnalyzer's binary folder at {source}",
            found=str(error),
            fix="Save the sorting so, or name its format with --format.",
        ) from error
    _require_one_segment(segments)
    spikes = load_array(folder / "spikes.npy")
    units = pd.DataFrame(index=pd.Index([str(unit) for unit in ids]))
    for path in sorted((folder / "properties").glob("*.npy")):
        try:
            _add(units, path.stem, load_array(path), notes)
        except InputError:
            notes.leave(f"units.{path.stem}", "it would have to be unpickled")
    metrics = source / "extensions" / "quality_metrics" / "metrics.csv"
    if metrics.exists():
        table = pd.read_csv(metrics, index_col=0)
        table.index = table.index.astype(str)
        units = units.join(table[[name for name in table if name not in units]])
    notes.taken.append(f"sampling rate {rate:g} Hz")
    order = np.argsort(spikes["unit_index"], kind="stable")
    ends = np.searchsorted(spikes["unit_index"][order], np.arange(len(ids) + 1))

    def train(row: int) -> NDArray:
        return spikes["sample_index"][order[ends[row] : ends[row + 1]]] / rate

    return Draft(file_name(source.resolve().name), f"SpikeInterface folder {source.name}", units, notes, train)


def _add(units: pd.DataFrame, key: str, values: NDArray, notes: Notes) -> None:
    if values.shape == (len(units),):
        units[key] = values
    else:
        notes.leave(f"units.{key}", f"shape {values.shape}")


def _require_one_segment(n_segments: int) -> None:
    if n_segments != 1:
        raise InputError(
            expected="a sorting of one segment",
            found=f"{n_segments} segments",
            fix="Import each as a session of its own: sorting.select_segments([0]).save(folder=…).",
        )
