"""A figure of an experiment: a measure against the levels of a factor, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.measured import measures_of
from neurobridge_tb.experiments.table import Row
from neurobridge_tb.report.drawing import figure_style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 4.6
_LEVEL = 16  # letters of a level's name in a line
_NAMES = {"top1": "top-1", "top5": "top-5"}
Curve = tuple[str, list[Row]]


def save_figure(rows: Sequence[Row], x: str, measure: str, folder: Path, results: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``<measure>.svg`` and ``.png`` to a folder; returns the SVG.

    Args:
        rows: As for :func:`curves`, and so ``x`` and ``measure``.
        folder: Made where there is none.
        results: Of the runs that the rows are about: they say what chance is, its unit, and whether it is simulated.
    """
    stem = folder / measure.replace(" ", "_").replace("/", "_")
    metrics = {result.get("metric") for result in results}
    words = [_NAMES.get(measure, measure.removeprefix("scores.")), metrics.pop() if len(metrics) == 1 else None]
    words += ["simulated" if any(result.get("simulated") for result in results) else None]
    label = ", ".join(filter(None, words))
    style.save_figure(curves(rows, x, measure, label=label, chance=_chance(results, measure)), stem)
    return stem.with_name(f"{stem.name}.svg")


@style.styled
def curves(rows: Sequence[Row], x: str, measure: str, *, label: str = "", chance: float | None = None) -> "Figure":
    """One curve for each combination of the other text columns; levels that are numbers, or "10 %", stand at them.

    Curves that are the same, as a baseline that does not depend on a factor, are drawn once.

    Args:
        rows: As :func:`~neurobridge_tb.experiments.table.table_rows` gives them.
        x: Factor on the horizontal axis, e.g. the share of the data, or a time window.
        measure: Column with ``value`` and perhaps ``low`` and ``high``.
        label: Of the vertical axis. Default: the measure.
        chance: Where a line is drawn.

    Raises:
        InputError: There is no such factor or measure.
    """
    names = [name for name, value in rows[0].items() if isinstance(value, str) and name != "verdict"]
    for name, known in ((x, names), (measure, measures_of(rows))):
        if name not in known:
            raise InputError(expected=f"one of {', '.join(known)}", found=name, fix="Name one of these.")
    drawn = _distinct([row for row in rows if measure in row], x, names, measure)
    levels = list(dict.fromkeys(row[x] for row in rows))
    try:
        places = {level: float(level.removesuffix("%")) for level in levels}
        numeric = len(levels) > 1
    except ValueError:
        numeric = False
    if not numeric:
        places = {level: float(k) for k, level in enumerate(levels)}
    named = any(name for name, _ in drawn) or chance is not None
    figure = style.new_figure(_WIDTH, 2.9 + 0.18 * (len(drawn) // 2))
    axes = figure.add_subplot()
    logarithmic = numeric and min(places.values()) > 0 and max(places.values()) >= 10 * min(places.values())
    if logarithmic:
        axes.set_xscale("log")
        places = {level: np.log10(place) for level, place in places.items()}
    width = 0.1 * (max(places.values()) - min(places.values())) if numeric else 0.5
    spread = width / max(len(drawn), 1) / (2 if numeric else 1)  # side by side, so that none hides another

    def at(place: float, k: int) -> float:
        moved = place + spread * (k - (len(drawn) - 1) / 2)
        return float(10**moved) if logarithmic else moved

    for k, (name, its) in enumerate(drawn):
        values = [row[measure]["value"] for row in its]
        spans = [
            [max(0.0, sign * (row[measure]["value"] - row[measure].get(bound, row[measure]["value"]))) for row in its]
            for sign, bound in ((1, "low"), (-1, "high"))
        ]
        axes.errorbar(
            [at(places[row[x]], k) for row in its], values, yerr=spans,
            marker="o", markersize=4.5, linewidth=1.4, elinewidth=1, capsize=2,
            color=style.AREA_COLOURS[k % len(style.AREA_COLOURS)], label=name or None,
            linestyle=("-" if k < len(style.AREA_COLOURS) else "--") if numeric else "none",
        )  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color=style.MUTED, linestyle="--", linewidth=1, label="chance")
    ticks = [10 ** places[level] if logarithmic else places[level] for level in levels]
    axes.set_xticks(ticks, [fill(level, _LEVEL) for level in levels])
    axes.minorticks_off()
    if not numeric:
        axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_xlabel(x)
    intervals = any("low" in row[measure] for _, its in drawn for row in its)
    axes.set_ylabel(f"{label or measure}{' (95 % interval)' if intervals else ''}")
    style.light_grid(axes)
    if named:
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)
    return figure


def _distinct(rows: Sequence[Row], x: str, columns: Sequence[str], measure: str) -> list[Curve]:
    """Curves by the columns other than x; those that are equal become one, named by what they have in common."""
    names = [name for name in columns if name != x]
    by_place: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_place.setdefault(tuple(row.get(name, "") for name in names), []).append(row)
    varying = [k for k in range(len(names)) if len({place[k] for place in by_place}) > 1]
    alike: dict[str, list[tuple[str, ...]]] = {}
    for place, its in by_place.items():
        alike.setdefault(repr([(row[x], row[measure]) for row in its]), []).append(place)
    return [
        (", ".join(places[0][k] for k in varying if len({place[k] for place in places}) == 1), by_place[places[0]])
        for places in alike.values()
    ]


def _chance(results: Sequence[Mapping[str, Any]], measure: str) -> float | None:
    """Chance, where all runs tell the same one for this measure."""
    told = [result.get("chance") for result in results]
    found = {its.get(measure) if isinstance(its, Mapping) else its if measure == "accuracy" else None for its in told}
    return found.pop() if len(found) == 1 else None
