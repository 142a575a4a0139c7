"""The rows of a finished job as a table in the terminal, as wide as the terminal allows."""

import json
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NUMBER = re.compile(r"-?\d+(\.\d+)?( |,|$)")


def print_rows(metrics: Path, console: Console | None = None) -> None:
    """Print the ``rows`` of a run's results (of an alignment what was forgotten) and their ``notes``, if there are any.

    No word is broken and no column left out: where they do not fit side by side, tables stand one below the other, each
    with the columns that say what a row is.

    Args:
        metrics: Path of ``metrics.json`` or ``retrieval.json``.
        console: Where to print; default: standard output.
    """
    content = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}
    console = console or Console()
    if rows := content.get("rows") or content.get("forgetting"):
        print_table(rows, console)
    for note in content.get("notes", ()):
        console.print(f"- {note}", highlight=False, markup=False)


def print_table(rows: list[dict], console: Console | None = None) -> None:
    """Print rows; see :func:`print_rows`."""
    console = console or Console()
    cells = [dict(row_cells(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    texts = {name: [name, *(row.get(name, "") for row in cells)] for name in columns}
    least = {name: max(len(word) for text in texts[name] for word in text.split()) for name in columns}
    labels = list(takewhile(lambda name: not any(map(_NUMBER.match, texts[name][1:])), columns[:-1]))
    for fitting in _tables(columns[len(labels) :], labels, least, console.width):
        spare = console.width - 1 - sum(least[name] + 3 for name in fitting)
        table = Table()
        for name in fitting:
            width = min(max(map(len, texts[name])), least[name] + spare)
            spare -= width - least[name]
            table.add_column(Text(name), width=width)
        for row in cells:
            table.add_row(*(Text(row.get(name, "")) for name in fitting))
        console.print(table)


def _tables(columns: list[str], labels: list[str], least: dict[str, int], width: int) -> Iterator[list[str]]:
    """The columns of each table: the labels and as many others as fit, one at least."""
    fitting = list(labels)
    for name in columns:
        if len(fitting) > len(labels) and sum(least[n] + 3 for n in [*fitting, name]) >= width:
            yield fitting
            fitting = list(labels)
        fitting.append(name)
    yield fitting


def row_cells(row: dict) -> Iterator[tuple[str, str]]:
    """Column names and texts; ``{"scores": {"GLM": {"value": 0.3, "low": 0.2, "high": 0.4}}}`` is column "GLM"."""
    later: list[tuple[str, str]] = []
    for name, value in row.items():
        if name == "unavailable":  # metrics without their network; the report says what each needs
            continue
        if not isinstance(value, dict):
            yield name, _text(value)
        elif {"value", "low", "high"} <= value.keys():
            yield name, f"{_text(value['value'])} ({_text(value['low'])}-{_text(value['high'])})"
            later += [(f"{name} {k}", _text(v)) for k, v in value.items() if k not in ("value", "low", "high")]
        else:
            yield from row_cells(value)
    yield from later


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) if len(value) < 4 else f"{_text(value[0])} … {_text(value[-1])}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 5e-4 or not value else f"{value:.1g}"
    return str(value)
