"""The last smoothed rate: by hand, with missing bins, and fitted."""

import numpy as np
import pytest
import torch

from neurobridge_tb.estimators.smoothed_rate import SmoothedRate, fit_smoothed_rate


def test_the_rate_is_an_average_drawn_to_the_mean():
    past = np.array([[[4.0], [0.0], [2.0]]])
    half = np.exp(-np.log(2))
    rate = SmoothedRate(decay=1 / np.log(2), strength=3.0).predict(past, np.ones_like(past, bool), np.array([[1.0]]))
    expected = (3 * 1 + 2 + 0 * half + 4 * half**2) / (3 + 1 + half + half**2)
    assert rate[0, 0] == pytest.approx(expected)


def test_bins_that_do_not_exist_do_not_count():
    past = torch.tensor([[[9.0, 1.0], [2.0, 1.0]]])
    present = torch.tensor([[[False, True], [True, True]]])
    mean = np.array([[0.5, 0.5]])
    shorter = SmoothedRate(4.0, 2.0).predict(past[:, 1:], present[:, 1:], mean)
    assert SmoothedRate(4.0, 2.0).predict(past, present, mean)[0, 0] == pytest.approx(shorter[0, 0])
    absent = SmoothedRate(4.0, 2.0).predict(past, torch.zeros_like(present), mean)
    np.testing.assert_allclose(absent, mean)


@pytest.mark.parametrize(("drift", "longest"), [(0.0, 32), (0.9, 4)])
def test_the_fit_chooses_how_much_to_trust_the_recent_past(drift, longest):
    """Constant rates: only the mean counts, so the prior is strong. Rates that change: the last bins count."""
    rng = np.random.default_rng(0)
    log_rates = np.zeros((400, 24, 3))
    for t in range(1, 24):
        log_rates[:, t] = 0.9 * log_rates[:, t - 1] + drift * rng.normal(size=(400, 3))
    counts = rng.poisson(np.exp(log_rates)).astype(float)
    past, future = counts[:, :20], counts[:, 20:]
    batch = past, np.ones_like(past, bool), np.full((400, 3), counts.mean()), future, np.ones_like(future, bool)
    found = fit_smoothed_rate([batch, batch])
    assert found.decay <= longest
    assert found.strength == 30 if drift == 0 else found.strength <= 3
