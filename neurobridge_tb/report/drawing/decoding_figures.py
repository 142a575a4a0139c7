"""Figures of decoding: confusion, time course, single areas."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.drawing.figure_style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    light_grid,
    new_figure,
    save_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE)
_MOST_NUMBERED = 12  # classes of a confusion matrix whose cells bear numbers


def decoding_figures(content: Mapping[str, Any]) -> dict[str, "Figure"]:
    """Figures of a run's ``metrics.json``, by name; those that it has data for."""
    figures: dict[str, Figure] = {}
    if content.get("confusion"):
        name, matrix = next(iter(content["confusion"].items()))
        figures["confusion"] = confusion_matrix(np.array(matrix), content["classes"], f"{content['target']}:\n{name}")
    metric = "accuracy" if content["kind"] == "classes" else "R2"
    chance = content.get("chance", 0.0)
    if content.get("time course"):
        figures["time_course"] = time_course(content["time course"], metric, chance, content["target"])
    if content.get("areas"):
        figures["areas"] = area_bars(content["areas"], metric, chance, content["target"])
    return figures


def save_decoding_figures(content: Mapping[str, Any], folder: Path) -> None:
    """Write the figures as PNG and SVG."""
    for name, figure in decoding_figures(content).items():
        save_figure(figure, folder / name)


@styled
def confusion_matrix(matrix: np.ndarray, classes: list[str], title: str) -> "Figure":
    """Share of each true class (rows) that is decoded as each class (columns)."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = 2.2 + 0.38 * min(len(classes), 20)
    figure = new_figure(size + 0.9, size)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set(xlabel="decoded", ylabel="true", title=title)
    if len(classes) <= _MOST_NUMBERED:
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 0.55 else "#1f2328"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("share of the true class")
    return figure


@styled
def time_course(course: Mapping[str, Any], metric: str, chance: float, title: str) -> "Figure":
    """Scores in each bin with 95 % intervals, and chance."""
    figure = new_figure(5.2, 3.0)
    axes = figure.add_subplot()
    for (name, points), colour in zip(course["rows"].items(), _COLOURS, strict=False):
        value, low, high = (np.array([point[key] for point in points]) for key in ("value", "low", "high"))
        axes.fill_between(course["times"], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(course["times"], value, color=colour, marker="o", markersize=3, label=name)
    axes.axhline(chance, color=MUTED, linestyle="--", linewidth=1, label="chance")
    axes.axvline(0, color=GRID, linewidth=1)
    axes.set(xlabel="time from the event (s), middle of the bin", ylabel=_ylabel(metric), title=title)
    light_grid(axes)
    axes.legend(loc="best")
    return figure


@styled
def area_bars(areas: Mapping[str, Any], metric: str, chance: float, title: str) -> "Figure":
    """Scores of each area alone with 95 % intervals, and chance."""
    rows = list(dict.fromkeys(row for its in areas.values() for row in its))
    figure = new_figure(5.2, 1.1 + 0.28 * len(areas) * len(rows))
    axes = figure.add_subplot()
    height = 0.8 / len(rows)
    for position, (name, colour) in enumerate(zip(rows, _COLOURS, strict=False)):
        scores = [its[name][metric] for its in areas.values()]
        values = np.array([score["value"] for score in scores])
        spread = np.abs(np.array([[s["low"], s["high"]] for s in scores]).T - values)
        y = np.arange(len(areas)) + (position - (len(rows) - 1) / 2) * height
        axes.barh(y, values, height * 0.92, color=colour, label=name)
        axes.errorbar(values, y, xerr=spread, fmt="none", ecolor=INK, elinewidth=1)
    axes.axvline(chance, color=MUTED, linestyle="--", linewidth=1, label="chance")
    axes.set_yticks(range(len(areas)), list(areas))
    axes.invert_yaxis()
    axes.set(xlabel=_ylabel(metric), title=title)
    light_grid(axes, "x")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _ylabel(metric: str) -> str:
    return "accuracy" if metric == "accuracy" else "R²"
