"""Results of runs as one long table: cell, seed, the row's text columns, measure, value, and values query by query."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.plan import Plan, failures
from neurobridge_tb.experiments.recipe import TableSpec
from neurobridge_tb.report.runs import RESULTS, read_json, reading_results
from neurobridge_tb.scoring.queries import labels_text, read_queries

_SEED = re.compile(r"[_-]?seed[_-]?(\d+)")


@dataclass(frozen=True)
class Source:
    """A run that a table reads.

    Attributes:
        folder: Of the run.
        cell: Levels of the factors.
        seed: Its seed.
    """

    folder: Path
    cell: dict[str, str]
    seed: int


@dataclass(frozen=True)
class Measured:
    """A number of a run.

    Attributes:
        cell: Levels of the factors.
        labels: Text columns of the row.
        measure: Its name.
        seed: Of the run.
        value: The number.
        queries: Ids of the queries; empty where the run wrote none down.
        by_query: Their values, of which ``value`` is the mean.
    """

    cell: dict[str, str]
    labels: dict[str, str]
    measure: str
    seed: int
    value: float
    queries: tuple[str, ...] = ()
    by_query: np.ndarray = field(default_factory=lambda: np.empty(0))


def sources_of_plan(plan: Plan) -> list[Source]:
    """The runs of the step that the recipe's table is about, as far as they are done.

    Raises:
        InputError: None is.
    """
    outcomes = plan.outcomes()
    found = []
    for cell in plan.expansion.cells:
        key = cell.jobs[plan.table.step]
        ended = outcomes[key]
        if ended is not None and ended.done:
            found.append(Source(plan.jobs / key, cell.levels, cell.seed))
    if not found:
        raise InputError(
            expected=f"at least one finished run of {plan.table.step}",
            found="; ".join(failures(plan)[:3]),
            fix="Run `neurobridge experiment` again once what is wrong is corrected.",
        )
    return found


def sources_of_folders(folders: list[Path]) -> list[Source]:
    """Runs in folders: those whose names differ in ``seed0``, ``seed1``, … only are one cell."""
    found = []
    for folder in folders:
        match = _SEED.search(folder.as_posix())
        name = _SEED.sub("", folder.as_posix())
        found.append(Source(folder, {"run": name}, int(match[1]) if match else 0))
    taken = [(source.cell["run"], source.seed) for source in found]
    if twice := next((s for s, key in zip(found, taken, strict=True) if taken.count(key) > 1), None):
        raise InputError(
            expected="runs of different names, or different seeds", found=f"{twice.folder} twice", fix="Name it once."
        )
    return found


def read_measured(sources: list[Source], spec: TableSpec) -> list[Measured]:
    """The numbers that a table shows.

    Raises:
        InputError: A run without results, without such rows, or without the measures.
    """
    measured: list[Measured] = []
    for source in sources:
        with reading_results(source.folder):
            measured += _of_run(source, spec)
    return measured


def measures_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the numbers in a table's rows, differences included."""
    return list(dict.fromkeys(name for row in rows for name, its in row.items() if isinstance(its, dict)))


def result_of(folder: Path) -> dict[str, Any]:
    """Content of a run's ``metrics.json`` or ``retrieval.json``.

    Raises:
        InputError: There is neither.
    """
    for name in RESULTS:
        if (result := read_json(folder / name)) is not None:
            return result
    raise InputError(
        expected=f"a run with {' or '.join(RESULTS)}", found=f"none in {folder}", fix="Name the folder of a run."
    )


def _of_run(source: Source, spec: TableSpec) -> Iterator[Measured]:
    rows = result_of(source.folder).get(spec.rows)
    if not isinstance(rows, list) or not rows:
        raise InputError(
            expected=f"a list of rows under '{spec.rows}'",
            found=f"none in {source.folder}",
            fix="Correct table.rows of the recipe, or --rows.",
        )
    flat = [dict(_flat(row)) for row in rows]
    chosen = [row for row in flat if all(_fits(row.get(name), value) for name, value in spec.where.items())]
    if not chosen:
        texts = sorted({f"{name}={value}" for row in flat for name, value in row.items() if isinstance(value, str)})
        raise InputError(
            expected=f"rows with {', '.join(f'{n}={v}' for n, v in spec.where.items())} in {source.folder}",
            found=f"rows with {', '.join(texts)}",
            fix="Correct table.where of the recipe, or --where.",
        )
    by_query = read_queries(source.folder)
    for row in chosen:
        labels = {name: value for name, value in row.items() if isinstance(value, str) and name != "verdict"}
        numbers = {name: value for name, value in row.items() if not isinstance(value, str)}
        if not numbers:
            raise InputError(
                expected=f"numbers in the rows of {source.folder}",
                found=", ".join(f"{name}={value}" for name, value in row.items()) or "nothing",
                fix="Name another list of rows with --rows.",
            )
        for measure in spec.measures or list(numbers)[:1]:
            if measure not in numbers:
                raise InputError(
                    expected=f"a measure among {', '.join(numbers)}",
                    found=f"{measure}, for {source.folder}",
                    fix="Correct table.measures of the recipe, or --measure.",
                )
            ids, values = by_query.get((labels_text(labels), measure), ((), np.empty(0)))
            fixed = {name for name, value in spec.where.items() if not isinstance(value, list)}
            shown = {name: value for name, value in labels.items() if name not in fixed}
            yield Measured(source.cell, shown, measure, source.seed, numbers[measure], ids, values)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Texts and numbers of a row, nested ones dotted; of an estimate with its interval, the value."""
    for name, value in row.items():
        if isinstance(value, Mapping) and "value" in value:
            yield f"{prefix}{name}", float(value["value"])
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield f"{prefix}{name}", value
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def _fits(found: Any, wanted: Any) -> bool:
    return found in wanted if isinstance(wanted, list) else found == wanted
