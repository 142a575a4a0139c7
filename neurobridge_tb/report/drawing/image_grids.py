"""Grids of pictures: seen, nearest and reconstructed images one above the other, chosen by rank and labelled so."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.drawing import figure_style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def best_median_worst(scores: np.ndarray, count: int = 3) -> dict[str, np.ndarray]:
    """Indices of the ``count`` best, most median and worst scores (higher is better), without overlap.

    Args:
        scores: ``(n,)``; with fewer than ``3 * count`` images the groups shrink.
        count: Images a group.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    count = min(count, len(order) // 3)
    start = (len(order) - count) // 2
    return {
        "best": order[:count],
        "median": order[start : start + count],
        "worst": order[len(order) - count :],
    }


def spread_over_ranks(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` images at even steps of the ranking, from the best to the worst."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]


@style.styled
def image_grid(
    rows: Mapping[str, np.ndarray], groups: Mapping[str, Sequence[int] | np.ndarray], captions: Sequence[str]
) -> "Figure":
    """Images in rows (seen, nearest, …) and columns, the columns in labelled groups.

    Args:
        rows: For each row's name, uint8 images ``(n, H, W, 3)``; the same image in each row.
        groups: For each group's name ("best", "median", "worst"), indices of its images.
        captions: ``(n,)`` text under each column, e.g. its score.
    """
    sizes = {len(images) for images in rows.values()} | {len(captions)}
    if len(sizes) != 1 or not any(len(chosen) for chosen in groups.values()):
        raise InputError(
            expected="rows and captions of one length, and at least one image chosen",
            found=f"lengths {sorted(sizes)}, {sum(len(chosen) for chosen in groups.values())} images chosen",
            fix="Pass one image and one caption for each test image.",
        )
    groups = {name: chosen for name, chosen in groups.items() if len(chosen)}
    titled = any(groups)
    widths: list[float] = []
    columns: dict[str, range] = {}  # a narrow empty column stands between groups
    for name, chosen in groups.items():
        widths += [0.12] * bool(widths)
        columns[name] = range(len(widths), len(widths) + len(chosen))
        widths += [1.0] * len(chosen)
    figure = style.new_figure(0.85 * sum(widths) + 0.95, 0.84 * len(rows) + (0.45 if titled else 0.22), pad=0.015)
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
    for line, (row, images) in enumerate(rows.items()):
        for name, chosen in groups.items():
            for column, index in zip(columns[name], chosen, strict=True):
                axes = figure.add_subplot(grid[line, column])
                axes.imshow(images[index], interpolation="lanczos")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if column == 0:
                    axes.set_ylabel(row, rotation=0, ha="right", va="center", color=style.INK, labelpad=6)
                if line == 0 and column == columns[name][0]:
                    axes.set_title(name)
                if line == len(rows) - 1:
                    axes.set_xlabel(captions[index], fontsize=8, labelpad=3)
    return figure
