"""The last smoothed rate: by hand, with missing bins, and fitted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neurobridge_tb.estimators.smoothed_rate import SmoothedRate, Windows, fit_smoothed_rate


def windows(past, present, mean, future=None, recent=(0.0, 0.0)):
    """Windows without a running past, or with one of three time constants that are alike."""
    future = np.zeros_like(past) if future is None else future
    spikes, bins = (np.broadcast_to(np.asarray(x), (past.shape[0], 3, past.shape[2])) for x in recent)
    return Windows(past, present, mean, spikes, bins, future, np.ones(future.shape, bool))


def test_the_rate_is_an_average_drawn_to_the_mean():
    past = np.array([[[4.0], [0.0], [2.0]]])
    half = np.exp(-np.log(2))
    seen = windows(past, np.ones_like(past, bool), np.array([[1.0]]), recent=(50.0, 20.0))
    rate = SmoothedRate(decay=1 / np.log(2), strength=3.0).predict(seen)
    expected = (3 * 1 + 2 + 0 * half + 4 * half**2) / (3 + 1 + half + half**2)
    assert rate[0, 0] == pytest.approx(expected)
    drawn = SmoothedRate(decay=1 / np.log(2), strength=3.0, constant=1, prior=5.0).predict(seen)
    recent = (5 * 1 + 50) / (5 + 20)
    assert drawn[0, 0] == pytest.approx((3 * recent + 2 + 4 * half**2) / (3 + 1 + half + half**2))


def test_bins_that_do_not_exist_do_not_count():
    past = torch.tensor([[[9.0, 1.0], [2.0, 1.0]]])
    present = torch.tensor([[[False, True], [True, True]]])
    mean = np.array([[0.5, 0.5]])
    shorter = SmoothedRate(4.0, 2.0).predict(windows(past[:, 1:], present[:, 1:], mean))
    assert SmoothedRate(4.0, 2.0).predict(windows(past, present, mean))[0, 0] == pytest.approx(shorter[0, 0])
    absent = SmoothedRate(4.0, 2.0).predict(windows(past, torch.zeros_like(present), mean))
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
    batch = windows(past, np.ones_like(past, bool), np.full((400, 3), counts.mean()), future)
    found = fit_smoothed_rate([batch, batch])
    assert found.decay <= longest
    assert found.strength == 30 if drift == 0 else found.strength <= 3


def test_where_rates_have_drifted_the_recent_mean_is_chosen():
    """Rates are three times those of training; one of three time constants tells it, the others nothing."""
    rng = np.random.default_rng(0)
    past, future = rng.poisson(0.6, (300, 4, 5)).astype(float), rng.poisson(0.6, (300, 2, 5)).astype(float)
    seen = windows(past, np.ones_like(past, bool), np.full((300, 5), 0.2), future)
    bins = np.zeros((300, 3, 5))
    bins[:, 1] = 100
    seen = replace(seen, recent_bins=bins, recent_spikes=rng.poisson(0.6 * bins))
    found = fit_smoothed_rate([seen], priors=[1.0, 100.0, 10_000.0])
    assert (found.constant, found.prior) == (1, 1.0)
    np.testing.assert_allclose(found.predict(seen).mean(), 0.6, rtol=0.05)
