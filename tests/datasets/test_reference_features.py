"""Reference features: equal to straightforward slow code, whatever the order and the split into intervals."""

import numpy as np
import pytest

from neurobridge_tb._upstream import Interval
from neurobridge_tb.datasets import build_recording
from neurobridge_tb.datasets.reference_features import N_FEATURES, recording_features, reference_features
from neurobridge_tb.errors import InputError


def slow_features(times, units, n_units, intervals):
    """The definition, word by word, one spike and one bin after another."""
    out = np.zeros((n_units, 33))
    edges = np.geomspace(0.001, 10, 21)
    for unit in range(n_units):
        n_spikes, isi, trains, windows = 0, [], [], []
        for start, end in intervals:
            mine = sorted(t for t, u in zip(times, units, strict=True) if u == unit and start <= t < end)
            n_spikes += len(mine)
            isi += [b - a for a, b in zip(mine[:-1], mine[1:], strict=True)]
            bins = [0] * int((end - start) / 0.01 + 1e-6)
            for t in mine:
                if int((t - start) / 0.01) < len(bins):
                    bins[int((t - start) / 0.01)] += 1
            trains.append(bins)
            windows += [sum(bins[i : i + 10]) for i in range(0, len(bins) - 9, 10)]
        out[unit, 0] = n_spikes / sum(end - start for start, end in intervals)
        if isi:
            out[unit, 1] = np.std(isi) / np.mean(isi)
            for x in isi:
                below = [k for k in range(20) if edges[k] <= x]
                out[unit, 2 + (below[-1] if below else 0)] += 1 / len(isi)
        flat = [c for bins in trains for c in bins]
        mean = sum(flat) / max(len(flat), 1)
        variance = sum((c - mean) ** 2 for c in flat) / max(len(flat), 1)
        for lag in range(1, 11):
            pairs = [(b[i], b[i + lag]) for b in trains for i in range(len(b) - lag)]
            if pairs and variance > 0:
                out[unit, 21 + lag] = sum((x - mean) * (y - mean) for x, y in pairs) / len(pairs) / variance
        if sum(windows):
            out[unit, 32] = np.var(windows) / np.mean(windows)
    return out


@pytest.fixture
def spikes():
    """Regular, bursting, sparse and silent units, and one that fires once."""
    rng = np.random.default_rng(0)
    bursts = (np.arange(30)[:, None] * 0.31 + np.array([0.0, 0.002, 0.0031])).ravel()
    trains = [np.arange(0.013, 10, 0.0517), bursts, rng.uniform(0, 10, 6), np.empty(0), np.array([3.3]),
              np.sort(rng.uniform(0, 10, 400)), np.array([0.0004, 0.0005, 9.9])]  # fmt: skip
    return np.concatenate(trains), np.concatenate([np.full(len(t), i) for i, t in enumerate(trains)]), len(trains)


@pytest.mark.parametrize("intervals", [[(0, 10)], [(1.003, 8.127)], [(0, 0.4), (0.5, 0.93), (3, 3.05), (3.2, 9.999)]])
def test_they_equal_slow_code(spikes, intervals):
    times, units, n_units = spikes
    starts, ends = np.array(intervals, float).T
    fast = reference_features(times, units, n_units, start=starts, end=ends)
    np.testing.assert_allclose(fast, slow_features(times, units, n_units, intervals), rtol=1e-5, atol=1e-6)
    assert fast.shape == (n_units, N_FEATURES) and fast.dtype == np.float32


def test_order_of_spikes_and_units_does_not_matter(spikes):
    times, units, n_units = spikes
    rng = np.random.default_rng(1)
    order, names = rng.permutation(len(times)), rng.permutation(n_units)
    expected = reference_features(times, units, n_units, start=0, end=10)
    found = reference_features(times[order], names[units[order]], n_units, start=0, end=10)
    np.testing.assert_array_equal(found[names], expected)


def test_known_values():
    regular = reference_features(np.arange(0.005, 10, 0.02), np.zeros(500, int), 2, start=0, end=10)
    assert regular[0, 0] == pytest.approx(50)
    assert regular[0, 1] == pytest.approx(0, abs=1e-6)  # a clock
    assert regular[0, 2:22].sum() == pytest.approx(1) and regular[0, 2:22].max() == pytest.approx(1)
    np.testing.assert_allclose(regular[0, 22:32], [-1, 1] * 5, atol=1e-3)  # every second 10 ms bin
    assert regular[0, 32] == pytest.approx(0, abs=1e-6)
    assert not regular[1].any()  # silent
    poisson = np.random.default_rng(0).uniform(0, 1000, 20_000)
    features = reference_features(poisson, np.zeros(20_000, int), 1, start=0, end=1000)[0]
    assert features[1] == pytest.approx(1, abs=0.03) and features[32] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(features[22:32], 0, atol=0.015)


@pytest.mark.parametrize("start, end", [(5.0, 5.0), ([], []), ([0.0, 4.0], [1.0])])
def test_no_window_is_refused(spikes, start, end):
    with pytest.raises(InputError, match="reference window"):
        reference_features(*spikes, start=start, end=end)


def test_a_window_without_any_spike_is_refused(spikes):
    with pytest.raises(InputError, match="none of any unit"):
        reference_features(*spikes, start=60, end=120)


def recording(**neural):
    return build_recording(
        brainset_id="test", session_id="s", subject_id="x", units={"id": ["a", "b"]}, **neural, end=20.0
    )  # fmt: skip


def test_a_recording_gives_them_from_its_first_seconds_of_spikes_or_counts():
    counts = np.random.default_rng(0).poisson(0.5, (280, 2))
    bins, units = np.nonzero(counts)
    number = counts[bins, units]
    times = np.concatenate([b * 0.07 + 0.07 * (np.arange(n) + 0.5) / n for b, n in zip(bins, number, strict=True)])
    window = Interval(start=np.array([1.0, 5.0]), end=np.array([4.0, 19.0]))
    from_counts = recording_features(recording(counts=(counts, 0.07)), window, seconds=7)
    order = np.argsort(times)
    spikes = times[order], np.repeat(units, number)[order]
    from_spikes = recording_features(recording(spikes=spikes), window, seconds=7)
    np.testing.assert_allclose(from_counts, from_spikes, rtol=1e-4, atol=1e-5)
    expected = reference_features(*spikes, 2, start=[1, 5], end=[4, 9])
    np.testing.assert_array_equal(from_spikes, expected)


def test_features_that_a_pipeline_stored_are_taken():
    stored = np.arange(66, dtype=np.float32).reshape(2, 33)
    data = build_recording(
        brainset_id="test", session_id="s", subject_id="x", units={"id": ["a", "b"], "reference_features": stored},
        spikes=(np.array([1.0]), np.array([0])), end=20.0,
    )  # fmt: skip
    np.testing.assert_array_equal(recording_features(data, data.domain), stored)


def test_a_recording_without_spikes_has_none():
    with pytest.raises(InputError, match="multi-unit activity has none"):
        recording_features(
            recording(mua=(np.ones((200, 2)), 0.1)), Interval(start=np.array([0.0]), end=np.array([9.0]))
        )
    empty = Interval(start=np.array([]), end=np.array([]))
    with pytest.raises(InputError, match="reference window"):
        recording_features(recording(spikes=(np.array([1.0]), np.array([0]))), empty)
