"""The baselines reach their known figures on a real motor-cortex recording (macaque, centre-out reaching)."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from neurobridge_tb.estimators.linear_probe import regression_probe
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm, lagged
from neurobridge_tb.metrics.spikes import bits_per_spike

pytestmark = pytest.mark.recordings


@pytest.fixture(scope="module")
def reaching(recordings_dir: Path):
    """Velocity, counts, trial starts, and the splits: 80 % of trials train, the last 100 of them to validate."""
    content = scipy.io.loadmat(recordings_dir / "recordings" / "m1_center_out" / "contdata95.mat")
    velocity, counts = content["X"][:, 2:], content["Y"].astype(float)
    starts = np.flatnonzero((velocity == 0).all(1))
    train = int(0.8 * len(starts))
    splits = slice(0, starts[train - 100]), slice(starts[train - 100], starts[train]), slice(starts[train], None)
    return velocity, counts, starts, splits


def test_ridge_on_ten_past_bins_reads_velocity(reaching):
    velocity, counts, starts, splits = reaching
    past = lagged(counts, range(-9, 1), starts=starts)
    probe = regression_probe(*((past[split], velocity[split]) for split in splits))
    np.testing.assert_allclose(probe.score, [0.777, 0.726], atol=0.005)


def test_poisson_glm_co_smoothing(reaching):
    _, counts, _, (train, valid, test) = reaching
    held_out = np.random.default_rng(0).permutation(95)[:24]
    others, targets = np.delete(counts, held_out, axis=1), counts[:, held_out]
    rates = fit_poisson_glm(
        others[train], targets[train], others[valid], targets[valid], others[test], penalties=[1e-2]
    )
    null_rates = targets[: valid.stop].mean(0)
    assert bits_per_spike(rates, targets[test], null_rates).spike_weighted == pytest.approx(0.304, abs=0.003)
