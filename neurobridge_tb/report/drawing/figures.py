"""Figures of numbers: training curves and retrieval bars. Each function returns a matplotlib Figure."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.drawing import figure_style as style
from neurobridge_tb.report.result_names import is_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]


def read_curves(path: str | Path) -> dict[str, Curve]:
    """Loss curves from a Lightning ``metrics.csv``.

    Args:
        path: CSV with the columns ``step`` and one a logged value; cells may be empty.

    Returns:
        For each column ``train/…`` or ``val/…``, steps and values, without empty cells.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "step" not in columns:
            raise InputError(
                expected="a metrics.csv with the column 'step'",
                found=f"columns {list(columns)} in {path}",
                fix="Point at the metrics.csv of a training run.",
            )
        rows = list(reader)
    curves = {}
    for column in columns:
        filled = [row for row in rows if row[column]] if column.startswith(("train/", "val/")) else []
        if filled:
            steps = np.array([float(row["step"]) for row in filled])
            curves[column] = (steps, np.array([float(row[column]) for row in filled]))
    return curves


@style.styled
def training_curves(curves: Mapping[str, Curve]) -> "Figure":
    """Training and validation curves, one panel for the total loss and one for each masking scheme or part of the loss.

    Args:
        curves: From :func:`read_curves`: ``train/loss``, ``val/loss``, ``val/loss/<scheme>``, ``val/top5`` and so on. A
            panel whose values are positive and span a factor of ten is logarithmic.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for column, curve in curves.items():
        split, _, rest = column.partition("/")
        panels.setdefault(rest.removeprefix("loss").strip("/") or "total loss", {})[split] = curve
    if not panels:
        raise InputError(
            expected="at least one loss curve",
            found="none",
            fix="Train for at least one epoch.",
        )
    panels = dict(sorted(panels.items(), key=lambda panel: panel[0] != "total loss"))
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = style.new_figure({1: 4.6, 2: 7.2, 3: 8.4}[columns], 2.35 * rows)
    for index, (name, splits) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for split, (steps, values) in splits.items():
            _curve(axes, split, steps, values, best=np.argmax if name.startswith("top") else np.argmin)
        together = np.concatenate([values for _, values in splits.values()])
        if together.min() > 0 and together.max() > 10 * together.min():
            axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("step")
        style.light_grid(axes)
        if index == 0:
            axes.legend(loc="best", handlelength=1.2)
    return figure


def _curve(
    axes: "Axes", split: str, steps: np.ndarray, values: np.ndarray, best: Callable[[np.ndarray], np.intp]
) -> None:
    name, colour = {"train": ("training", style.MUTED), "val": ("validation", style.BLUE)}[split]
    if len(values) > 150:  # a value a step: the running mean carries the eye
        axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)
        width = len(values) // 40
        values = np.convolve(values, np.ones(width) / width, mode="valid")
        steps = steps[width // 2 :][: len(values)]
    axes.plot(steps, values, color=colour, linewidth=1.6, label=name)
    if split == "val":
        place = best(values)
        early = steps[place] < (steps[0] + steps[-1]) / 2  # the label stands on the side where there is room
        axes.plot(steps[place], values[place], "o", color=colour, markersize=4)
        axes.annotate(
            f"{values[place]:.3g}",
            (steps[place], values[place]),
            xytext=(5 if early else 3, 6),
            textcoords="offset points",
            ha="left" if early else "right",
            fontsize=8.5,
            color=colour,
        )
        axes.margins(y=0.15)


@style.styled
def retrieval_bars(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> "Figure":
    """Top-1 and top-5 of each model with 95 % intervals and chance, models in colour and baselines in grey.

    Args:
        rows: Rows of retrieval.json, all of one direction and kind of trials.
        chance: Chance of "top1" and "top5", as fractions.
    """
    figure = style.new_figure(4.6, 0.62 * len(rows) + 0.95)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        baseline = is_baseline(row["model"])
        dark, light = ("#828a94", "#b9bfc7") if baseline else (style.BLUE, style.SKY)
        for measure, colour, offset in (("top5", light, 0.2), ("top1", dark, -0.2)):
            score = {bound: 100 * value for bound, value in row[measure].items()}
            value, y = score["value"], place + offset
            axes.barh(y, value, height=0.36, color=colour)
            interval = [[max(value - score["low"], 0)], [max(score["high"] - value, 0)]]
            axes.errorbar(value, y, xerr=interval, color=style.INK, elinewidth=1, capsize=2, linestyle="none")
            axes.annotate(
                f"{value:.0f}",
                (max(score["high"], value), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=style.INK,
            )
    for measure, line in (("top1", ":"), ("top5", "--")):
        axes.axvline(100 * chance[measure], color=style.VERMILION, linewidth=1, linestyle=line)
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows], color=style.INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("images found (%)")
    style.light_grid(axes, "x")
    figure.legend(handles=_retrieval_legend(), loc="outside upper left", ncols=4, handlelength=1.2, columnspacing=1.0)
    return figure


def _retrieval_legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=style.SKY, label="top-5"),
        Patch(color=style.BLUE, label="top-1"),
        Line2D([], [], color=style.VERMILION, linewidth=1, linestyle="--", label="chance, top-5"),
        Line2D([], [], color=style.VERMILION, linewidth=1, linestyle=":", label="chance, top-1"),
    ]
