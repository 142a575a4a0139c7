"""Ridge: the same solution as scikit-learn on both sides of n = p, the validation's penalty, gaps and dead inputs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from neurobridge_tb.arrays import RowBlocks, Standardizer
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import RidgePath, fit_ridge


@pytest.mark.parametrize("shape", [(80, 10), (20, 60)])
def test_matches_sklearn(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, size=shape), rng.normal(size=(shape[0], 4))
    test = rng.normal(3, 2, size=(7, shape[1]))
    ours = fit_ridge(x, y, test, np.zeros((7, 4)), penalties=[5.0])
    scaler = StandardScaler().fit(x)
    theirs = SklearnRidge(alpha=5.0).fit(scaler.transform(x), y).predict(scaler.transform(test))
    np.testing.assert_allclose(ours.predict(torch.tensor(test)), theirs, atol=1e-8)


def test_penalty_is_the_validation_sets_best():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(60, 40)), rng.normal(size=(40, 3))
    y = x @ weights + 10 * rng.normal(size=(60, 3))
    x_valid = rng.normal(size=(200, 40))
    y_valid = x_valid @ weights
    grid = [0.01, 1.0, 100.0, 1e4]
    errors = [((fit_ridge(x, y, x_valid, y_valid, penalties=[a]).predict(x_valid) - y_valid) ** 2).mean() for a in grid]
    assert fit_ridge(x, y, x_valid, y_valid, penalties=grid).penalty == grid[int(np.argmin(errors))]


def test_gaps_count_as_the_training_mean_and_dead_inputs_do_no_harm():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 5)), rng.normal(size=(50, 2))
    x[:, 3] = 7.0
    x[:, 4] = np.nan
    ridge = fit_ridge(x, y, x, y)
    gap = x.copy()
    gap[:, 0] = np.nan
    filled = x.copy()
    filled[:, 0] = x[:, 0].mean()
    np.testing.assert_allclose(ridge.predict(gap), ridge.predict(filled))
    assert np.isfinite(ridge.predict(x)).all()


def test_standardizer_uses_training_statistics_only():
    x = np.array([[0.0, np.nan], [2.0, 4.0]])
    standardizer = Standardizer.fit(x)
    np.testing.assert_allclose(standardizer(np.array([[3.0, np.nan]])), [[2.0, 0.0]])


def test_constant_inputs_predict_the_mean():
    x, y = np.ones((10, 3)), np.arange(20.0).reshape(10, 2)
    np.testing.assert_allclose(fit_ridge(x, y, x, y).predict(x[:1]), y.mean(0, keepdims=True))


def test_faults_are_named():
    x, y = np.ones((5, 2)), np.ones((5, 1))
    with pytest.raises(InputError, match="column"):
        fit_ridge(x, y[:, 0], x, y[:, 0])
    with pytest.raises(InputError, match="widths"):
        fit_ridge(x, y, np.ones((5, 3)), y)
    with pytest.raises(InputError, match="finite targets"):
        fit_ridge(x, y * np.nan, x, y)


def test_inputs_that_come_some_rows_at_a_time_give_the_same_regression_and_one_decomposition_serves_all_targets():
    rng = np.random.default_rng(3)
    x, y, x_valid, y_valid = (rng.normal(size=shape) for shape in ((70, 12), (70, 5), (30, 12), (30, 5)))
    x[4, 3] = np.nan
    whole = fit_ridge(x, y, x_valid, y_valid)
    parts = RowBlocks([lambda k=k: x[k : k + 16] for k in range(0, 70, 16)], x.shape)
    path = RidgePath.fit(parts, x_valid)
    for columns in (slice(0, 5), slice(2, 3)):
        ours = path.solve(y[:, columns], y_valid[:, columns], penalties=[whole.penalty])
        np.testing.assert_allclose(ours.predict(parts), whole.predict(x)[:, columns], atol=1e-9)


def test_leave_one_out_is_that_of_sklearn():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 3))
    y[:, 0] += 2 * x[:, 0]
    theirs = RidgeCV(alphas=[0.1, 10.0, 1000.0]).fit(x, y)
    ours = RidgePath.fit(x, x, standardize=False).leave_one_out(y, penalties=[0.1, 10.0, 1000.0])
    assert ours.penalty == theirs.alpha_
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-9)
