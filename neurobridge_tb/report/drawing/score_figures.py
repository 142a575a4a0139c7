"""Figures of masked scores: the model beside its baselines, task by task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.drawing.figure_style import BLUE, GREEN, INK, MUTED, ORANGE, light_grid, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN)


@styled
def task_bars(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Bits/spike of each row with 95 % intervals; 0 is each unit's mean rate in training.

    Args:
        rows: Those of ``metrics.json`` of ``score``.
    """
    several = len({row["recording"] for row in rows}) > 1
    names = [f"{row['task']}\n{row['recording']}" if several else row["task"] for row in rows]
    decoders = list(rows[0]["scores"])
    figure = new_figure(6.2, 0.9 + 0.25 * len(rows) * len(decoders))
    axes = figure.add_subplot()
    height = 0.8 / len(decoders)
    for position, (decoder, colour) in enumerate(zip(decoders, _COLOURS, strict=False)):
        scores = [row["scores"][decoder] for row in rows]
        values = np.array([score["value"] for score in scores])
        spread = np.abs(np.array([[score["low"], score["high"]] for score in scores]).T - values)
        y = np.arange(len(rows)) + (position - (len(decoders) - 1) / 2) * height
        axes.barh(y, values, height * 0.92, color=colour, label=decoder)
        axes.errorbar(values, y, xerr=spread, fmt="none", ecolor=INK, elinewidth=1)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="bits/spike (95 % interval); 0: mean rate in training")
    light_grid(axes, "x")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
