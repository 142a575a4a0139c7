"""Factors at two time scales find drifts that factor analysis of bins passes over."""

import numpy as np
import pytest
import torch

from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis, choose_factor_analysis
from neurobridge_tb.estimators.factor_dynamics import LARGEST, fit_dynamics
from neurobridge_tb.estimators.window_factors import fit_window_factors, window_factors_to_forecast
from neurobridge_tb.nn.factor_dynamics import smooth

WINDOWS, BINS, UNITS = 150, 8, 40
LENGTHS = [BINS] * WINDOWS
NUMBERS = (1, 2, 4, 8)


def drifting(seed=0, drift=0.15):
    """Two factors that stay within a window and two that change each bin, standardised; and units' own variances."""
    rng = np.random.default_rng(seed)
    slow = np.repeat(rng.normal(size=(WINDOWS, 2)), BINS, axis=0) @ rng.normal(size=(2, UNITS)) * drift
    fast = rng.normal(size=(WINDOWS * BINS, 2)) @ rng.normal(size=(2, UNITS)) * 0.15
    x = slow + fast + rng.normal(size=fast.shape)
    return (x - x.mean(0)) / x.std(0), 1 / x.var(0)


def error_of_hidden(model: FactorAnalysis, dynamics, x, hidden=10):
    """Mean squared error of the first units, smoothed over windows of the last third."""
    seen = np.arange(UNITS) >= hidden
    windows = x[-(WINDOWS // 3) * BINS :]
    weighted = model.loadings[seen] / model.noise[seen, None]
    k = model.loadings.shape[1]
    information = torch.from_numpy(windows[:, seen] @ weighted).view(-1, BINS, k)
    precision = torch.from_numpy(model.loadings[seen].T @ weighted).expand(*information.shape, k)
    dynamics = torch.from_numpy(dynamics).expand(len(information), k, k)
    mean, _ = smooth(information, precision, lambda z: (precision @ z[..., None])[..., 0], dynamics)
    return float(((mean.view(-1, k).numpy() @ model.loadings[:hidden].T - windows[:, :hidden]) ** 2).mean())


def test_drifts_are_found_that_bins_alone_do_not_show():
    x, noise = drifting()
    fitted = x[: -(WINDOWS // 3) * BINS]
    lengths = LENGTHS[: len(fitted) // BINS]
    model, dynamics, errors = fit_window_factors(fitted, lengths, numbers=NUMBERS)
    of_bins, _ = choose_factor_analysis(fitted, numbers=NUMBERS)
    alone = error_of_hidden(of_bins, fit_dynamics(of_bins, fitted, lengths), x)
    least = noise[:10].mean()  # of a prediction that knows the factors
    assert least < error_of_hidden(model, dynamics, x) < least + 0.85 * (alone - least)
    assert set(errors) == {"8", "window means, 0", "window means, 8"}
    variance = (model.loadings**2).sum(1) + model.noise
    np.testing.assert_allclose(variance, fitted.var(0))  # own variance is what factors leave
    assert np.linalg.norm(dynamics, 2) < 1


def test_without_drifts_and_in_windows_of_one_bin_they_are_factors_of_bins():
    x, _ = drifting(drift=0)
    of_bins, _ = choose_factor_analysis(x, numbers=NUMBERS)
    for lengths in ([1] * len(x), [len(x)]):
        model, dynamics, errors = fit_window_factors(x, lengths, numbers=NUMBERS)
        np.testing.assert_array_equal(model.loadings, of_bins.loadings)
        assert dynamics.shape == (model.loadings.shape[1],) * 2 and not any("window" in name for name in errors)


@pytest.mark.parametrize("most", [1, 3])
def test_at_most_so_many_factors_in_all(most):
    model, dynamics, _ = fit_window_factors(drifting()[0], LENGTHS, numbers=tuple(range(1, most + 1)))
    assert model.loadings.shape == (UNITS, most) and dynamics.shape == (most, most)


def test_what_is_absent_is_left_out_and_silent_units_have_no_part():
    x, _ = drifting()
    x[:, 3], x[:, 4] = -1e-3, np.nan  # a silent unit, around a mean that half a spike was added to
    x[: 20 * BINS, 5:9] = np.nan
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    lengths = [BINS + 3, BINS - 3, *LENGTHS[2:]]
    model, dynamics, _ = fit_window_factors(x, lengths, numbers=NUMBERS)
    assert np.isfinite(model.loadings).all() and np.isfinite(dynamics).all() and (model.noise > 0).all()
    assert np.abs(model.loadings[[3, 4]]).max() < 1e-4 and model.noise[[3, 4]] == pytest.approx(1)


def test_to_forecast_more_are_kept_and_those_that_nothing_supports_are_small():
    x, _ = drifting(drift=0.5)
    model, dynamics = window_factors_to_forecast(x, LENGTHS, slow=8, fast=8)
    is_slow = np.isclose(np.diag(dynamics), LARGEST)
    assert is_slow.sum() > 2 and is_slow[: is_slow.sum()].all() and not dynamics[is_slow][:, ~is_slow].any()
    strength = (model.loadings[:, is_slow] ** 2).sum(0)
    assert strength[2:].sum() < 0.1 * strength[:2].sum()
    chosen = fit_window_factors(x, LENGTHS, numbers=(1, 2))[0].loadings[:, :2]
    basis = np.linalg.qr(model.loadings[:, :2])[0]
    assert np.linalg.norm(basis.T @ chosen) > 0.98 * np.linalg.norm(chosen)  # the first ones are the same


@pytest.mark.parametrize("windows, bins", [(1, 8), (9, 1), (9, 8), (40, 1)])
def test_to_forecast_from_few_bins_or_one_a_window_there_are_no_slow_factors(windows, bins):
    x = drifting()[0][: windows * bins]
    model, dynamics = window_factors_to_forecast(x, [bins] * windows, slow=8, fast=8)
    k = model.loadings.shape[1]
    assert dynamics.shape == (k, k) and k <= (8 if windows * bins >= 10 else 0)
    assert np.isfinite(model.loadings).all() and (model.noise > 0).all()


def test_no_bin_is_an_error():
    nothing = np.zeros((0, 3))
    with pytest.raises(InputError, match="at least one bin"):
        fit_window_factors(nothing, [], numbers=(1,))
    with pytest.raises(InputError, match="at least one bin"):
        window_factors_to_forecast(nothing, [], slow=1, fast=1)
