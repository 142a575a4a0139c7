"""Retrieval by target layer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neurobridge_tb.report.drawing import figure_style as style
from neurobridge_tb.report.result_names import is_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRIALS, _DIRECTION = "repeat average", "neural to image"
_COLOURS = {"ridge": "#828a94", "MLP": "#b08968"}


@style.styled
def layer_points(retrieval: Mapping[str, Any]) -> "Figure":
    """Top-1 of the last model, ridge and the MLP by each layer and by all together, with 95 % intervals.

    Args:
        retrieval: Contents of retrieval.json, with rows by layer.
    """
    layers = {**retrieval["rows by layer"], "all layers": retrieval["rows"]}
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    for layer, rows in layers.items():
        for row in rows:
            if (row["trials"], row["direction"]) == (_TRIALS, _DIRECTION):
                scores.setdefault(row["model"], {})[layer] = row["top1"]
    models = [name for name in scores if is_model(name)][-1:] + [name for name in _COLOURS if name in scores]
    figure = style.new_figure(4.9, 2.9)
    axes = figure.add_subplot()
    for k, name in enumerate(models):
        colour, offset = _COLOURS.get(name, style.BLUE), 0.13 * (k - (len(models) - 1) / 2)
        for places in (range(len(layers) - 1), [len(layers) - 1]):  # the last stands apart: it is no layer
            found = [(x + offset, scores[name][layer]) for x, layer in enumerate(layers)
                     if x in places and layer in scores[name]]  # fmt: skip
            value = [100 * s["value"] for _, s in found]
            spans = [[100 * max(s["value"] - s["low"], 0) for _, s in found],
                     [100 * max(s["high"] - s["value"], 0) for _, s in found]]  # fmt: skip
            axes.errorbar(
                [x for x, _ in found], value, yerr=spans, fmt="o-", markersize=4.5, linewidth=1.3, elinewidth=1,
                capsize=2, color=colour, label=name if len(places) == 1 else None,
            )  # fmt: skip
    axes.axhline(100 * retrieval["chance"]["top1"], color=style.VERMILION, linewidth=1, linestyle=":", label="chance")
    axes.set_xticks(range(len(layers)), list(layers), rotation=30, ha="right")
    axes.set_ylim(0, 104)
    axes.set_ylabel("top-1 (%), repeat average")
    style.light_grid(axes)
    figure.legend(loc="outside upper left", ncols=len(models) + 1, handlelength=1.2, columnspacing=1.0)
    return figure
