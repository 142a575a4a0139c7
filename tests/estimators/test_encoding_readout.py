"""Codes read through an encoding model: against the formula, calibrated, right for averages, and what it refuses."""

import numpy as np
import pytest

from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.encoding_readout import EncodingReadout

K, N, REPEATS = 6, 40, 20


def animal(rng, images, noise=2.0, misfit=0.3):
    """Codes, single presentations, and averages over repeats, of a linear animal with shared trial noise."""
    weights = np.random.default_rng(1).normal(size=(K, N)) / np.sqrt(K)
    shared = np.random.default_rng(2).normal(size=(4, N)) * 0.5
    codes = rng.normal(size=(images, K))
    lasting = codes @ weights + misfit * rng.normal(size=(images, N))
    trials = noise * (rng.normal(size=(REPEATS, images, N)) + rng.normal(size=(REPEATS, images, 4)) @ shared)
    return codes, lasting + trials


def fit(rng, n=1500, **settings):
    codes, trials = animal(rng, n)
    _, repeated = animal(rng, 60)
    repeats = repeated.reshape(-1, N), np.tile(np.arange(60), REPEATS)
    return EncodingReadout.fit(trials[0], codes, np.ones(K), repeats=repeats, **settings)


def test_it_is_bayes_rule_for_a_linear_gaussian_model():
    readout = fit(np.random.default_rng(0))
    codes, trials = animal(np.random.default_rng(5), 50)
    mean, information = readout.posterior(trials.mean(0), presentations=REPEATS)
    lasting = readout.residual - readout.noise
    values, vectors = np.linalg.eigh(lasting)
    covariance = (vectors * values.clip(1e-3 * values.max())) @ vectors.T + readout.noise / REPEATS
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    joint = readout.weights.T @ readout.weights + covariance  # of responses; codes have a standard normal prior
    expected = readout.inputs(trials.mean(0)) @ np.linalg.solve(joint, readout.weights.T) + readout.code_mean
    np.testing.assert_allclose(mean, expected, rtol=1e-8, atol=1e-8)
    assert np.linalg.eigvalsh(information).min() >= -1e-9


@pytest.mark.parametrize("presentations", [1, REPEATS])
def test_it_is_at_least_as_precise_as_it_claims(presentations):
    readout = fit(np.random.default_rng(0))
    codes, trials = animal(np.random.default_rng(5), 3000)
    mean, information = readout.posterior(trials[:presentations].mean(0), presentations=presentations)
    error = ((mean - codes) ** 2).mean()
    claim = np.diag(np.linalg.inv(np.eye(K) + information)).mean()  # shrinkage makes it careful
    assert 0.6 * claim < error < 1.1 * claim < 0.7


def test_averages_are_read_better_than_by_a_regression_on_single_presentations():
    rng = np.random.default_rng(0)
    codes, trials = animal(rng, 300)
    readout = fit(np.random.default_rng(0), n=300)
    weights = np.linalg.solve(trials[0].T @ trials[0] + 300 * np.eye(N), trials[0].T @ codes)
    codes, trials = animal(np.random.default_rng(5), 1000)
    mean, _ = readout.posterior(trials.mean(0), presentations=REPEATS)
    assert ((mean - codes) ** 2).mean() < 0.8 * ((trials.mean(0) @ weights - codes) ** 2).mean()


def test_absent_values_units_and_dead_channels_do_no_harm():
    codes, trials = animal(np.random.default_rng(0), 400)
    responses = trials[0]
    responses[5, 3] = np.nan
    responses[:, 7] = np.nan
    responses[:, 8] = 1e6
    responses[:, 9] *= 1e-4
    mean, information = EncodingReadout.fit(responses, codes, np.ones(K)).posterior(responses)
    assert np.isfinite(mean).all() and np.isfinite(information).all()
    assert np.corrcoef(mean.ravel(), codes.ravel())[0, 1] > 0.5


def test_codes_of_little_variance_are_shrunken_most():
    codes, trials = animal(np.random.default_rng(0), 100)
    plain = EncodingReadout.fit(trials[0], codes, np.ones(K), penalties=[50.0])
    skewed = EncodingReadout.fit(trials[0], codes, 10.0 ** -np.arange(K), penalties=[50.0])
    ratio = np.linalg.norm(skewed.weights, axis=1) / np.linalg.norm(plain.weights, axis=1)
    assert (np.diff(ratio) < 0).all()


def test_what_does_not_fit_is_refused():
    codes, trials = animal(np.random.default_rng(0), 20)
    with pytest.raises(InputError, match="variance"):
        EncodingReadout.fit(trials[0], codes, np.ones(K + 1))
    with pytest.raises(InputError, match="at least 8"):
        EncodingReadout.fit(trials[0, :5], codes[:5], np.ones(K))
    with pytest.raises(InputError, match="more than once"):
        EncodingReadout.fit(trials[0], codes, np.ones(K), repeats=(trials[0], np.arange(20)))
