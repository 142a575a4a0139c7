"""Figures: what they show, both colour schemes, and inputs that cannot be drawn."""

from xml.etree import ElementTree

import numpy as np
import pytest
from fabricated import masked_example, write_pretrain

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.drawing import figure_style
from neurobridge_tb.report.drawing.figures import read_curves, retrieval_bars, training_curves
from neurobridge_tb.report.drawing.image_grids import best_median_worst, image_grid, spread_over_ranks
from neurobridge_tb.report.drawing.masked_figure import masked_window


def texts(figure):
    svg = ElementTree.fromstring(figure_style.to_svg(figure))
    return ["".join(node.itertext()).strip() for node in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_curves_are_read_without_empty_cells_and_drawn_one_panel_each(tmp_path):
    write_pretrain(tmp_path)
    curves = read_curves(tmp_path / "runs" / "pretrain" / "metrics.csv")
    assert list(curves) == ["train/loss", "val/loss", "val/loss/neuron"]
    np.testing.assert_array_equal(curves["val/loss/neuron"][0], range(5))
    np.testing.assert_allclose(curves["val/loss/neuron"][1], 3 / np.arange(1, 6))
    figure = training_curves(curves)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["total loss", "neuron"]
    assert "0.6" in texts(figure)  # the best validation loss of the scheme


def test_scale_is_logarithmic_where_values_span_a_factor_of_ten():
    steps = np.arange(4.0)
    wide = training_curves({"val/loss": (steps, np.array([20, 5, 2, 1.0]))})
    signed = training_curves({"val/loss": (steps, np.array([20, 5, 2, -1.0]))})
    assert wide.axes[0].get_yscale() == "log" and signed.axes[0].get_yscale() == "linear"


def test_many_steps_are_smoothed_but_kept():
    rng = np.random.default_rng(0)
    figure = training_curves({"train/loss": (np.arange(1000.0), rng.normal(3, 1, 1000))})
    raw, smooth = figure.axes[0].lines
    assert len(raw.get_xdata()) == 1000
    assert smooth.get_ydata().std() < 0.5 * raw.get_ydata().std()


@pytest.mark.parametrize(("bins", "counts"), [(1, False), (1, True), (12, False), (12, True)])
def test_masked_window_draws_recorded_shown_and_filled_in(bins, counts):
    words = texts(masked_window(masked_example(bins, counts=counts)))
    for word in ("recorded", "shown to the model", "filled in", "V1", "V4", "IT"):
        assert any(word in text for text in words)
    assert ("spikes a bin" in words) is counts


def test_masked_window_hides_from_the_middle_what_was_not_kept():
    example = masked_example(12)
    figure = masked_window(example)
    recorded, shown, filled = (np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes[:3])
    np.testing.assert_allclose(np.sort(np.nansum(recorded, 1)), np.sort(np.nansum(example["values"], 0)), rtol=1e-4)
    hidden = np.isnan(shown)
    assert hidden.sum() == (~example["keep"]).sum() + 12  # and the unit that is NaN throughout
    np.testing.assert_allclose((filled - recorded)[hidden & ~np.isnan(recorded)], 0.1, atol=1e-5)
    np.testing.assert_array_equal(filled[~hidden], recorded[~hidden])


def test_masked_window_without_areas_or_predictions():
    example = masked_example(3)
    texts(masked_window({**example, "area": np.array([""] * 30)}))
    with pytest.raises(InputError, match="0 predictions"):
        masked_window({**example, "target": np.zeros((3, 30), bool)})
    with pytest.raises(InputError, match="one shape"):
        masked_window({**example, "keep": example["keep"][:2]})


def test_retrieval_bars_show_values_intervals_and_chance():
    score = {"value": 0.42, "low": 0.3, "high": 0.5}
    rows = [{"model": "ridge", "top1": score, "top5": score}, {"model": "ours", "top1": score, "top5": score}]
    figure = retrieval_bars(rows, {"top1": 0.01, "top5": 0.05})
    words = texts(figure)
    assert words.count("42") == 4 and {"ridge", "ours", "chance, top-5"} <= set(words)
    assert sorted(line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() != "None")[:2] == [1, 5]


def test_svg_follows_the_readers_colour_scheme():
    svg = figure_style.to_svg(training_curves({"train/loss": (np.arange(3.0), np.arange(3.0))}))
    style = svg[svg.index("<style>") : svg.index("</style>")]
    assert "prefers-color-scheme:dark" in style
    assert figure_style.INK not in svg.replace(style, "") and "var(--ink)" in svg


def test_drawing_leaves_global_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    masked_window(masked_example(1))
    assert dict(matplotlib.rcParams) == before


def test_best_median_worst_do_not_overlap():
    scores = np.random.default_rng(0).permutation(20).astype(float)
    groups = best_median_worst(scores, 3)
    assert [sorted(scores[chosen]) for chosen in groups.values()] == [[17, 18, 19], [9, 10, 11], [0, 1, 2]]
    assert [len(chosen) for chosen in best_median_worst(scores[:7], 3).values()] == [2, 2, 2]
    assert sum(len(chosen) for chosen in best_median_worst(scores[:2]).values()) == 0


def test_spread_over_ranks_has_both_ends():
    scores = np.array([0.3, 0.9, 0.1, 0.5, 0.7])
    np.testing.assert_array_equal(spread_over_ranks(scores, 3), [1, 3, 2])
    np.testing.assert_array_equal(spread_over_ranks(scores, 9), [1, 4, 3, 0, 2])


def test_grids_are_labelled_and_saved(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    rows = {"seen": images, "nearest": images[::-1]}
    scores = np.linspace(0, 1, 9)
    grid = image_grid(rows, best_median_worst(scores, 2), [f"{score:.2f}" for score in scores])
    assert {"best", "median", "worst", "seen", "nearest", "0.00", "1.00"} <= set(texts(grid))
    figure_style.save_png(grid, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="one length"):
        image_grid(rows, {"": [0]}, ["only one"])
