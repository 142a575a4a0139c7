"""A table over seeds: means with intervals, differences from a reference level query by query, and what is best."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.measured import Measured
from neurobridge_tb.experiments.recipe import TableSpec
from neurobridge_tb.metrics.seed_intervals import mean_over_queries, mean_over_seeds
from neurobridge_tb.report.report_tables import markdown
from neurobridge_tb.report.terminal_table import row_cells

Row = dict[str, Any]
_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\^{}", "\\": r"\textbackslash{}"}


def table_rows(measured: Sequence[Measured], spec: TableSpec) -> list[Row]:
    """Rows as a run's ``metrics.json`` has them.

    Args:
        measured: Numbers of all runs.
        spec: What is compared: the levels of ``spec.compare``, all else being equal, with the first of them.

    Returns:
        For each cell and row of the runs: levels, text columns, ``seeds``, each measure as ``value``, ``low`` and
        ``high``, each difference from the reference level, and a ``verdict`` by the first measure: "best", "not
        apart from the best" where the paired difference has an interval around 0, else "apart from the best". An
        interval is of its comparison alone.

    Raises:
        InputError: There is no column ``spec.compare``.
    """
    groups = _groups(measured)
    columns = dict.fromkeys(name for place in groups for name, _ in place)
    if spec.compare and spec.compare not in columns:
        raise InputError(
            expected=f"a column among {', '.join(columns)}", found=spec.compare, fix="Compare one of these."
        )
    measures = list(dict.fromkeys(m.measure for m in measured))
    rows: list[Row] = []
    for place, of_measures in groups.items():
        row: Row = {**dict(place), "seeds": len(next(iter(of_measures.values())))}
        rivals = _rivals(groups, place, spec.compare)
        reference = next(iter(rivals.values()))
        for measure in measures:
            if measure in of_measures:
                row[measure] = _estimate(of_measures[measure])
        for measure in measures:
            if spec.compare and len(rivals) > 1 and of_measures is not reference and measure in of_measures:
                first = dict(next(iter(rivals)))[spec.compare]
                row[f"{measure} less {first}"] = _difference(of_measures[measure], reference[measure])
        if len(rivals) > 1:
            row["verdict"] = _verdict(of_measures, list(rivals.values()), measures[0], spec.lower_is_better)
        rows.append(row)
    return rows


Place = tuple[tuple[str, str], ...]
BySeed = dict[int, Measured]


def _groups(measured: Sequence[Measured]) -> dict[Place, dict[str, BySeed]]:
    groups: dict[Place, dict[str, BySeed]] = {}
    for found in measured:
        place = tuple({**found.cell, **found.labels}.items())
        groups.setdefault(place, {}).setdefault(found.measure, {})[found.seed] = found
    return groups


def _rivals(groups: Mapping[Place, dict[str, BySeed]], place: Place, compare: str) -> dict[Place, dict[str, BySeed]]:
    """The places that differ from this one in the compared column at most."""
    others = [(name, value) for name, value in place if name != compare]
    return {p: g for p, g in groups.items() if [(n, v) for n, v in p if n != compare] == others}


def _estimate(by_seed: BySeed) -> dict[str, float]:
    found = list(by_seed.values())
    if all(len(m.by_query) for m in found):
        return mean_over_queries([m.by_query for m in found], same=len({m.queries for m in found}) == 1)
    return mean_over_seeds([m.value for m in found])


def _difference(these: BySeed, those: BySeed) -> dict[str, float]:
    """This less that, paired by seed and, where both tell, by query."""
    seeds = [seed for seed in these if seed in those]
    if not seeds:
        return {"value": float("nan")}
    pairs = [(these[seed], those[seed]) for seed in seeds]
    if all(len(a.by_query) and a.queries == b.queries for a, b in pairs):
        same = len({a.queries for a, _ in pairs}) == 1
        found = mean_over_queries([a.by_query - b.by_query for a, b in pairs], same=same)
        return {name: round(value, 12) for name, value in found.items()}  # 0 where what is gained is lost again
    return mean_over_seeds([a.value - b.value for a, b in pairs])


def _verdict(its: dict[str, BySeed], rivals: list[dict[str, BySeed]], measure: str, lower_is_better: bool) -> str:
    def mean(of: dict[str, BySeed]) -> float:
        value = float(np.mean([m.value for m in of[measure].values()]))
        return -value if lower_is_better else value

    best = max(rivals, key=mean)
    if its is best:
        return "best"
    difference = _difference(its[measure], best[measure])
    if "low" not in difference:
        return "not the best"
    apart = difference["low"] > 0 or difference["high"] < 0
    return "apart from the best" if apart else "not apart from the best"


def to_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return markdown(*_cells(rows))


def to_latex(rows: Sequence[Row]) -> str:
    """A LaTeX table, for the package booktabs."""
    columns, cells = _cells(rows)

    def line(texts: list[str]) -> str:
        return " & ".join("".join(_ESCAPES.get(c, c) for c in text) for text in texts) + " \\\\\n"

    body = "".join(map(line, cells))
    return (
        f"\\begin{{tabular}}{{{'l' * len(columns)}}}\n\\toprule\n{line(columns)}\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def to_csv(rows: Sequence[Row]) -> str:
    """CSV with a column for each value, low and high, in full precision."""
    flat = []
    for row in rows:
        line: Row = {}
        for name, value in row.items():
            parts = value if isinstance(value, dict) else {"value": value}
            line |= {name if part == "value" else f"{name} {part}": its for part, its in parts.items()}
        flat.append(line)
    stream = io.StringIO()
    columns = list(dict.fromkeys(name for line in flat for name in line))
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    cells = [dict(row_cells(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    return columns, [[row.get(name, "") for name in columns] for row in cells]


FORMATS = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}
