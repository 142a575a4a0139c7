"""Forecast scores: against independent implementations, over batches and processes, padded, silent."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.rates import ForecastScores, PairMoments, PsthScores
from neurobridge_tb.metrics.spikes import bits_per_spike


@pytest.fixture
def forecast():
    """30 windows of 4 future bins and 5 units, the last silent; some cells do not exist."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 0.5, (30, 4, 5))
    counts = rng.poisson(rates).astype(float)
    counts[..., 4] = 0
    mask = rng.random(counts.shape) < 0.9
    return rates, counts, mask, np.tile(np.arange(5), (30, 1)), rng.gamma(2.0, 0.5, 5)


def score(rates, counts, mask, units, null):
    scores = ForecastScores(null, 4)
    scores.update(rates, counts, mask=mask, units=units)
    return scores.compute()


def test_they_equal_independent_implementations(forecast):
    rates, counts, mask, units, null = forecast
    found = score(*forecast)
    assert found.bits_per_spike.spike_weighted == pytest.approx(
        bits_per_spike(rates, counts, null, mask=mask).spike_weighted
    )
    assert found.bits_per_spike.silent_units == 1
    for t in range(4):
        alone = bits_per_spike(rates[:, t], counts[:, t], null, mask=mask[:, t])
        assert found.by_bin[t].spike_weighted == pytest.approx(alone.spike_weighted)
        assert found.by_bin[t].unit_mean == pytest.approx(alone.unit_mean)
    for u in range(4):
        used = mask[..., u]
        assert found.r2[u] == pytest.approx(r2_score(counts[..., u][used], rates[..., u][used]))
        means = [(rates[i, m, u].mean(), counts[i, m, u].mean()) for i, m in enumerate(used) if m.any()]
        assert found.rate_correlation[u] == pytest.approx(np.corrcoef(np.array(means).T)[0, 1])
    assert found.count_correlation == pytest.approx(np.corrcoef(rates[mask], counts[mask])[0, 1])
    assert np.isnan(found.r2[4]) and np.isnan(found.rate_correlation[4])  # silent: no variance


def test_batches_processes_unit_order_and_padding_do_not_matter(forecast):
    rates, counts, mask, units, null = forecast
    whole = score(*forecast)
    first, second = ForecastScores(null, 4), ForecastScores(null, 4)
    first.update(rates[:7], counts[:7], mask=mask[:7], units=units[:7])
    order = np.random.default_rng(1).permutation(5)
    padded = [np.concatenate([x[7:][..., order], np.full((23, 4, 2), v)], axis=2) for x, v in
              ((rates, 9.0), (counts, 3.0), (mask, False))]  # fmt: skip
    second.update(*padded[:2], mask=padded[2], units=np.concatenate([units[7:, order], np.zeros((23, 2), int)], 1))
    first.merge(second)
    found = first.compute()
    for name in ("r2", "rate_correlation"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-9)
    np.testing.assert_allclose(found.bits_per_spike.per_unit, whole.bits_per_spike.per_unit)
    assert [b.unit_mean for b in found.by_bin] == pytest.approx([b.unit_mean for b in whole.by_bin])


def test_psth_r2_against_means_over_trials():
    rng = np.random.default_rng(2)
    condition = rng.integers(0, 3, 40)
    course = rng.gamma(2.0, 1.0, (3, 6, 4))
    rates, counts = course[condition] * 1.1, rng.poisson(course[condition]).astype(float)
    mask = np.ones(counts.shape, bool)
    mask[condition == 2, 5] = False  # shorter trials
    units = np.tile(np.arange(4), (40, 1))
    whole, parts = PsthScores(3, 6, 4), PsthScores(3, 6, 4)
    whole.update(rates, counts, condition=condition, mask=mask, units=units)
    other = PsthScores(3, 6, 4)
    parts.update(rates[:9], counts[:9], condition=condition[:9], mask=mask[:9], units=units[:9])
    other.update(rates[9:], counts[9:], condition=condition[9:], mask=mask[9:], units=units[9:])
    parts.merge(other)
    observed = np.stack([counts[condition == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(whole.psth()[1][:2], observed[:2])
    used = np.ones((3, 6), bool)
    used[2, 5] = False
    expected = [r2_score(observed[used, u], course[used, u] * 1.1) for u in range(4)]
    np.testing.assert_allclose(whole.r2(), expected)
    np.testing.assert_allclose(parts.r2(), expected)


def test_constant_or_missing_groups_have_no_score():
    moments = PairMoments(3)
    moments.update(np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 2.0, 2.0, 1.0]), np.array([0, 0, 0, 1]))
    assert np.isnan(moments.r2()).all() and np.isnan(moments.correlation()).all()


def test_more_bins_than_expected_are_refused(forecast):
    rates, counts, mask, units, null = forecast
    with pytest.raises(InputError, match="at most 3 bins"):
        ForecastScores(null, 3).update(rates, counts, mask=mask, units=units)
    with pytest.raises(InputError, match="one shape"):
        PairMoments(2).merge(PairMoments(3))
