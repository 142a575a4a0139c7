"""Pictures of activity filled in: the raster beside the recorded one, and how well each unit and area is predicted."""

from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.drawing.figure_style import (
    AREA_COLOURS,
    BLUE,
    INK,
    MUTED,
    PAPER,
    light_grid,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SECONDS, _LEAST_WINDOWS = 6.0, 3  # of a raster
_SHARE = 98  # percentile of the values at which colours end


@styled
def filled_raster(recorded: np.ndarray, filled: np.ndarray, area: np.ndarray, metric: str, bin_size: float) -> "Figure":
    """Some windows side by side, recorded above and each unit as the others predict it below.

    Units are grouped by area and sorted by their mean. White lines part windows, which need not follow one another.

    Args:
        recorded: (B, T, N) counts a bin, or standardised values.
        filled: Of the same shape.
        area: (N,).
        metric: ``"bits/spike"`` where these are counts.
        bin_size: s.
    """
    n_bins = recorded.shape[1]
    count = min(len(recorded), max(_LEAST_WINDOWS, int(_SECONDS / (n_bins * bin_size))))
    active = np.nan_to_num(recorded).any(1).sum(1)
    chosen = np.sort(np.argsort(-active, kind="stable")[: max(count, len(recorded) // 2)][:count])
    names = list(dict.fromkeys(sorted(area)))
    order = np.lexsort((-np.nan_to_num(recorded).mean((0, 1)), [names.index(name) for name in area]))
    layers = [values[chosen][:, :, order].reshape(-1, len(order)) for values in (recorded, filled)]
    are_counts = metric == "bits/spike"
    figure = new_figure(7.6, 2.2 + 2 * min(2.6, 0.03 * len(order) + 0.9))
    panels = figure.subplots(2, 1, sharex=True)
    for axes, layer, title in zip(panels, layers, ("recorded", "filled in, each unit from the others"), strict=True):
        bound = float(np.nanpercentile(np.abs(layer), _SHARE)) or 1.0
        limits: dict[str, Any] = {"vmin": 0.0, "cmap": "viridis"} if are_counts else {"vmin": -bound, "cmap": "RdBu_r"}
        image = axes.imshow(
            layer.T, aspect="auto", interpolation="nearest", vmax=bound, **limits,
            extent=(0, len(layer) * bin_size, len(order), 0),
        )  # fmt: skip
        for window in range(1, len(chosen)):
            axes.axvline(window * n_bins * bin_size, color=PAPER, linewidth=1.2)
        sizes = [(area == name).sum() for name in names]
        for border in np.cumsum(sizes)[:-1]:
            axes.axhline(border, color=PAPER, linewidth=1.2)
        axes.set_yticks(np.cumsum(sizes) - np.array(sizes) / 2, [name or "units" for name in names])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, aspect=14, pad=0.01)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label(("expected " if axes is panels[1] else "") + "spikes a bin" if are_counts else "activity (z)")
    panels[1].set_xlabel(f"s, {len(chosen)} windows of {n_bins * bin_size:g} s one after the other")
    return figure


@styled
def unit_map(scores: np.ndarray, rate: np.ndarray, area: np.ndarray, metric: str) -> "Figure":
    """How well each unit is predicted from the others: against its rate, and by area.

    Args:
        scores: (N,) NaN where a unit has none.
        rate: (N,) Hz, or deviation of a value.
        area: (N,).
        metric: Of the scores; those beyond the axes, which hold 96 % of the units, are drawn at their edges.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    names = [name for name in dict.fromkeys(sorted(area)) if np.isfinite(scores[area == name]).any()]
    figure = new_figure(7.6, max(3.2, 1.2 + 0.26 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    known = np.isfinite(scores)
    low, high = (float(x) for x in np.percentile(scores[known], [2, 98])) if known.any() else (0.0, 1.0)
    low, high = min(low, 0.0) - 0.05 * (high - low) - 1e-3, high + 0.08 * (high - low) + 1e-3
    for row, name in enumerate(names):
        its, colour = known & (area == name), AREA_COLOURS[row % len(AREA_COLOURS)] if len(names) > 1 else BLUE
        shown = np.clip(scores[its], low, high)
        left.scatter(np.maximum(rate[its], 1e-3), shown, s=16, color=colour, alpha=0.7, linewidth=0)
        jitter = np.random.default_rng(0).uniform(-0.22, 0.22, its.sum())
        right.scatter(shown, row + jitter, s=10, color=colour, alpha=0.5, linewidth=0)
        right.plot([float(np.median(scores[its]))] * 2, [row - 0.35, row + 0.35], color=INK, linewidth=2)
    left.axhline(0, color=MUTED, linewidth=1, linestyle="--")
    right.axvline(0, color=MUTED, linewidth=1, linestyle="--")
    counts = metric == "bits/spike"
    if counts:
        left.set_xscale("log")
        left.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        left.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        left.xaxis.set_minor_formatter(NullFormatter())
    left.set(xlabel="mean rate (Hz)" if counts else "deviation", ylabel=f"{metric}, from the other units")
    beyond = 0.04 * (high - low)
    left.set(ylim=(low - beyond, high + beyond), title="units")
    right.set_yticks(range(len(names)), [f"{name or 'units'} ({(known & (area == name)).sum()})" for name in names])
    right.invert_yaxis()
    right.set(xlabel=metric, xlim=(low - beyond, high + beyond), title="areas (line: median)")
    light_grid(left, "both")
    light_grid(right, "x")
    return figure
