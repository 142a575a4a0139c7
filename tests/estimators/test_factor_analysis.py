from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import FactorAnalysis as Sklearn

from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.factor_analysis import (
    FactorAnalysis,
    choose_factor_analysis,
    fit_factor_analysis,
)
from neurobridge_tb.estimators.factor_dynamics import fit_dynamics


def simulated(n=1500, units=14, factors=3, seed=0):
    rng = np.random.default_rng(seed)
    loadings, noise = rng.normal(size=(units, factors)), rng.uniform(0.5, 2.0, units)
    x = rng.normal(size=(n, factors)) @ loadings.T + rng.normal(size=(n, units)) * noise**0.5
    return 3.0 + 2.0 * x, FactorAnalysis(np.full(units, 3.0), 2.0 * loadings, 4.0 * noise, np.full(units, np.inf))


def covariance(model):
    return model.loadings @ model.loadings.T + np.diag(model.noise)


def log_likelihood(model, x):
    c = covariance(model)
    centred = x - model.mean
    return -0.5 * (np.linalg.slogdet(2 * np.pi * c)[1] + (centred * np.linalg.solve(c, centred.T).T).sum(1)).mean()


def test_predictions_are_gaussian_conditioning_for_any_mask():
    x, model = simulated(n=20)
    keep = np.random.default_rng(1).random(x.shape) < 0.6
    keep[3] = False
    x[5, 2] = np.nan
    filled, c = model.predict(x, keep), covariance(model)
    for row, kept, values in zip(filled, keep & ~np.isnan(x), x, strict=True):
        expected = np.where(kept, values, model.mean)
        if kept.any():
            weights = np.linalg.solve(c[np.ix_(kept, kept)], c[np.ix_(kept, ~kept)])
            expected[~kept] = model.mean[~kept] + (values - model.mean)[kept] @ weights
        np.testing.assert_allclose(row, expected, rtol=1e-10)
    mean, variance = model.posterior(x, keep)
    assert (mean[3] == 0).all() and (variance[3] == 1).all() and (variance[:3] < 1).all()


def test_complete_activity_is_fitted_as_well_as_by_scikit_learn():
    x, _ = simulated()
    ours = fit_factor_analysis(x, factors=3)
    theirs = Sklearn(n_components=3, tol=1e-8, max_iter=5000).fit(x)
    assert log_likelihood(ours, x) > theirs.score(x) - 5e-4  # nats a bin
    error = covariance(ours) - theirs.get_covariance()
    assert np.abs(error).max() < 0.02 * np.abs(theirs.get_covariance()).max()


def test_gaps_are_left_out_exactly():
    x, truth = simulated(n=3000)
    unseen = np.column_stack([x, np.full(len(x), np.nan)])
    with_unseen, without = fit_factor_analysis(unseen, factors=3), fit_factor_analysis(x, factors=3)
    np.testing.assert_allclose(covariance(with_unseen)[:-1, :-1], covariance(without), rtol=1e-6, atol=1e-6)
    assert (with_unseen.loadings[-1] == 0).all()

    rng = np.random.default_rng(2)
    patterns = rng.random((40, x.shape[1])) < 0.5  # half of all values are missing
    gaps = np.where(patterns[rng.integers(0, 40, len(x))], np.nan, x)
    scale = np.sqrt(np.diag(covariance(truth)))
    error = np.abs((covariance(fit_factor_analysis(gaps, factors=3)) - covariance(truth)) / np.outer(scale, scale))
    assert error.max() < 0.12  # filled with means, correlations would lose half of their size


def test_rare_gaps_change_little():
    x, _ = simulated(n=3000)
    rng = np.random.default_rng(3)
    gaps = np.where(rng.random(x.shape) < 0.005, np.nan, x)
    expected = covariance(fit_factor_analysis(x, factors=3))
    assert np.abs(covariance(fit_factor_analysis(gaps, factors=3)) - expected).max() < 0.01 * expected.max()


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_units_does_not_matter(order):
    x, _ = simulated(n=300)
    one, other = fit_factor_analysis(x, factors=2), fit_factor_analysis(x[:, ::order], factors=2)
    np.testing.assert_allclose(covariance(one), covariance(other)[::order, ::order], rtol=1e-6, atol=1e-6)


