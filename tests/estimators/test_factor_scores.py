"""Factor scores: what units share is kept and evened out, what is each unit's own is not."""

import numpy as np
import pytest

from neurobridge_tb.estimators.factor_scores import FactorScores
from neurobridge_tb.estimators.ridge import fit_ridge

N, UNITS, FACTORS = 4000, 60, 5
LOADING = np.array([4.0, 2.0, 1.0, 1.0, 1.0])  # deviations of the factors


@pytest.fixture(scope="module")
def world():
    """Factors of unequal size, and what units of unequal noise answer to them."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N, FACTORS))
    mixing = rng.normal(size=(FACTORS, UNITS)) * LOADING[:, None]
    own = rng.normal(size=(N, UNITS)) * rng.uniform(1, 6, UNITS)
    return factors, factors @ mixing + own


def explained(scores, factors):
    """Share of the variance of each factor that is linear in the scores."""
    fitted = scores @ np.linalg.lstsq(scores, factors, rcond=None)[0]
    return 1 - ((factors - fitted) ** 2).mean(0) / factors.var(0)


def test_scores_hold_the_factors_and_little_else(world):
    factors, x = world
    scores = FactorScores.fit(x)(x)
    assert (explained(scores, factors) > 0.7).all()
    spread = np.sort(scores.var(0))[::-1]
    assert spread[FACTORS - 1] > 0.6 and spread[FACTORS:].sum() < 0.25 * spread[:FACTORS].sum()


def test_factors_of_unequal_size_have_scores_of_equal_size(world):
    _, x = world
    principal = np.linalg.svd((x - x.mean(0)) / x.std(0), full_matrices=False)[1][:FACTORS]
    spread = np.sort(FactorScores.fit(x)(x).std(0))[::-1][:FACTORS]
    assert principal[0] / principal[-1] > 1.8 > 1.3 > spread[0] / spread[-1]


def test_from_few_pairs_ridge_on_scores_of_all_responses_is_better(world):
    """What is to be decoded lies in the small factors."""
    factors, x = world
    y, few, valid = factors[:, 2:], np.arange(20), np.arange(100, 1000)
    scores = FactorScores.fit(x)(x)
    errors = {}
    for name, inputs, standardize in (("responses", x, True), ("scores", scores, False)):
        fit = fit_ridge(inputs[few], y[few], inputs[valid], y[valid], standardize=standardize)
        errors[name] = ((fit.predict(inputs[1000:]) - y[1000:]) ** 2).mean()
    assert errors["scores"] < 0.8 * errors["responses"]


def test_units_of_any_scale_offset_and_absent_values(world):
    _, x = world
    scores = FactorScores.fit(x)(x)
    other = FactorScores.fit(100 * x + 7)(100 * x + 7)
    np.testing.assert_allclose(np.abs(scores), np.abs(other), atol=1e-6)
    holes = np.where(np.random.default_rng(1).random(x.shape) < 0.02, np.nan, x)
    holes[:, 3] = np.nan  # a dead unit
    assert np.isfinite(FactorScores.fit(holes)(holes)).all()


def test_units_that_share_nothing_have_scores_near_zero():
    x = np.random.default_rng(0).normal(size=(20_000, 8))
    assert FactorScores.fit(x)(x).var(0).sum() < 0.3
