"""Intervals of scores and of paired differences, from gains window by window."""

import numpy as np
import pytest

from neurobridge_tb.metrics.spikes import bits_per_spike
from neurobridge_tb.scoring.paired_gains import WindowGains, bits_per_spike_of


def test_gains_of_windows_add_up_to_bits_per_spike():
    rng = np.random.default_rng(0)
    counts, null = rng.poisson(0.5, (12, 3, 4)).astype(float), rng.uniform(0.3, 0.7, 4)
    rates, mask = rng.uniform(0.2, 1.0, counts.shape), rng.random(counts.shape) < 0.8
    gains = WindowGains(["a"])
    for part in (slice(0, 5), slice(5, 12)):
        names = ["monday"] * len(counts[part])
        gains.update(names, {"a": rates[part]}, counts[part], mask[part], np.tile(null, (len(counts[part]), 1)))
    arrays = gains.arrays()
    assert arrays["window_gain"].shape == (12, 1, 3) and arrays["window_spikes"].shape == (12, 3)
    total = arrays["window_gain"].sum() / arrays["window_spikes"].sum()
    assert total == pytest.approx(bits_per_spike(rates, counts, null, mask=mask).spike_weighted)


def test_an_interval_is_as_wide_as_the_standard_error_says():
    rng = np.random.default_rng(0)
    gain, spikes = rng.normal(3.0, 2.0, 400), np.full(400, 10.0)
    found = bits_per_spike_of([gain], [spikes])
    assert found.value == pytest.approx(gain.mean() / 10)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 20 / 10, rel=0.1)
    both = bits_per_spike_of([gain, gain + 20], [spikes, spikes])
    assert both.value == pytest.approx(found.value + 1.0)  # recordings weigh alike