def test_the_number_of_factors_is_chosen_by_hidden_units():
    x, _ = simulated(units=30)
    model, errors = choose_factor_analysis(x, numbers=(1, 2, 3, 6, 10))
    assert model.loadings.shape == (30, 3) and 0.9997 * errors[3] <= min(errors.values())
    independent, _ = choose_factor_analysis(np.random.default_rng(0).normal(size=(2000, 20)))
    assert (independent.loadings**2).sum() < 0.02 * 20


@pytest.mark.parametrize("n", [10, 13, 16, 19])
def test_few_bins_hold_some_out_too(n):
    model, errors = choose_factor_analysis(simulated(n=n)[0], numbers=(1, 2))
    assert errors and all(np.isfinite(error) for error in errors.values())
    assert np.isfinite(model.loadings).all()


def test_weak_factors_shrink():
    x, truth = simulated(n=60, units=40, factors=3)
    fitted = fit_factor_analysis(x, factors=20)
    rng = np.random.default_rng(5)
    test = rng.normal(size=(500, 3)) @ truth.loadings.T + rng.normal(size=(500, 40)) * truth.noise**0.5 + truth.mean
    keep = np.broadcast_to(rng.random(40) < 0.5, test.shape)

    def error(predicted):
        return ((predicted - test)[~keep] ** 2).mean()

    theirs = Sklearn(n_components=10, max_iter=5000).fit(x)
    likely = FactorAnalysis(theirs.mean_, theirs.components_.T, theirs.noise_variance_, np.full(40, np.inf))
    best = error(truth.predict(test, keep))
    assert error(fitted.predict(test, keep)) - best < 0.5 * (error(likely.predict(test, keep)) - best)


@pytest.mark.filterwarnings("error")
def test_degenerate_activity_predicts_the_mean():
    x, _ = simulated(n=200)
    x[:, 0], x[:, 1] = 7.0, np.nan
    model, _ = choose_factor_analysis(x)
    assert (model.loadings[:2] == 0).all() and (model.noise > 0).all()
    filled = model.predict(x, np.zeros(x.shape, dtype=bool))
    assert np.isfinite(filled).all() and filled[0, 0] == 7.0 and filled[0, 1] == 0.0
    for few in (x[:1], x[:3], x[:, 2:3]):
        model, _ = choose_factor_analysis(few)
        assert model.loadings.shape[1] <= 2 and np.isfinite(model.predict(few, np.zeros(few.shape, dtype=bool))).all()
        assert fit_factor_analysis(few, factors=8).loadings.shape[1] < max(2, len(few))


def test_infinite_or_no_activity_is_refused():
    with pytest.raises(InputError, match="infinite"):
        fit_factor_analysis(np.array([[1.0, np.inf]]), factors=1)
    with pytest.raises(InputError, match="at least one bin"):
        choose_factor_analysis(np.zeros((0, 4)))


def test_dynamics_are_found_within_windows_alone():
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    truth = turned * [0.9, 0.6, 0.0]
    root = np.linalg.cholesky(np.eye(3) - truth @ truth.T)
    z = [rng.normal(size=(400, 3))]
    for _ in range(9):
        z.append(z[-1] @ truth.T + rng.normal(size=(400, 3)) @ root.T)
    loadings, noise = rng.normal(size=(60, 3)), np.full(60, 0.3)
    x = np.stack(z, axis=1).reshape(-1, 3) @ loadings.T + rng.normal(size=(4000, 60)) * noise**0.5
    model = FactorAnalysis(np.zeros(60), loadings, noise, np.full(60, np.inf))
    np.testing.assert_allclose(fit_dynamics(model, x, [10] * 400), truth, atol=0.06)
    unused = replace(model, loadings=np.pad(loadings, ((0, 0), (0, 1))))
    found = fit_dynamics(unused, np.where(rng.random(x.shape) < 0.1, np.nan, x), [10] * 400)
    assert (found[3] == 0).all() and (found[:, 3] == 0).all()
    np.testing.assert_allclose(found[:3, :3], truth, atol=0.06)
    assert (fit_dynamics(model, x, [1] * 4000) == 0).all()  # windows of one bin
    slow = fit_dynamics(model, np.repeat(x[:40], 10, axis=0), [10] * 40)
    assert np.linalg.svd(slow)[1].max() <= 0.98 + 1e-12
