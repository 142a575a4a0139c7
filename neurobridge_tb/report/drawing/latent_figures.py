"""Pictures of latents: maps coloured by a column, and dissimilarity of conditions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.drawing.figure_style import GRID, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLOURS = 10  # classes with a colour of their own
_MOST_POINTS = 20_000
_MOST_COLUMNS = 4


@styled
def scatter_maps(maps: Mapping[str, np.ndarray], colours: np.ndarray | None, label: str) -> "Figure":
    """Latents in two dimensions, a point a step or a row, side by side for each way to get there.

    Args:
        maps: (n, 2) each; NaN where a point is left out.
        colours: (n,) text, or numbers; ``""`` and NaN (between rows) are grey. Default: the order of time.
        label: What the colours are.
    """
    figure = new_figure(1.4 + 4.0 * len(maps), 4.0)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (title, points) in zip(panels, maps.items(), strict=True):
        last = axes is panels[-1]
        chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).astype(int))
        _scatter(axes, points[chosen], np.arange(len(chosen), dtype=float) if colours is None else colours[chosen],
                 label if last else None)  # fmt: skip
        axes.set_title(title)
        axes.set(xticks=[], yticks=[])
    return figure


def _scatter(axes: "Axes", points: np.ndarray, colours: np.ndarray, label: str | None) -> None:
    """Points; with ``label`` a legend or a scale beside them."""
    from matplotlib import colormaps

    style: dict[str, Any] = dict(s=5 if len(points) > 1000 else 18, linewidths=0, rasterized=True)
    if colours.dtype.kind in "US":
        axes.scatter(*points[colours == ""].T, color=GRID, **style)
        names, counts = np.unique(colours[colours != ""], return_counts=True)
        for index, name in enumerate(names[np.argsort(-counts, kind="stable")][:_MOST_COLOURS]):
            axes.scatter(*points[colours == name].T, color=colormaps["tab10"](index), label=name, alpha=0.7, **style)
        if label:
            axes.legend(title=label, markerscale=2, loc="upper left", bbox_to_anchor=(1, 1))
        return
    known = np.isfinite(colours)
    axes.scatter(*points[~known].T, color=GRID, **style)
    drawn = axes.scatter(*points[known].T, c=colours[known], cmap="viridis", alpha=0.7, **style)  # type: ignore[misc]
    if label:
        axes.figure.colorbar(drawn, ax=axes, label=label)


@styled
def dissimilarity_matrices(matrices: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """1 - correlation of each pair of conditions, side by side for each kind of features."""
    count = len(next(iter(matrices.values()))[1])
    size, columns = 1.7 + 0.13 * min(count, 30), min(len(matrices), _MOST_COLUMNS)
    lines = -(-len(matrices) // columns)
    figure = new_figure(size * columns + 1.2, size * lines + 0.6)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for empty in panels[len(matrices) :]:
        empty.set_visible(False)
    for axes, (title, (matrix, names)) in zip(panels, matrices.items(), strict=False):
        image = axes.imshow(matrix, cmap="magma", vmin=0, vmax=max(float(matrix.max()), 1e-9))
        axes.set_title(title)
        axes.tick_params(length=0)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.8)
    bar.set_label("1 - correlation")
    return figure
