"""Intervals of scores and of paired differences, from gains window by window."""

import numpy as np
import pytest

from neurobridge_tb.metrics.spikes import bits_per_spike
from neurobridge_tb.scoring.paired_gains import WindowGains, bits_per_spike_of
from neurobridge_tb.scoring.unit_rates import UnitRates


def test_gains_of_windows_add_up_to_bits_per_spike():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (12, 3, 4)).astype(float)
    trained = UnitRates(np.array([0.0, 5.0, 20.0, 30.0]), np.full(4, 50.0))
    rates, mask = rng.uniform(0.2, 1.0, counts.shape), rng.random(counts.shape) < 0.8
    gains = WindowGains(["b", "a"], trained, length=1.0)
    for part in (slice(0, 5), slice(5, 12)):
        names = ["monday"] * len(counts[part])
        units = np.tile(np.arange(4), (len(names), 1))
        forecasts = {"a": rates[part], "b": 0 * rates[part] + 0.4}
        gains.update(names, 2.0 * np.arange(12)[part], forecasts, counts[part], mask[part], units)
    arrays = gains.arrays()
    assert arrays["window_gain"].shape == (12, 2, 3) and arrays["window_spikes"].shape == (12, 3)
    total = arrays["window_gain"][:, 1].sum() / arrays["window_spikes"].sum()
    assert total == pytest.approx(bits_per_spike(rates, counts, trained.mean, mask=mask).spike_weighted)
    busy = arrays["trained_gain"].sum(0)[1] / arrays["trained_spikes"].sum(0)
    for value, first in zip(busy, (1, 2), strict=True):  # units with at least 1, at least 10 training spikes
        some = (x[..., first:] for x in (rates, counts, trained.mean))
        assert value == pytest.approx(bits_per_spike(*some, mask=mask[..., first:]).spike_weighted)


def test_an_interval_is_as_wide_as_the_standard_error_says():
    rng = np.random.default_rng(0)
    gain, spikes = rng.normal(3.0, 2.0, 400), np.full(400, 10.0)
    found = bits_per_spike_of([gain], [spikes])
    assert found.value == pytest.approx(gain.mean() / 10)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 20 / 10, rel=0.1)
    both = bits_per_spike_of([gain, gain + 20], [spikes, spikes])
    assert both.value == pytest.approx(found.value + 1.0)  # recordings weigh alike


def test_windows_that_overlap_are_one_draw():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (9, 3, 4)).astype(float)
    gains = WindowGains(["a"], UnitRates(np.full(4, 20.0), np.full(4, 50.0)), length=1.0)
    names = ["monday"] * 6 + ["friday"] * 3
    starts = np.array([0.0, 0.4, 0.8, 1.0, 1.9, 2.0, 2.5, 2.6, 9.0])
    for part in (slice(0, 2), slice(2, 9)):
        some, n = counts[part], len(counts[part])
        mask, units = np.ones(some.shape, bool), np.tile(np.arange(4), (n, 1))
        gains.update(names[part], starts[part], {"a": some + 0.1}, some, mask, units)
    arrays = gains.arrays()
    assert arrays["window_recording"].tolist() == ["monday"] * 3 + ["friday"] * 2
    spikes = [counts[[0, 1, 2]], counts[[3, 4]], counts[[5]], counts[[6, 7]], counts[[8]]]
    np.testing.assert_allclose(arrays["window_spikes"], [x.sum((0, 2)) for x in spikes])
    assert arrays["window_gain"].shape == (5, 1, 3) and arrays["trained_gain"].shape == (5, 1, 2)
