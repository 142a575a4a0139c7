"""Rasters of a forecast show it next to what was observed, on one scale and without choosing units by their future."""

import numpy as np

from neurobridge_tb.report.drawing.forecast_figures import decay_curves, rasters


def test_rasters_order_units_by_forecast_and_share_one_scale():
    rng = np.random.default_rng(0)
    means = rng.gamma(0.5, 1.0, 150)
    past, future = rng.poisson(means, (3, 4, 150)), rng.poisson(means, (3, 6, 150))
    mask = np.ones((3, 6, 150), bool)
    mask[2, :, 100:] = False  # a recording of fewer units
    arrays = {"example_past": past, "example_future": future, "example_mask": mask, "bin_size": np.array(0.1)}
    arrays["example_name"] = np.array(["monday at 1.0 s", "monday at 9.0 s", "friday at 2.0 s"])
    figure = rasters(arrays | {"example_rates": np.broadcast_to(means, future.shape)})
    panels = np.array(figure.axes[:9]).reshape(3, 3)
    assert len({image.get_clim() for axes in panels[:2].flat for image in axes.images}) == 1
    order = np.argsort(-means)
    np.testing.assert_array_equal(panels[0, 0].images[0].get_array()[:, :4], past[0][:, order[:120]].T)
    observed, forecast = (line.get_ydata() for line in panels[2, 0].lines[:2])
    np.testing.assert_allclose(observed, np.concatenate([past[0], future[0]]).mean(1) / 0.1)  # of all units
    np.testing.assert_allclose(forecast, means.mean() / 0.1)
    np.testing.assert_allclose(panels[2, 2].lines[1].get_ydata(), means[:100].mean() / 0.1)
    assert panels[0, 2].get_title(loc="left") == "friday\nat 2.0 s"


def test_decay_curves_are_the_scores_with_their_intervals():
    rng = np.random.default_rng(0)
    gain, spikes = rng.normal(2.0, 1.0, (200, 5, 6)), rng.poisson(10.0, (200, 6))
    names = np.array(["a", "b", "c", "d", "e"])
    figure = decay_curves({"window_gain": gain, "window_spikes": spikes, "forecasts": names, "bin_size": np.array(0.1)})
    axes = figure.axes[0]
    bits = gain.sum(0) / spikes.sum(0)
    for k in range(5):
        np.testing.assert_allclose(axes.lines[k].get_ydata(), bits[k])
        edges = axes.collections[k].get_paths()[0].vertices[:, 1]
        assert edges.min() < bits[k].min() and edges.max() > bits[k].max()
        assert np.ptp(edges) < 0.2
