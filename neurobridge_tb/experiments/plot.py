"""A figure of an experiment: a measure against the levels of a factor, with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.table import Row
from neurobridge_tb.report.drawing import figure_style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 4.6


def save_figure(rows: Sequence[Row], x: str, measure: str, folder: Path) -> Path:
    """Write ``<measure>.svg`` and ``.png`` to a folder; returns the SVG."""
    stem = folder / measure.replace(" ", "_").replace("/", "_")
    style.save_figure(curves(rows, x, measure), stem)
    return stem.with_name(f"{stem.name}.svg")


@style.styled
def curves(rows: Sequence[Row], x: str, measure: str) -> "Figure":
    """One curve for each combination of the other text columns; levels that are numbers, or "10 %", stand at them.

    Args:
        rows: As :func:`~neurobridge_tb.experiments.table.table_rows` gives them.
        x: Factor on the horizontal axis, e.g. the share of the data, or a time window.
        measure: Column with ``value`` and perhaps ``low`` and ``high``.

    Raises:
        InputError: There is no such factor or measure.
    """
    names = [name for name, value in rows[0].items() if isinstance(value, str) and name != "verdict"]
    measures = list(dict.fromkeys(n for row in rows for n, v in row.items() if isinstance(v, dict) and "value" in v))
    for name, known in ((x, names), (measure, measures)):
        if name not in known:
            raise InputError(expected=f"one of {', '.join(known)}", found=name, fix="Name one of these.")
    varying = [name for name in names if name != x and len({row.get(name) for row in rows}) > 1]
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if measure in row:
            curves.setdefault(", ".join(row.get(name, "") for name in varying), []).append(row)
    levels = list(dict.fromkeys(row[x] for row in rows))
    try:
        places = {level: float(level.removesuffix("%")) for level in levels}
        numeric = True
    except ValueError:
        places, numeric = {level: float(k) for k, level in enumerate(levels)}, False
    figure = style.new_figure(_WIDTH, 2.9 + 0.18 * (len(curves) // 2))
    axes = figure.add_subplot()
    logarithmic = numeric and min(places.values()) > 0 and max(places.values()) >= 10 * min(places.values())
    if logarithmic:
        axes.set_xscale("log")
        places = {level: np.log10(place) for level, place in places.items()}
    width = 0.1 * (max(places.values()) - min(places.values())) if numeric else 0.5
    spread = width / max(len(curves), 1) / (2 if numeric else 1)  # side by side, so that none hides another

    def at(place: float, k: int) -> float:
        moved = place + spread * (k - (len(curves) - 1) / 2)
        return float(10**moved) if logarithmic else moved

    for k, (name, its) in enumerate(curves.items()):
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
    axes.set_xticks([10 ** places[level] if logarithmic else places[level] for level in levels], levels)
    axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel(measure)
    style.light_grid(axes)
    if varying:
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)
    return figure
