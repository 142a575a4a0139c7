"""The parts of the IBL pipeline on real ALF files: spikes, a wheel and trials, of three unrelated recordings."""

import numpy as np
import pytest
from ibl_raw import ID, pipeline_globals, run_pipeline, write_session
from pyarrow import parquet
from scipy.signal import butter, freqz_sos

from neurobridge_tb.datasets import IblBrainWideMap2025
from neurobridge_tb.datasets.reference_features import reference_features

pytestmark = pytest.mark.recordings


@pytest.fixture
def alf(recordings_dir):
    return recordings_dir / "recordings" / "ibl_alf"


def test_spikes_of_clusters_at_1_hz_or_more_become_a_recording(alf, tmp_path, monkeypatch):
    times, clusters = (np.load(alf / f"spikes.{name}.npy", allow_pickle=False) for name in ("times", "clusters"))
    rates = np.bincount(clusters, minlength=500) / 120
    files = {
        "spikes.times.npy": times,
        "spikes.clusters.npy": clusters,
        "clusters.channels.npy": np.zeros(500, dtype=int),
        "clusters.depths.npy": np.zeros(500),
        "clusters.metrics.pqt": {"cluster_id": np.arange(500), "label": (rates >= 1).astype(float)},
    }
    raw = tmp_path / "raw" / "ibl_brain_wide_map_2025"
    write_session(raw, {f"probe00/pykilosort/{name}": content for name, content in files.items()})
    folder = run_pipeline(tmp_path, monkeypatch, "--skip-behavior")
    data = IblBrainWideMap2025(folder.parent).get_recording(ID)

    good = np.flatnonzero(rates >= 1)
    assert len(good) == 144 and data.units.cluster.tolist() == good.tolist()
    np.testing.assert_array_equal(data.spikes.timestamps, times[np.isin(clusters, good)])
    np.testing.assert_array_equal(good[data.spikes.unit_index], clusters[np.isin(clusters, good)])
    assert data.domain.start[0] == times[0] and data.domain.end[-1] > times[-1]
    start, end = data.reference_domain.start[0], data.reference_domain.end[0]
    expected = reference_features(data.spikes.timestamps, data.spikes.unit_index, 144, start=start, end=end)
    np.testing.assert_allclose(data.units.reference_features, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(expected).all()


def test_wheel_velocity_is_that_of_the_filter_applied_by_frequency(alf):
    """Forward and backward filtering multiplies each frequency by the squared gain: here by Fourier transform."""
    times, raw = (np.load(alf / f"_ibl_wheel.{name}.npy", allow_pickle=False) for name in ("timestamps", "position"))
    start, position, velocity = pipeline_globals()["wheel_velocity"](times, raw, "wheel")
    grid = start + np.arange(len(position)) / 1000
    assert len(grid) == int((times[-1] - times[0]) * 1000) + 1

    before = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(times) - 2)
    weight = (grid - times[before]) / (times[before + 1] - times[before])
    np.testing.assert_allclose(position, (1 - weight) * raw[before] + weight * raw[before + 1], atol=1e-9)

    mirrored = np.concatenate([position, position[::-1]])  # no jump where the transform wraps around
    frequencies = np.fft.rfftfreq(len(mirrored), 1 / 1000)
    gain = np.abs(freqz_sos(butter(8, 20 / 500, output="sos"), frequencies, fs=1000)[1]) ** 2
    filtered = np.fft.irfft(np.fft.rfft(mirrored) * gain, len(mirrored))[: len(position)]
    expected = np.diff(filtered) * 1000
    middle = slice(2000, -2000)  # the edges are padded in another way
    np.testing.assert_allclose(velocity[1:][middle], expected[middle], atol=1e-3)
    assert velocity.std() > 0.1 and np.abs(velocity).max() < 100  # rad/s


def test_trials_table_keeps_its_columns(alf):
    path = alf / "_ibl_trials.table.pqt"
    functions = pipeline_globals()
    table = parquet.read_table(path).to_pydict()
    trials = functions["read_trials"](path, functions["Interval"](0.0, 1e6))
    start = np.array(table["stimOn_times"], dtype=float)
    assert len(table["choice"]) == 887 and np.isnan(start[0])  # the first has no stimulus time
    kept = np.isfinite(start)
    np.testing.assert_array_equal(trials.start, start[kept])
    np.testing.assert_array_equal(trials.end, np.array(table["response_times"])[kept])
    for name in ("choice", "contrastLeft", "contrastRight", "feedbackType", "probabilityLeft"):
        np.testing.assert_array_equal(getattr(trials, name), np.array(table[name], dtype=float)[kept])
    assert set(trials.choice) <= {-1, 0, 1} and {"stimOn_times", "response_times"} <= set(trials.timekeys())
