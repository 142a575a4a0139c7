"""Baselines: masked ridge against an explicit regression, Poisson GLM on a known model, lags, shuffles."""

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor

from neurobridge_tb.arrays import RowBlocks
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators import poisson_glm
from neurobridge_tb.estimators.controls import mean_image, shuffled
from neurobridge_tb.estimators.masked_ridge import fit_masked_ridge
from neurobridge_tb.estimators.mlp import fit_mlp
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm, lagged
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.metrics.spikes import bits_per_spike, masked_mse, posterior_mean

PARTS = [(0, 200), (200, 300), (300, 400)]


@pytest.fixture
def activity():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 20))
    values = 5 + 2 * (rng.normal(size=(600, 4)) @ mix + 0.5 * rng.normal(size=(600, 20)))
    return values[:400], values[400:500], values[500:]


@pytest.mark.parametrize("n_kept", [5, 15])
def test_masked_ridge_is_ridge_from_kept_to_removed_units(activity, n_kept):
    train, valid, test = activity
    keep = np.zeros(test.shape, bool)
    keep[:, :n_kept] = True
    filled = fit_masked_ridge(train, valid, keep, ~keep, penalties=[0.1]).predict(test, keep)
    std = train.std(0)
    explicit = fit_ridge(
        train[:, :n_kept], train[:, n_kept:] / std[n_kept:], valid[:, :n_kept],
        valid[:, n_kept:] / std[n_kept:], penalties=[0.1 * len(train)],
    )  # fmt: skip
    np.testing.assert_allclose(filled[:, n_kept:], explicit.predict(test[:, :n_kept]) * std[n_kept:], atol=1e-6)
    np.testing.assert_array_equal(filled[:, :n_kept], test[:, :n_kept])


def test_masked_ridge_takes_any_mask_and_beats_the_mean(activity):
    train, valid, test = activity
    rng = np.random.default_rng(1)
    keep, keep_valid = rng.random(test.shape) < 0.7, rng.random(valid.shape) < 0.7
    keep[0] = False
    ridge = fit_masked_ridge(train, valid, keep_valid, ~keep_valid)
    filled = ridge.predict(test, keep)
    assert masked_mse(filled, test, ~keep) < 0.35 * test.var(0).mean()
    np.testing.assert_allclose(filled[0], train.mean(0))
    gaps = test.copy()
    gaps[1, 2] = np.nan  # a missing value is as good as a masked one
    without = keep.copy()
    without[1, 2] = False
    np.testing.assert_allclose(ridge.predict(gaps, keep)[1], ridge.predict(test, without)[1])


def test_poisson_glm_of_inputs_that_come_some_rows_at_a_time_is_the_same(monkeypatch):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 6))
    counts = rng.poisson(np.exp(0.2 + x @ rng.normal(scale=0.4, size=(6, 3))))
    whole = fit_poisson_glm(x[:200], counts[:200], x[200:300], counts[200:300], x[300:])
    monkeypatch.setattr(poisson_glm, "_MOST_VALUES", 0)  # nothing is kept along the axes
    blocks = [RowBlocks([lambda k=k: x[k : k + 50] for k in range(a, b, 50)], (b - a, 6)) for a, b in PARTS]
    parts = fit_poisson_glm(blocks[0], counts[:200], blocks[1], counts[200:300], blocks[2])
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_poisson_glm_recovers_a_poisson_model():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 5))
    rates = np.exp(0.3 + x @ rng.normal(scale=0.4, size=(5, 2)))
    counts = rng.poisson(rates)
    predicted = fit_poisson_glm(x[:2000], counts[:2000], x[2000:2500], counts[2000:2500], x[2500:])
    null = counts[:2000].mean(0)
    reached = bits_per_spike(predicted, counts[2500:], null).spike_weighted
    assert reached == pytest.approx(bits_per_spike(rates[2500:], counts[2500:], null).spike_weighted, abs=0.01)


@pytest.mark.parametrize("n_features", [8, 120])
@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_poisson_glm_is_scikit_learns(n_features, penalty):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, n_features)) @ rng.normal(size=(n_features, n_features))
    counts = rng.poisson(np.exp(0.05 * x[:, :3]))
    rates = fit_poisson_glm(x[:80], counts[:80], x[80:120], counts[80:120], x[120:], penalties=[penalty])
    mean, std = x[:80].mean(0), x[:80].std(0)
    for unit in range(3):
        observed = counts[:80, unit] + 0.5 / 80  # half a spike, spread
        theirs = PoissonRegressor(alpha=penalty, tol=1e-8, max_iter=5000).fit((x[:80] - mean) / std, observed)
        expected = np.minimum(theirs.predict((x[120:] - mean) / std), counts[:80, unit].max())
        np.testing.assert_allclose(rates[:, unit], expected, rtol=2e-2)


