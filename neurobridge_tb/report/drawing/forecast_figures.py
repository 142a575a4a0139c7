"""Pictures of a forecast: rasters and rates, how the score decays with the horizon, and each unit's score."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb.report.drawing import figure_style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_UNITS = 120  # rows of a raster
_LINES: tuple[dict[str, Any], ...] = (  # of the forecasts, in their order
    {"color": style.BLUE, "linewidth": 2.0},
    {"color": style.GREEN},
    {"color": style.BLUE, "linestyle": ":"},
    {"color": style.ORANGE, "linestyle": ":"},
    {"color": style.ORANGE},
)
_RESAMPLES = 500


@style.styled
def rasters(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Windows side by side: observed counts above, past counts and forecast rates below, and the population's rate.

    Units are ordered by their forecast rate; only the first are drawn. The population's rate is that of all.

    Args:
        arrays: Content of ``forecast_<group>.npz``: ``example_past`` (E, T_past, N), ``example_future``,
            ``example_rates``, ``example_mask`` (E, T, N), ``example_name`` (E,), ``bin_size``.
    """
    past, future, rates = (np.asarray(arrays[f"example_{k}"], float) for k in ("past", "future", "rates"))
    mask, width = np.asarray(arrays["example_mask"], bool), float(arrays["bin_size"])
    n_windows = min(3, len(past))
    figure = style.new_figure(2.6 * n_windows + 1.2, 6.2)
    panels = figure.subplots(3, n_windows, squeeze=False, sharex=True, sharey="row", height_ratios=[1.2, 1.2, 0.8])
    extent_of = (-past.shape[1] * width, future.shape[1] * width)
    windows = []
    for window in range(n_windows):
        used = np.flatnonzero(mask[window].any(0))
        order = used[np.argsort(-rates[window][:, used].sum(0), kind="stable")]
        windows.append(
            [
                np.concatenate([past[window], np.where(mask[window], ahead, np.nan)])[:, order]
                for ahead in (future[window], rates[window])
            ]
        )
    shown = min(_MAX_UNITS, max(observed.shape[1] for observed, _ in windows))
    limit = max(max(float(np.nanpercentile(observed[:, :shown], 98)) for observed, _ in windows), 1.0)
    for column, (observed, forecast) in zip(panels.T, windows, strict=True):
        for axes, layer in zip(column[:2], (observed, forecast), strict=True):
            axes.set_facecolor(style.HOLE)
            image = axes.imshow(
                layer[:, :shown].T, aspect="auto", interpolation="nearest", vmin=0, vmax=limit, cmap="viridis",
                extent=(*extent_of, min(shown, layer.shape[1]), 0),
            )  # fmt: skip
            axes.axvline(0, color=style.PAPER, linewidth=1.5)
            axes.set_yticks([1, min(shown, layer.shape[1])])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        centres = extent_of[0] + (np.arange(len(observed)) + 0.5) * width
        ahead = slice(past.shape[1], None)
        column[2].plot(centres, observed.mean(1) / width, color=style.INK, linewidth=1.2, label="observed")
        column[2].plot(
            centres[ahead], forecast.mean(1)[ahead] / width, color=style.BLUE, linewidth=1.8, label="forecast"
        )
        column[2].axvline(0, color=style.MUTED, linewidth=0.8, linestyle="--")
        column[2].set_xlabel("time from now (s)")
        style.light_grid(column[2])
    panels[2, 0].set_ylim(bottom=0)
    panels[0, 0].set_ylim(shown, 0)
    panels[1, 0].set_ylim(shown, 0)
    for axes, name in zip(panels[0], arrays["example_name"], strict=False):
        axes.set_title(str(name).replace(" at ", "\nat "), fontsize=8)
    for axes, name in zip(panels[:, 0], ("observed, by unit", "forecast, by unit", "mean rate (Hz)"), strict=True):
        axes.set_ylabel(name, color=style.INK)
    panels[2, 0].legend(loc="best")
    bar = figure.colorbar(image, ax=list(panels[:2].flat), shrink=0.7, aspect=20, pad=0.015)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0)
    bar.set_label("spikes a bin")
    return figure


