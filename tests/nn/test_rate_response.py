"""The response that all units share: what it starts at, what it is fitted to, and where it stays."""

import numpy as np
import torch
from scipy.optimize import minimize

from neurobridge_tb.nn.rate_response import LaterCells, RateResponse


def missing(features, more=0.0):
    return -0.4 * features[:, 0] + 0.1 * (features[:, 2] - 3) + 0.6 * features[:, 3] + more


def cells(n=20000, seed=0, more=0.0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)) * [1.0, 0.2, 2.0, 0.5] + [0.0, 0.5, 3.0, 0.0]
    log_rates = features[:, 0] - 1
    counts = rng.poisson(np.exp(log_rates + missing(features, more)))
    return LaterCells(features, log_rates, counts.astype(float))


def test_nothing_is_corrected_before_the_fit():
    assert (RateResponse()(torch.randn(4, 5, 6, 4)) == 0).all()


def test_the_fit_is_the_penalised_maximum_of_the_likelihood():
    features, log_rates, counts = cells()
    response = RateResponse().double()
    response.fit(cells(), cells(seed=3))
    z = np.clip((features[:, :3] - [0, 0.5, 4]) / [1, 1, 2], [-3, -0.5, -2], [3, 2.5, 2])
    products = [z[:, a] * z[:, b] for a in range(3) for b in range(a, 3)]
    x = np.column_stack([np.ones(len(z)), z, *products, features[:, 3]])

    def loss(w):
        rates = np.exp(log_rates + x @ w)
        return (rates - counts * (x @ w)).sum() + 100 * (w**2).sum(), x.T @ (rates - counts) + 200 * w

    best = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-4}).x
    np.testing.assert_allclose(response.weights.numpy(), best, atol=1e-5)
    np.testing.assert_allclose(response(torch.from_numpy(features)).numpy(), x @ best, atol=1e-4)


def test_rates_that_say_too_much_are_drawn_back_on_new_cells():
    response = RateResponse()
    response.fit(cells(), cells(seed=3))
    features, log_rates, _ = cells(seed=1)
    corrected = log_rates + response(torch.from_numpy(features).float()).numpy()
    truth = log_rates + missing(features)
    assert np.abs(corrected - truth).mean() < 0.15 * np.abs(log_rates - truth).mean()


def test_what_does_not_hold_in_validation_corrects_nothing():
    found, other = cells(), cells(seed=3)
    response = RateResponse()
    response.fit(found, other._replace(counts=np.exp(other.log_rates)))
    assert (response.weights == 0).all()


def test_far_from_all_that_there_is_a_correction_stays_as_it_is_at_the_border():
    response = RateResponse()
    response.fit(cells(), cells(seed=3))
    edge, beyond = torch.tensor([[3.0, 3.0, 8.0, 0.1], [1e6, 1e6, 1e6, 0.1]])
    assert torch.isfinite(response(beyond)) and response(beyond) == response(edge)


def test_a_new_recording_starts_from_the_response_of_others():
    others, alone, moved = RateResponse(), RateResponse(), RateResponse()
    others.fit(cells(), cells(seed=3))
    moved.weights.copy_(others.weights)
    for response in (alone, moved):
        response.fit(cells(1000, seed=1, more=0.15), cells(1000, seed=3, more=0.15))
    features = cells(seed=2)[0]

    def error(response):
        return np.abs(response(torch.from_numpy(features).float()).numpy() - missing(features, more=0.15)).mean()

    assert error(moved) < error(others) < error(alone)
