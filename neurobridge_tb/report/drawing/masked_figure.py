"""The picture of masked modelling: what was recorded, what the model was shown, what it filled in."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.drawing import figure_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_STRIP_ROWS = 12  # a single bin's units are folded into columns of that many
_TITLES = ("recorded", "shown to the model", "filled in")


@style.styled
def masked_window(example: Mapping[str, np.ndarray]) -> "Figure":
    """One window, three times (recorded, shown, filled in), and prediction against observation at masked positions.

    Several bins are drawn as heatmaps, units by time; a single bin as a strip of units. Units are grouped by area and
    sorted by their recorded mean within it.

    Args:
        example: Content of masked_example.npz: ``values``, ``predicted`` float ``(T, N)`` (predictions NaN where not
            target), ``keep``, ``target`` bool ``(T, N)``, ``area`` str ``(N,)``, ``scheme`` str.
    """
    values, predicted = np.asarray(example["values"]), np.asarray(example["predicted"])
    keep, target = np.asarray(example["keep"], bool), np.asarray(example["target"], bool)
    area = np.asarray(example["area"]).astype(str)
    scored = target & np.isfinite(predicted) & np.isfinite(values)
    if values.ndim != 2 or not values.shape == keep.shape == target.shape == predicted.shape or not scored.any():
        raise InputError(
            expected="values, keep, target and predicted of one shape (bins, units), with predictions at targets",
            found=f"shapes {values.shape}, {keep.shape}, {target.shape}, {predicted.shape}; {scored.sum()} predictions",
            fix="Write the example with the pretraining run.",
        )
    areas = list(dict.fromkeys(area))
    mean = np.nan_to_num(np.where(np.isfinite(values), values, 0).mean(0))
    order = np.lexsort((-mean, [areas.index(name) for name in area]))
    counts = bool((np.nan_to_num(values) >= 0).all() and (np.nan_to_num(values) % 1 == 0).all())
    shown = [values, np.where(keep, values, np.nan), np.where(scored, predicted, np.where(keep, values, np.nan))]
    shown = [layer[:, order] for layer in shown]
    area, scored, target = area[order], scored[:, order], target[:, order]
    figure = style.new_figure(7.6, 5.4)
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1] if len(values) > 1 else [1, 1.05]))
    draw = _heatmaps if len(values) > 1 else _strips
    draw(top, shown, area, areas, counts)
    curve, scatter = bottom.subplots(1, 2, width_ratios=[1.9, 1])
    _sorted_units(curve, shown[0], shown[2], scored, area, areas, counts)
    _scatter(scatter, shown[0][scored], shown[2][scored], np.broadcast_to(area, scored.shape)[scored], areas)
    return figure


def _limits(values: np.ndarray, counts: bool) -> dict[str, float | str]:
    bound = float(np.nanpercentile(np.abs(values), 98)) or 1.0
    return {"vmin": 0.0 if counts else -bound, "vmax": bound, "cmap": "viridis" if counts else "RdBu_r"}


def _heatmaps(figure: "SubFigure", layers: list[np.ndarray], area: np.ndarray, areas: list[str], counts: bool) -> None:
    panels = figure.subplots(1, 3, sharey=True)
    starts = [int(np.flatnonzero(area == name)[0]) for name in areas]
    for axes, layer, title in zip(panels, layers, _TITLES, strict=True):
        axes.set_facecolor(style.HOLE)
        image = axes.imshow(layer.T, aspect="auto", interpolation="nearest", **_limits(layers[0], counts))
        for start in starts[1:]:
            axes.axhline(start - 0.5, color=style.PAPER, linewidth=1.5)
        axes.set_title(title)
        axes.set_xlabel("bin")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(
        [(area == name).nonzero()[0].mean() for name in areas],
        [_area_label(name, area) for name in areas],
        color=style.INK,
    )
    _colour_bar(figure, image, list(panels), counts)


def _strips(figure: "SubFigure", layers: list[np.ndarray], area: np.ndarray, areas: list[str], counts: bool) -> None:
    from matplotlib.patches import Rectangle

    units = [int((area == name).sum()) for name in areas]
    columns = [-(-count // _STRIP_ROWS) for count in units]
    panels = figure.subplots(3, len(areas), width_ratios=columns, squeeze=False)
    for layer, title, row in zip(layers, _TITLES, panels, strict=True):
        for name, width, axes in zip(areas, columns, row, strict=True):
            cells = np.full(width * _STRIP_ROWS, np.nan)
            cells[: (area == name).sum()] = layer[0, area == name]
            image = axes.imshow(
                cells.reshape(width, _STRIP_ROWS).T,
                aspect="auto",
                interpolation="nearest",
                **_limits(layers[0], counts),
            )
            last = (area == name).sum() - (width - 1) * _STRIP_ROWS  # units in the last column; the rest is paper
            axes.add_patch(
                Rectangle((width - 1.5, last - 0.5), 1.5, _STRIP_ROWS - last + 0.5, color=style.PAPER, linewidth=0)
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_facecolor(style.HOLE)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", color=style.INK, fontweight="bold", labelpad=8)
    for name, axes in zip(areas, panels[0], strict=True):
        axes.set_title(_area_label(name, area))
    _colour_bar(figure, image, list(panels.flat), counts)


def _area_label(name: str, area: np.ndarray) -> str:
    return f"{name or 'units'} ({(area == name).sum()})"


def _colour_bar(figure: "SubFigure", image: object, panels: list["Axes"], counts: bool) -> None:
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=18, pad=0.015)  # type: ignore[arg-type]
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0)
    bar.set_label("spikes a bin" if counts else "activity (z)")


def _sorted_units(
    axes: "Axes",
    recorded: np.ndarray,
    filled: np.ndarray,
    scored: np.ndarray,
    area: np.ndarray,
    areas: list[str],
    counts: bool,
) -> None:
    """Masked units in order of their recorded value: the line is what was recorded, the dots what was predicted."""
    start = 0
    for index, name in enumerate(areas):
        units = np.flatnonzero((area == name) & scored.any(0))
        if not len(units):
            continue
        scored_here = scored[:, units]
        true = np.where(scored_here, recorded[:, units], 0).sum(0) / scored_here.sum(0)
        made = np.where(scored_here, filled[:, units], 0).sum(0) / scored_here.sum(0)
        order = np.argsort(true)
        place = start + np.arange(len(units))
        axes.plot(place, true[order], color=style.INK, linewidth=1.3, zorder=3)
        colour = style.AREA_COLOURS[index % len(style.AREA_COLOURS)]
        axes.scatter(place, made[order], s=7, color=colour, alpha=0.75, linewidth=0, rasterized=True)
        axes.text(
            place.mean(), 1.0, name, transform=axes.get_xaxis_transform(), ha="center", color=colour, fontweight="bold"
        )
        start += len(units) + 8
    axes.set_xticks([])
    axes.set_xlabel("masked units, by area and recorded value (line: recorded, dots: filled in)")
    axes.set_ylabel("spikes a bin" if counts else "activity (z)")
    style.light_grid(axes)


def _scatter(axes: "Axes", true: np.ndarray, made: np.ndarray, area: np.ndarray, areas: list[str]) -> None:
    thinned = np.random.default_rng(0).permutation(len(true))[:3000]
    for index, name in enumerate(areas):
        chosen = thinned[area[thinned] == name]
        colour = style.AREA_COLOURS[index % len(style.AREA_COLOURS)]
        axes.scatter(true[chosen], made[chosen], s=6, color=colour, alpha=0.5, linewidth=0, rasterized=True)
    low, high = float(min(true.min(), made.min())), float(max(true.max(), made.max()))
    axes.plot([low, high], [low, high], color=style.MUTED, linewidth=1, linestyle="--")
    varied = true.std() > 0 and made.std() > 0
    if varied:
        axes.set_title(f"r = {np.corrcoef(true, made)[0, 1]:.2f}")
    axes.set_xlabel("recorded")
    axes.set_ylabel("filled in")
    style.light_grid(axes, "both")
