"""Weights of similarities: against logistic regression, and where there is nothing to find."""

import numpy as np
import pytest

from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.similarity_weights import fit_similarity_weights


def test_two_candidates_are_a_logistic_regression():
    """With two candidates the model is logistic regression on the difference of similarities, without intercept."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(400, 2, 2))
    logits = (similarities[:, 1] - similarities[:, 0]) @ [1.5, 0.5]
    own = (rng.random(400) < 1 / (1 + np.exp(-logits))).astype(int)
    found = fit_similarity_weights([similarities], [own])
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    coefficients = reference.fit(similarities[:, 1] - similarities[:, 0], own).coef_[0]
    np.testing.assert_allclose(found.weights / found.temperature, coefficients, rtol=1e-3)
    assert found.weights.sum() == pytest.approx(1)


def test_a_misleading_similarity_gets_no_weight_and_sets_of_any_size_add_up():
    rng = np.random.default_rng(1)
    sets, own = [], []
    for n in (20, 35):
        own.append(np.arange(n))
        good = 0.6 * np.eye(n) + 0.3 * rng.normal(size=(n, n))
        bad = -0.6 * np.eye(n) + 0.3 * rng.normal(size=(n, n))
        sets.append(np.stack([good, bad, 0.3 * rng.normal(size=(n, n))], -1))
    found = fit_similarity_weights(sets, own)
    assert found.weights[1] == 0 and found.weights[0] > 0.8
    assert found.loss < np.log(20)


def test_similarities_that_tell_nothing_weigh_alike():
    found = fit_similarity_weights([np.zeros((4, 5, 2))], [np.arange(4)])
    np.testing.assert_allclose(found.weights, [0.5, 0.5])
    assert found.loss == pytest.approx(np.log(5))
    with pytest.raises(InputError, match="at least one query"):
        fit_similarity_weights([np.zeros((0, 3, 2))], [np.arange(0)])
