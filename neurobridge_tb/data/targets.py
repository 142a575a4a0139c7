"""What can be decoded from recordings: any column of a table of intervals, and any series."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import ArrayDict, Data, Dataset, Interval, IrregularTimeSeries, RegularTimeSeries
from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext import MODALITY_REGISTRY, DataType, ModalitySpec
from neurobridge_tb.registry_ext.modality_losses import MSELoss

_ACTIVITY = ("spikes", "spike_counts", "mua")
_MOST_CLASSES = 20  # whole numbers of more values than this are values, not classes
_FEWEST = 5  # examples of a class


@dataclass(frozen=True)
class Examples:
    """Rows of a table, each with what is to be decoded from the activity around it.

    Attributes:
        recording: (n,) recording of each row.
        time: (n,) time in s that the window of activity is relative to.
        start: (n,) start of the row in s.
        end: (n,) end of the row in s.
        label: (n,) text where these are classes, numbers where they are values.
        columns: Every other column that the tables have in common, (n,) each.
        split: (n,) ``"train"``, ``"valid"``, ``"test"``, or ``""`` for a row that lies in none as a whole.
        dropped: What was left out, and why.
    """

    recording: NDArray[np.str_]
    time: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    label: NDArray
    columns: dict[str, NDArray]
    split: NDArray[np.str_]
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    @property
    def are_classes(self) -> bool:
        return self.label.dtype.kind == "U"

    def only(self, rows: NDArray, why: str | None = None) -> "Examples":
        """Some of the rows, by index or mask."""
        per_row = ("recording", "time", "start", "end", "label", "split")
        chosen = {name: getattr(self, name)[rows] for name in per_row}
        columns = {name: values[rows] for name, values in self.columns.items()}
        n_left = len(self) - len(chosen["label"])
        dropped = (*self.dropped, f"{n_left} rows: {why}") if why and n_left else self.dropped
        return replace(self, **chosen, columns=columns, dropped=dropped)

    def where(self, condition: str) -> NDArray[np.bool_]:
        """(n,) rows of which a column has one of some values: ``"position=upper,middle"``; ``recording`` is a column.

        Raises:
            InputError: No such column, or no row with these values.
        """
        name, _, values = condition.partition("=")
        columns = {"recording": self.recording, **self.columns}
        wanted = {value.strip() for value in values.split(",")}
        texts = _texts(columns[name]) if name in columns else np.array([], dtype=str)
        missing = sorted(wanted - set(texts.tolist()))
        if missing or not values:
            known = ", ".join(sorted(set(texts.tolist()))[:20]) or f"columns {', '.join(columns)}"
            raise InputError(
                expected="COLUMN=VALUE,VALUE…, rows of the table by their values",
                found=f"{condition!r}; there are {known}",
                fix="Correct the column or its values.",
            )
        return np.isin(texts, list(wanted))


def series_spec(dataset: Dataset, target: str) -> ModalitySpec | None:
    """The series named ``target``, as a modality: one of the registry, or ``"<object>.<quantity>"`` of the recordings.

    Returns:
        None where the target is a column of a table.

    Raises:
        InputError: There is no such thing; the nearest names are listed.
    """
    spec = MODALITY_REGISTRY.get(target)
    if spec is not None and spec.type == DataType.CONTINUOUS and target not in _ACTIVITY:
        return spec
    found = [target_names(dataset.get_recording(recording)).get(target) for recording in dataset.recording_ids]
    if None in found:
        raise _unknown(dataset, target, dataset.recording_ids[found.index(None)])
    if isinstance(found[0], Interval):
        return None
    owner, _, quantity = target.partition(".")
    values = np.asarray(getattr(getattr(dataset.get_recording(dataset.recording_ids[0]), owner), quantity)[:1])
    if values.dtype.kind not in "biuf":
        raise InputError(expected=f"numbers in {target}", found=f"type {values.dtype}", fix="Choose another target.")
    return ModalitySpec(
        id=0,
        dim=int(np.prod(values.shape[1:])),
        type=DataType.CONTINUOUS,
        timestamp_key=f"{owner}.timestamps",
        value_key=target,
        loss_fn=MSELoss(),
    )


def target_names(recording: Data) -> dict[str, Any]:
    """Everything in a recording that can be decoded, by name, with the object that holds it."""
    names: dict[str, Any] = {}
    for owner in recording.keys():
        item = getattr(recording, owner)
        if owner in _ACTIVITY or owner == "domain" or owner.endswith("_domain") or not isinstance(item, ArrayDict):
            continue
        if isinstance(item, Interval | IrregularTimeSeries | RegularTimeSeries):
            names |= {f"{owner}.{key}": item for key in item.keys() if key not in ("start", "end", "timestamps")}
    return names


def full_name(dataset: Dataset, target: str) -> str:
    """The name ``TABLE.COLUMN`` of a column or series that is named alone, where only one is called so."""
    names = target_names(dataset.get_recording(dataset.recording_ids[0]))
    ending = [name for name in names if name.partition(".")[2] == target]
    return ending[0] if len(ending) == 1 else target


def _unknown(dataset: Dataset, target: str, recording_id: str) -> InputError:
    recording = dataset.get_recording(recording_id)
    kinds = {name: _kind(name, item) for name, item in target_names(recording).items()}
    ends = {name.partition(".")[2]: name for name in kinds}
    near = get_close_matches(target, kinds, 3, 0.4) + [ends[e] for e in get_close_matches(target, ends, 3, 0.5)]
    listed = dict.fromkeys([*near, *kinds])
    shown = ", ".join(f"{name} ({kinds[name]})" for name in list(listed)[:12]) or "nothing besides its activity"
    return InputError(
        expected=f"target '{target}' in recording {recording_id}",
        found=f"{shown}{', …' if len(listed) > 12 else ''}",
        fix="Name one of these columns or series.",
    )


def _kind(name: str, item: Any) -> str:
    values = np.asarray(getattr(item, name.partition(".")[2]))
    if not isinstance(item, Interval):
        return "series"
    if values.dtype.kind in "US":
        return f"{len(np.unique(values))} classes"
    return f"{len(np.unique(values))} numbers" if values.ndim == 1 else f"shape {values.shape}"


def read_examples(dataset: Dataset, target: str, *, kind: str = "auto", align: str = "start") -> Examples:
    """The rows of a column, from all recordings.

    Args:
        dataset: The recordings.
        target: ``"<table>.<column>"``.
        kind: ``"classes"``, ``"values"``, or ``"auto"``: text, truth values and few whole numbers are classes.
        align: Column of the table whose times (s) windows of activity are relative to.

    Raises:
        InputError: A column that is not there, or from which nothing can be learnt.
    """
    table_name, _, column = target.partition(".")
    parts: list[dict[str, NDArray]] = []
    for recording_id in dataset.recording_ids:
        recording = dataset.get_recording(recording_id)
        table = getattr(recording, table_name)
        rows = {key: np.asarray(getattr(table, key)) for key in table.keys()}
        if align not in rows or rows[align].dtype.kind not in "iuf":
            times = [key for key, values in rows.items() if values.dtype.kind in "iuf" and values.ndim == 1]
            raise InputError(
                expected=f"a column '{align}' of times in {table_name}", found=", ".join(times), fix="Correct align."
            )
        if rows[column].ndim != 1:
            raise InputError(
                expected=f"one value a row in {target}",
                found=f"shape {rows[column].shape}",
                fix="Choose another target.",
            )
        rows = {key: values for key, values in rows.items() if values.ndim == 1}
        rows["recording"], rows["split"] = np.full(len(table), recording_id), _splits(recording, table)
        parts.append(rows)
    common = [key for key in parts[0] if all(key in part for part in parts)]
    merged = {key: np.concatenate([part[key] for part in parts]) for key in common}
    examples = Examples(
        recording=merged["recording"],
        time=merged[align].astype(np.float64),
        start=merged["start"],
        end=merged["end"],
        label=_labels(merged[column], kind),
        columns={key: v for key, v in merged.items() if key not in ("start", "end", "recording", "split", column)},
        split=merged["split"],
    )
    return _learnable(examples, target)


def _texts(values: NDArray) -> NDArray[np.str_]:
    """Whole numbers without a point, so that 1.0 and 1 are one class; NaN, as a number or as text, is none."""
    if values.dtype.kind == "f" and (values == np.floor(values))[~np.isnan(values)].all():
        return np.array(["" if np.isnan(value) else str(int(value)) for value in values], dtype=str)
    texts = as_text(values)
    return np.where(np.char.lower(texts) == "nan", "", texts)


def _labels(values: NDArray, kind: str) -> NDArray:
    if kind == "auto":
        few = values.dtype.kind in "bUSO"
        if values.dtype.kind in "iuf":
            known = values[np.isfinite(values)]
            few = bool((known == np.floor(known)).all()) and len(np.unique(known)) <= _MOST_CLASSES
        kind = "classes" if few else "values"
    if kind not in ("classes", "values") or (kind == "values" and values.dtype.kind not in "biuf"):
        raise InputError(
            expected="kind=auto, classes or values (of numbers)",
            found=f"{kind}, of {values.dtype}",
            fix="Correct kind.",
        )
    return _texts(values) if kind == "classes" else values.astype(np.float64)


def _splits(recording: Data, table: Interval) -> NDArray[np.str_]:
    """(n,) the split in which a row lies as a whole, to a millisecond; ``""`` for none."""
    splits = np.full(len(table), "", dtype="U5")
    for name in ("train", "valid", "test"):
        if f"{name}_domain" in recording.keys():
            domain = getattr(recording, f"{name}_domain")
            at = np.searchsorted(domain.start, table.start + 1e-3, side="right") - 1
            inside = (at >= 0) & (np.asarray(table.end) <= np.asarray(domain.end)[np.maximum(at, 0)] + 1e-3)
            splits[inside] = name
    return splits


def _learnable(examples: Examples, target: str) -> Examples:
    """Rows that have a label and a time, of classes with examples enough."""
    has_label = examples.label != "" if examples.are_classes else np.isfinite(examples.label)
    examples = examples.only(has_label & np.isfinite(examples.time), "no label or no time")
    if not examples.are_classes:
        if len(np.unique(examples.label)) < 2:
            raise InputError(
                expected=f"values of {target} that differ", found="one value", fix="Choose another target."
            )
        return examples
    names, counts = np.unique(examples.label, return_counts=True)
    rare = names[counts < _FEWEST]
    if len(names) - len(rare) < 2:
        listed = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise InputError(
            expected=f"two classes of {target} with {_FEWEST} examples at least",
            found=listed[:300] or "no rows",
            fix="Choose another target, or kind=values for a quantity.",
        )
    why = f"classes with fewer than {_FEWEST} examples ({', '.join(rare)})"
    return examples.only(~np.isin(examples.label, rare), why)
