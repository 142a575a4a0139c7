"""The running past: by hand, blind to what comes later, and with bins that do not exist."""

import numpy as np
import pytest

from neurobridge_tb.data import running_past
from neurobridge_tb.data.running_past import RunningPast
from neurobridge_tb.datasets import build_recording

CONSTANTS = (0.3, 2.0)


def recording(counts):
    n_units = counts.shape[1]
    return build_recording(
        brainset_id="test", session_id="s", subject_id="s", units={"id": [f"u{i}" for i in range(n_units)]},
        counts=(counts, 0.1),
    )  # fmt: skip


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.7, (200, 4)).astype(np.uint8)


@pytest.mark.parametrize("most", [500, 3])
@pytest.mark.parametrize("bins", [0, 1, 10, 57, 200])
def test_it_is_the_weighted_sum_of_what_came_before(counts, bins, most, monkeypatch):
    monkeypatch.setattr(running_past, "_MOST_CHUNKS", most)  # few sums are kept of a long recording
    spikes, width = RunningPast(recording(counts), 0.1, CONSTANTS).before(0.1 * bins)
    for c, constant in enumerate(CONSTANTS):
        weight = np.exp(-0.1 * np.arange(bins - 1, -1, -1) / constant)
        np.testing.assert_allclose(spikes[c], weight @ counts[:bins], rtol=1e-5)
        np.testing.assert_allclose(width[c], weight.sum(), rtol=1e-5)


def test_what_comes_later_is_not_read(counts):
    changed = counts.copy()
    changed[80:] = 9
    before, after = (RunningPast(recording(x), 0.1, CONSTANTS).before(8.0) for x in (counts, changed))
    np.testing.assert_array_equal(before[0], after[0])


def test_bins_that_do_not_exist_do_not_count(counts):
    gaps = counts.astype(float)
    gaps[20:60, 1] = np.nan
    data = recording(counts)
    data.spike_counts.value = gaps
    spikes, width = RunningPast(data, 0.1, CONSTANTS).before(10.0)
    weight = np.exp(-0.1 * np.arange(99, -1, -1) / 2.0)
    exists = ~np.isnan(gaps[:100, 1])
    np.testing.assert_allclose(spikes[1, 1], weight[exists] @ gaps[:100, 1][exists], rtol=1e-5)
    np.testing.assert_allclose(width[1, 1], weight[exists].sum(), rtol=1e-5)
    assert width[1, 0] > width[1, 1]


def test_events_are_counted_in_bins(counts):
    times, units = (np.nonzero(counts)[0] + 0.5) * 0.1, np.nonzero(counts)[1]
    repeats = counts[np.nonzero(counts)]
    events = build_recording(
        brainset_id="test", session_id="s", subject_id="s", units={"id": [f"u{i}" for i in range(4)]},
        spikes=(np.repeat(times, repeats), np.repeat(units, repeats)), end=20.0,
    )  # fmt: skip
    binned = RunningPast(recording(counts), 0.1, CONSTANTS).before(13.3)
    np.testing.assert_allclose(RunningPast(events, 0.1, CONSTANTS).before(13.3)[0], binned[0], rtol=1e-5)
