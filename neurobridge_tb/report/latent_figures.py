"""Pictures of latents: principal components coloured by a column, and dissimilarity of conditions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.figure_style import GRID, new_figure, save_png, styled, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_COLOURS = 10  # classes with a colour of their own
_MOST_POINTS = 20_000


def save_latent_figures(pictures: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write the figures of one recording as PNG and SVG."""
    figures = {
        f"{name}_components": components(
            pictures["scores"], pictures["shares"], pictures["colours"], pictures["label"] or "time"
        )
    }
    if "dissimilarity" in pictures:
        figures[f"{name}_dissimilarity"] = dissimilarity_matrices(pictures["dissimilarity"])
    folder.mkdir(parents=True, exist_ok=True)
    for stem, figure in figures.items():
        save_png(figure, folder / f"{stem}.png")
        (folder / f"{stem}.svg").write_text(to_svg(figure), encoding="utf-8")


@styled
def components(scores: np.ndarray, shares: np.ndarray, colours: np.ndarray | None, label: str) -> "Figure":
    """The first two principal components of the latents, a point a step or a row.

    Args:
        scores: (n, 2).
        shares: (2,) share of the variance.
        colours: (n,) text, or numbers; ``""`` and NaN (between rows) are grey. Default: the order of time.
        label: What the colours are.
    """
    from matplotlib import colormaps

    chosen = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), _MOST_POINTS)).astype(int))
    scores = scores[chosen]
    colours = np.arange(len(scores), dtype=float) if colours is None else colours[chosen]
    figure = new_figure(5.4, 4.2)
    axes = figure.add_subplot()
    style: dict[str, Any] = dict(s=5 if len(scores) > 1000 else 18, linewidths=0, rasterized=True)
    if colours.dtype.kind in "US":
        axes.scatter(*scores[colours == ""].T, color=GRID, **style)
        names, counts = np.unique(colours[colours != ""], return_counts=True)
        for index, name in enumerate(names[np.argsort(-counts)][:_MOST_COLOURS]):
            axes.scatter(*scores[colours == name].T, color=colormaps["tab10"](index), label=name, alpha=0.7, **style)
        axes.legend(title=label, markerscale=3, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        known = np.isfinite(colours)
        axes.scatter(*scores[~known].T, color=GRID, **style)
        points = axes.scatter(*scores[known].T, c=colours[known], cmap="viridis", alpha=0.7, **style)  # type: ignore[misc]
        figure.colorbar(points, ax=axes, label=label)
    axes.set(xlabel=f"component 1 ({shares[0]:.0%} of the variance)", ylabel=f"component 2 ({shares[1]:.0%})")
    axes.set_title("latents")
    return figure


@styled
def dissimilarity_matrices(matrices: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """1 - correlation of each pair of conditions, side by side for each kind of features."""
    count = len(next(iter(matrices.values()))[1])
    size = 2.4 + 0.16 * min(count, 30)
    figure = new_figure(size * len(matrices) + 1.4, size + 0.9)
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, (matrix, names)) in zip(panels, matrices.items(), strict=True):
        image = axes.imshow(matrix, cmap="magma", vmin=0, vmax=max(float(matrix.max()), 1e-9))
        axes.set_title(title)
        axes.tick_params(length=0)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.8)
    bar.set_label("1 - correlation")
    return figure