@style.styled
def decay_curves(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Bits/spike of each bin of the future, for each forecast, with 95 % bootstrap intervals over windows,
    those that overlap together.

    Args:
        arrays: ``window_gain`` (windows, forecasts, T) in bits, ``window_spikes`` (windows, T), ``forecasts``,
            ``bin_size``.
    """
    gain, spikes, width = np.asarray(arrays["window_gain"]), np.asarray(arrays["window_spikes"]), arrays["bin_size"]
    draws = np.random.default_rng(0).multinomial(len(gain), np.full(len(gain), 1 / len(gain)), _RESAMPLES)
    drawn = np.einsum("rw,wft->rft", draws, gain) / np.maximum(draws @ spikes, 1)[:, None]
    decay = gain.sum(0) / np.maximum(spikes.sum(0), 1)
    figure = style.new_figure(6.8, 3.6)
    axes = figure.subplots()
    time = (np.arange(decay.shape[1]) + 1) * width
    axes.set_xlim(0, 1.03 * time[-1])
    for k, (name, line) in enumerate(zip(arrays["forecasts"], _LINES, strict=True)):
        low, high = np.percentile(drawn[:, k], [2.5, 97.5], axis=0)
        axes.fill_between(time, low, high, color=line["color"], alpha=0.12, linewidth=0)
        axes.plot(time, decay[k], marker="o", markersize=3, label=str(name), **line)
    axes.axhline(0, color=style.MUTED, linewidth=1, linestyle="--", label="training mean rate")
    axes.set_xlabel("how far ahead (s)")
    axes.set_ylabel("bits/spike (95 % interval)")
    figure.legend(loc="outside lower center", ncols=2)
    style.light_grid(axes)
    return figure


@style.styled
def unit_scatter(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Each unit: its score against that of the smoothed rate drawn to the recent mean, against its rate, and its PSTH.

    Scores beyond the axes, which hold 90 % of the units, are drawn at their edges.

    Args:
        arrays: ``bits_per_spike``, ``bits_per_spike_smoothed``, ``mean_rate`` (Hz), ``psth_r2``, ``rate_correlation``,
            all (units,).
    """
    bits, baseline = np.asarray(arrays["bits_per_spike"]), np.asarray(arrays["bits_per_spike_smoothed"])
    psth = np.asarray(arrays["psth_r2"])
    has_psth = bool(np.isfinite(psth).any())
    third = (np.asarray(arrays["rate_correlation"]), "rate correlation")
    if has_psth:
        third = (psth, "PSTH R² (below -1: at -1)")
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = style.new_figure(8.4, 3.0)
    left, middle, right = figure.subplots(1, 3)
    dots = {"s": 14 if len(bits) < 300 else 5, "color": style.BLUE, "alpha": 0.6, "linewidth": 0}
    both = np.concatenate([bits, baseline])
    low, high = np.nanpercentile(both, [5, 95]) if np.isfinite(both).any() else (0.0, 1.0)
    bits, baseline = np.clip(bits, low, high), np.clip(baseline, low, high)
    left.scatter(baseline, bits, **dots)
    margin = 0.1 * (high - low) + 1e-3
    left.plot([low, high], [low, high], color=style.MUTED, linewidth=1, linestyle="--")
    left.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    left.set(xlabel="bits/spike, smoothed rate\ndrawn to the recent mean", ylabel="bits/spike, forecast")
    rate = np.maximum(np.asarray(arrays["mean_rate"]), 1e-2)
    middle.scatter(rate, bits, **dots)
    middle.set_xscale("log")
    middle.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if rate.max() < 300 * rate.min() else (1,)))
    middle.xaxis.set_major_formatter("{x:g}")
    middle.xaxis.set_minor_formatter(NullFormatter())
    middle.set(xlabel="mean rate (Hz)", ylabel="bits/spike, forecast", ylim=(low - margin, high + margin))
    right.hist(np.clip(third[0][np.isfinite(third[0])], -1, 1), bins=np.linspace(-1, 1, 41), color=style.BLUE)
    right.set(xlabel=third[1], ylabel="units", xlim=(-1.05, 1.05))
    for axes in (left, middle, right):
        style.light_grid(axes, "both")
    return figure
