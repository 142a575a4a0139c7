"""Forecasts through factors: Gaussian conditioning, in few directions."""

import numpy as np
import pytest

from neurobridge_tb.estimators.factor_analysis import FactorAnalysis
from neurobridge_tb.estimators.factor_forecast import forecast_maps


@pytest.mark.parametrize("past_parts", [6, 3])
def test_the_forecast_of_factors_is_gaussian_conditioning(past_parts):
    """In parts of the past that have one weight, a bin's mean stands for its bins."""
    rng, n, k, n_past, n_future = np.random.default_rng(0), 7, 2, 6, 4
    dynamics = np.diag([0.95, 0.5]) @ np.linalg.qr(rng.normal(size=(k, k)))[0]
    model = FactorAnalysis(np.zeros(n), rng.normal(size=(n, k)), rng.uniform(0.5, 2, n), np.full(n, np.inf))
    maps = {"bins": (n_past, n_future), "parts": (past_parts, n_future)}
    first, second, spread = forecast_maps(model, dynamics, **maps, directions=20)
    length = n_past + n_future
    shared = np.zeros((length, k, length, k))
    for t in range(length):
        for s in range(t + 1):
            shared[t, :, s] = np.linalg.matrix_power(dynamics, t - s)
            shared[s, :, t] = shared[t, :, s].T
    of_units = np.einsum("na,tasb,mb->tnsm", model.loadings, shared, model.loadings).reshape(length * n, -1)
    noisy = of_units + np.diag(np.tile(model.noise, length))
    seen = n_past * n
    z = rng.normal(size=(n_past, n))
    if past_parts == 3:
        z[1::2] = z[::2]
    gain = of_units[seen:, :seen] @ np.linalg.inv(noisy[:seen, :seen])
    covariance = of_units[seen:, seen:] - gain @ of_units[:seen, seen:]
    sums = z.reshape(past_parts, -1, n).sum(1)
    scores = np.einsum("pn,npk->k", sums, first)
    found = np.einsum("nfk,k->fn", second, scores)
    np.testing.assert_allclose(found, (gain @ z.flatten()).reshape(n_future, n), atol=1e-9)
    np.testing.assert_allclose(spread.T.flatten(), np.sqrt(np.diag(covariance)), atol=1e-9)


def test_fewer_directions_keep_those_that_tell_most():
    rng, n = np.random.default_rng(1), 30
    model = FactorAnalysis(np.zeros(n), rng.normal(size=(n, 3)), np.ones(n), np.full(n, np.inf))
    shape: dict = {"bins": (5, 8), "parts": (5, 4)}
    z = rng.normal(size=(200, 5, n))
    whole, few = (
        np.einsum("bpn,npk,mfk->bfm", z, *forecast_maps(model, 0.9 * np.eye(3), **shape, directions=d)[:2])
        for d in (15, 3)
    )
    assert ((whole - few) ** 2).sum() < 0.01 * (whole**2).sum()
    assert forecast_maps(model, 0.9 * np.eye(3), bins=(2, 2), parts=(2, 4), directions=9)[1].shape == (n, 4, 9)


def test_no_factors_say_nothing():
    model = FactorAnalysis(np.zeros(4), np.zeros((4, 0)), np.ones(4), np.full(4, 9.0))
    maps = forecast_maps(model, np.zeros((0, 0)), bins=(5, 8), parts=(5, 4), directions=2)
    assert [x.shape for x in maps] == [(4, 5, 2), (4, 4, 2), (4, 4)] and not any(x.any() for x in maps)
