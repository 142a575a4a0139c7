"""Spike scores: hand-computed cases, independent implementations, batches, silent units."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from sklearn.metrics import d2_tweedie_score, r2_score

from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.spikes import (
    BitsPerSpike,
    bits_per_spike,
    masked_mse,
    poisson_d2,
    poisson_log_likelihood,
    posterior_mean,
    r2,
)


@pytest.fixture
def activity():
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 0.5, size=(50, 6))
    return rates, rng.poisson(rates).astype(float), rng.gamma(2.0, 0.5, size=6)


def test_log_likelihood_matches_scipy(activity):
    rates, counts, _ = activity
    full = poisson_log_likelihood(torch.tensor(rates), torch.tensor(counts), factorial=True)
    np.testing.assert_allclose(full, poisson.logpmf(counts, rates))
    np.testing.assert_allclose(poisson_log_likelihood(0.0, np.zeros(1)), 0.0, atol=1e-8)  # 0 log 0 = 0


def test_bits_per_spike_by_hand():
    # one unit, counts 2 and 0; model 2 and 0.5 a bin; null 1 a bin:
    # LL_model = 2 ln 2 - 2 - 0.5, LL_null = -2, so (2 ln 2 - 0.5) / (2 ln 2)
    score = bits_per_spike(np.array([[2.0], [0.5]]), np.array([[2], [0]]), np.array([1.0]))
    assert score.spike_weighted == pytest.approx(1 - 0.25 / np.log(2))
    assert score.unit_mean == pytest.approx(score.spike_weighted)
    assert (score.n_spikes, score.silent_units) == (2, 0)


def test_bits_per_spike_matches_the_benchmark_formula(activity):
    rates, counts, null = activity

    def negative_log_likelihood(r):  # Neural Latents Benchmark (Pei et al. 2021)
        return np.sum(r - counts * np.log(r))

    flat = np.tile(null, (50, 1))
    expected = (negative_log_likelihood(flat) - negative_log_likelihood(rates)) / counts.sum() / np.log(2)
    assert bits_per_spike(rates, counts, null).spike_weighted == pytest.approx(expected)


def test_null_model_scores_zero(activity):
    _, counts, null = activity
    score = bits_per_spike(np.tile(null, (50, 1)), counts, null)
    assert score.spike_weighted == pytest.approx(0) and score.unit_mean == pytest.approx(0)


def test_silent_units_are_left_out_of_the_mean_and_counted(activity):
    rates, counts, null = activity
    with_silent = np.c_[counts, np.zeros(50)]
    score = bits_per_spike(np.c_[rates, np.full(50, 0.1)], with_silent, np.r_[null, 0.2])
    alone = bits_per_spike(rates, counts, null)
    assert score.silent_units == 1 and np.isnan(score.per_unit[-1])
    assert score.unit_mean == pytest.approx(alone.unit_mean)
    assert score.spike_weighted > alone.spike_weighted  # it counts there: fewer false spikes than the null's


def test_batches_workers_masks_and_unit_order_do_not_matter(activity):
    rates, counts, null = activity
    mask = np.random.default_rng(1).random(counts.shape) < 0.5
    whole = bits_per_spike(rates, counts, null, mask=mask)
    first, second = BitsPerSpike(null), BitsPerSpike(torch.tensor(null))
    first.update(rates[:13], counts[:13], mask=mask[:13])
    first.update(torch.tensor(rates[13:20]), torch.tensor(counts[13:20]), mask=torch.tensor(mask[13:20]))
    order = np.random.default_rng(2).permutation(6)
    second.update(rates[20:, order], counts[20:, order], mask=mask[20:, order], units=order)
    first.merge(second)
    merged = first.compute()
    np.testing.assert_allclose(merged.per_unit, whole.per_unit)
    assert merged.spike_weighted == pytest.approx(whole.spike_weighted)
    hidden = counts.copy()
    hidden[~mask] = np.nan
    assert bits_per_spike(rates, hidden, null).spike_weighted == pytest.approx(whole.spike_weighted)


def test_units_of_a_padded_batch_are_gathered():
    null = np.array([1.0, 2.0, 3.0])
    rates, counts = np.full((2, 4, 2), 1.5), np.ones((2, 4, 2))
    gathered = BitsPerSpike(null)
    gathered.update(rates, counts, units=np.array([[[0, 2]], [[1, 1]]]), mask=np.array([[[1, 1]], [[1, 0]]]))
    one = bits_per_spike(np.full((4, 3), 1.5), np.ones((4, 3)), null)
    np.testing.assert_allclose(gathered.compute().per_unit, one.per_unit)


def test_half_a_spike_is_added_to_the_training_span():
    np.testing.assert_allclose(posterior_mean([0, 1, 400], 1000), [0.0005, 0.0015, 0.4005])


@pytest.mark.parametrize("training_spikes", [0, 1])
def test_what_a_unit_quiet_in_training_can_earn_is_bounded(training_spikes):
    counts = np.zeros((200, 1))
    counts[::10] = 1  # 20 spikes in 200 bins, after none or one in 1,000
    null = posterior_mean([training_spikes], 1000)
    best = np.full_like(counts, counts.mean())
    bound = np.log2(counts.mean() / null[0])
    assert bits_per_spike(best, counts, null).spike_weighted <= bound <= np.log2(2 * 20 * 1000 / 200)
    drifted = bits_per_spike(counts.clip(1e-12), counts, null)  # knows every spike
    assert drifted.spike_weighted < np.log2(1 / null[0])
    nothing = bits_per_spike(np.tile(null, (200, 1)), counts, null)
    assert nothing.spike_weighted == pytest.approx(0)


def test_rates_that_drift_are_earned_by_following_them():
    rng = np.random.default_rng(0)
    null = posterior_mean(rng.poisson(1.0, (500, 8)).sum(0), 500)
    counts = rng.poisson(2.0, (400, 8))  # twice the rate of the training
    gain_by_hand = np.log(2) - 0.5  # nats a spike: n log 2 - (2 - 1) for 2 spikes a bin
    score = bits_per_spike(np.full(counts.shape, 2.0), counts, null)
    assert score.spike_weighted == pytest.approx(gain_by_hand / np.log(2), abs=0.03)


def test_units_are_told_apart_by_their_training_spikes():
    rng = np.random.default_rng(0)
    trained = np.array([0, 1, 9, 10, 300])
    counts = rng.poisson(0.3, (100, 5))
    rates = np.full(counts.shape, 0.3)
    null = posterior_mean(trained, 1000)
    total = BitsPerSpike(null, trained)
    total.update(rates, counts)
    score = total.compute()
    for name, least in ((">= 1 training spike", 1), (">= 10 training spikes", 10)):
        some = trained >= least
        expected = bits_per_spike(rates[:, some], counts[:, some], null[some]).spike_weighted
        assert score.of_trained_units[name] == pytest.approx(expected)
    assert score.new_units == 1


def test_no_spike_at_all_is_nan():
    score = bits_per_spike(np.ones((3, 2)), np.zeros((3, 2)), np.ones(2))
    assert np.isnan(score.spike_weighted) and np.isnan(score.unit_mean) and score.silent_units == 2


def test_d2_matches_sklearn(activity):
    rates, counts, _ = activity
    null = np.full(6, counts.mean())
    expected = d2_tweedie_score(counts.ravel(), rates.ravel(), power=1)
    assert poisson_d2(rates, counts, null) == pytest.approx(expected)
    assert poisson_d2(counts, counts, null) == pytest.approx(1, abs=1e-6)


def test_r2_matches_sklearn_and_leaves_nan_targets_out():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 3))
    predicted = target + rng.normal(size=target.shape)
    np.testing.assert_allclose(r2(predicted, target), r2_score(target, predicted, multioutput="raw_values"))
    gap = target.copy()
    gap[5, 0] = np.nan
    expected = r2_score(np.delete(target[:, 0], 5), np.delete(predicted[:, 0], 5))
    assert r2(predicted, gap)[0] == pytest.approx(expected)
    assert np.isnan(r2(predicted[:, 0], np.ones(40)))
    predicted[3, 1] = np.nan  # a failed prediction must not vanish
    assert np.isnan(r2(predicted, target)[1])


def test_masked_mse_reads_masked_positions_only():
    target = np.array([[1.0, 2.0, np.nan], [0.0, 5.0, 1.0]])
    predicted = np.array([[2.0, np.nan, 0.0], [0.0, 2.0, np.nan]])
    mask = np.array([[True, False, True], [False, True, False]])
    assert masked_mse(predicted, target, mask) == pytest.approx((1 + 9) / 2)
    assert np.isnan(masked_mse(predicted, target, np.zeros_like(mask)))


def test_faults_are_named(activity):
    rates, counts, null = activity
    with pytest.raises(InputError, match="log_rates.exp"):
        bits_per_spike(np.log(rates), counts, null)
    with pytest.raises(InputError, match="one shape"):
        bits_per_spike(rates[:3], counts, null)
    with pytest.raises(InputError, match="unit index 5"):
        bits_per_spike(rates, counts, null[:5])
    with pytest.raises(InputError, match="null rates"):
        BitsPerSpike(null).merge(BitsPerSpike(null + 1))
    with pytest.raises(InputError, match="all above 0"):
        BitsPerSpike(np.array([np.nan]))
    with pytest.raises(InputError, match="half a spike is added"):
        BitsPerSpike(np.array([0.2, 0.0]))