def test_poisson_glm_takes_each_units_best_penalty():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6))
    rates = np.exp(np.column_stack([0.5 * x[:, 0], 0.0 * x[:, 0]]))  # one unit depends on the inputs, one does not
    splits = [(part, rng.poisson(rates[rows])) for rows in (slice(0, 100), slice(100, 300)) for part in [x[rows]]]
    arguments = (*splits[0], *splits[1], x[300:])
    weak, strong = (fit_poisson_glm(*arguments, penalties=[a]) for a in (1e-1, 1e2))
    chosen = fit_poisson_glm(*arguments, penalties=[1e-1, 1e2])
    np.testing.assert_allclose(chosen, np.column_stack([weak[:, 0], strong[:, 1]]), rtol=1e-2)


def test_poisson_glm_does_not_extrapolate_beyond_the_largest_training_count():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    counts = rng.poisson(np.exp(x[:, :1]))
    far = np.array([[50.0, 0.0], [-50.0, 0.0]])
    rates = fit_poisson_glm(x[:200], counts[:200], x[200:], counts[200:], far)
    assert rates[0, 0] == pytest.approx(counts[:200].max()) and rates[1, 0] < 1e-4


def test_poisson_glm_leaves_absent_counts_out():
    """Each unit as if it were fitted to the bins in which it has a count."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4))
    counts = rng.poisson(np.exp(0.7 * x[:, :3])).astype(float)
    counts[:60, 0] = counts[200:220, 0] = counts[:, 2] = np.nan
    penalties = [1e-2, 1.0]
    rates = fit_poisson_glm(x[:200], counts[:200], x[200:250], counts[200:250], x[250:], penalties=penalties)
    for unit, least, valid in ((0, 60, 220), (1, 0, 200)):
        some = counts[least:200, [unit]], x[valid:250], counts[valid:250, [unit]], x[250:]
        alone = fit_poisson_glm(x[least:200], *some, penalties=penalties)
        np.testing.assert_allclose(rates[:, [unit]], alone, rtol=0.05)
    assert np.isfinite(rates).all()


@pytest.mark.parametrize("span", [30, 400])
def test_poisson_glm_of_a_silent_unit_is_the_null_model(span):
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(60, 4)), np.zeros((60, 1))
    prior = None if span == 30 else np.array([0.5 / span])
    rates = fit_poisson_glm(x[:30], counts[:30], x[30:45], counts[30:45], x[45:], prior=prior)
    np.testing.assert_allclose(rates, posterior_mean([0], span)[0], rtol=1e-3)


def test_lags_stop_at_trial_starts():
    values = np.arange(6.0)[:, None]
    nan = np.nan
    expected = [[nan, 0, 1], [0, 1, 2], [1, 2, nan], [nan, 3, 4], [3, 4, 5], [4, 5, nan]]
    np.testing.assert_array_equal(lagged(values, [-1, 0, 1], starts=np.array([0, 3])), expected)
    np.testing.assert_array_equal(lagged(values, [-9])[:, 0], np.full(6, nan))


def test_shuffle_moves_every_row_and_is_seeded():
    rows = np.arange(50)
    for seed in range(5):
        order = shuffled(rows, seed=seed)
        assert (order != rows).all() and sorted(order) == list(rows)
        np.testing.assert_array_equal(order, shuffled(rows, seed=seed))
    with pytest.raises(InputError, match="two rows"):
        shuffled(rows[:1])


def test_mean_image():
    images = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    mean = mean_image(images, 3)
    assert mean.shape == (3, 2, 2, 3) and mean.dtype == np.uint8 and (mean == 128).all()


def test_mlp_learns_what_ridge_cannot_and_is_seeded():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 3))
    y = np.c_[np.abs(x[:, 0]), x[:, 1] * x[:, 2]] * 5 + 2
    split = (x[:1000], y[:1000], x[1000:1200], y[1000:1200])
    settings = {"hidden": 64, "dropout": 0.0, "learning_rate": 1e-2}
    mlp = fit_mlp(*split, **settings)
    error = ((mlp.predict(x[1200:]) - y[1200:]) ** 2).mean()
    assert error < 0.3 * ((fit_ridge(*split).predict(x[1200:]) - y[1200:]) ** 2).mean()
    again = fit_mlp(*split, **settings).predict(x[1200:])
    np.testing.assert_array_equal(mlp.predict(x[1200:]), again)
