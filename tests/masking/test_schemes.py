"""Masks: what each scheme hides and predicts, and that draws are fixed by their key."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import SCHEMES, MaskedTokenizer, draw_mask
from neurobridge_tb.masking.schemes import is_possible

AREAS = np.array(["V1"] * 6 + ["V4"] * 4 + ["IT"] * 3)


def draw(scheme, seed=0, n_bins=12, areas=AREAS):
    return draw_mask({scheme: 1.0}, np.random.default_rng(seed), n_bins, areas)


@given(
    scheme=st.sampled_from(sorted(SCHEMES)),
    seed=st.integers(0, 2**32 - 1),
    n_bins=st.integers(1, 40),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_every_mask_keeps_something_asks_for_something_and_never_both(scheme, seed, n_bins, counts):
    areas = np.repeat([f"area{i}" for i in range(len(counts))], counts)
    if not is_possible(scheme, n_bins, areas):
        with pytest.raises(InputError, match="suits the window"):
            draw(scheme, seed, n_bins, areas)
        return
    mask = draw(scheme, seed, n_bins, areas)
    assert mask.keep.shape == mask.target.shape == (n_bins, len(areas))
    assert mask.keep.any() and mask.target.any()
    assert not (mask.keep & mask.target).any()


def test_temporal_masks_whole_bins_at_the_ratio():
    mask = draw("temporal", n_bins=50)
    bins = mask.target.all(1)
    assert (mask.target == bins[:, None]).all()
    assert bins.sum() == 15
    np.testing.assert_array_equal(mask.keep, ~mask.target)


def test_causal_masks_everything_after_a_cut():
    for seed in range(20):
        bins = draw("causal", seed, n_bins=20).target.all(1)
        assert (np.diff(bins.astype(int)) >= 0).all()
        assert 2 <= bins.sum() <= 12


def test_neuron_masks_whole_units():
    mask = draw("neuron")
    assert set(mask.target.sum(0)) == {0, 12}
    shares = [draw("neuron", seed=seed).target.all(0).mean() for seed in range(200)]
    assert 1 / 13 <= min(shares) < 0.2 and 0.4 < max(shares) <= 0.55


def test_intra_region_sees_only_the_rest_of_that_area():
    for seed in range(20):
        mask = draw("intra_region", seed)
        (area,) = set(AREAS[mask.target.any(0)])
        assert set(AREAS[mask.keep.any(0)]) == {area}
        units = mask.target.any(0) | mask.keep.any(0)
        np.testing.assert_array_equal(units, AREAS == area)


def test_inter_region_sees_only_other_areas():
    mask = draw("inter_region")
    (area,) = set(AREAS[mask.target.any(0)])
    np.testing.assert_array_equal(mask.target.all(0), AREAS == area)
    np.testing.assert_array_equal(mask.keep, ~mask.target)


def test_weights_choose_among_possible_schemes():
    rng = np.random.default_rng(0)
    weights = {"neuron": 3.0, "random": 1.0, "causal": 0.0, "inter_region": 5.0}
    drawn = [draw_mask(weights, rng, 4, np.full(5, "")).scheme for _ in range(400)]  # no areas: no regional scheme
    assert set(drawn) == {"neuron", "random"}
    assert 0.65 < drawn.count("neuron") / 400 < 0.85


def test_units_at_the_root_of_the_ontology_are_of_no_area():
    areas = np.array(["root"] * 6 + ["VISp"] * 4)
    assert not is_possible("inter_region", 4, areas)
    for seed in range(20):
        assert not draw("intra_region", seed, areas=areas).target[:, :6].any()


def test_an_unknown_scheme_is_named():
    with pytest.raises(InputError, match="nuron"):
        draw_mask({"nuron": 1.0}, np.random.default_rng(0), 4, AREAS)


class Window:
    def __init__(self, session, start):
        self.session, self.absolute_start = type("Session", (), {"id": session}), start


class Grid:
    def window_grid(self, data):
        return 12, AREAS

    def absent(self, data):
        return None


def test_training_masks_follow_epoch_and_window_and_validation_masks_the_window_alone():
    train, valid = (MaskedTokenizer(Grid(), {"neuron": 1.0}, fixed=f) for f in (False, True))
    window, other = Window("a", 1.0), Window("a", 1.05)
    for transform, changes in ((train, True), (valid, False)):
        first = transform.draw(window).target
        np.testing.assert_array_equal(transform.draw(window).target, first)
        assert (transform.draw(other).target != first).any()
        transform.set_epoch(1)
        assert (transform.draw(window).target != first).any() == changes
    seeded = MaskedTokenizer(Grid(), {"neuron": 1.0}, seed=7, fixed=True)
    assert (seeded.draw(window).target != valid.draw(window).target).any()
