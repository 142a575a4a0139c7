"""Trial design, noise, faults and normalisation of a simulated recording."""

import numpy as np
import pytest

from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.recording import draw_design, mean_and_deviation, record
from neurobridge_tb.simulation.ventral_stream import electrodes

N_TRAIN, N_TEST, N_REPEATS = 60, 20, 8


@pytest.fixture(scope="module")
def design():
    return draw_design(N_TRAIN, N_TEST, N_REPEATS, np.random.default_rng(0))


@pytest.fixture(scope="module")
def drive():
    values = np.random.default_rng(1).gamma(2.0, 1.0, (N_TRAIN + N_TEST, 1024)).astype(np.float32)
    return values / values.std(axis=0)


def make(drive, design, *, monkey="F", noise=1.0, seed=2):
    rng = np.random.default_rng(seed)
    return record(drive, electrodes(monkey), design, monkey=monkey, noise=noise, rng=rng)


def reliability(recording):
    values = recording.normalised()[recording.design.rows()[1]]
    return np.array([np.corrcoef(values[:, :, k])[np.triu_indices(N_REPEATS, 1)].mean() for k in range(1024)])


def test_every_image_is_shown_as_often_as_the_design_says(design):
    shown = np.bincount(design.image)
    assert (shown[:N_TRAIN] == 1).all() and (shown[N_TRAIN:] == N_REPEATS).all()
    assert (np.diff(design.day) >= 0).all() and set(design.day) == {0, 1, 2, 3}
    for day in range(4):  # every test image is seen every day, so that each day can be normalised
        assert set(design.image[(design.day == day) & design.is_test]) == set(range(N_TRAIN, N_TRAIN + N_TEST))


def test_trials_hold_up_to_four_images_of_one_day(design):
    for trial in np.unique(design.trial):
        rows = design.trial == trial
        assert design.position[rows].tolist() == list(range(rows.sum()))
        assert len(set(design.day[rows])) == 1
    assert np.bincount(design.trial).max() == 4


def test_rows_find_images_and_repeats(design):
    train, test = design.rows()
    assert design.image[train].tolist() == list(range(N_TRAIN))
    assert (design.image[test] == N_TRAIN + np.arange(N_TEST)).all()
    assert (design.repeat[test] == np.arange(N_REPEATS)[:, None]).all()


@pytest.mark.parametrize("sizes", [(60, 1, 8), (60, 20, 3), (2, 20, 8)])
def test_too_small_a_design(sizes):
    with pytest.raises(InputError, match="repeats"):
        draw_design(*sizes, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("monkey", "starts"), [("F", {"V1": 0, "IT": 512, "V4": 832}), ("N", {"V1": 0, "V4": 512, "IT": 768})]
)
def test_areas_lie_as_published(monkey, starts):
    area, array = electrodes(monkey)
    assert {name: int(np.flatnonzero(area == name)[0]) for name in starts} == starts
    assert all((np.diff(np.flatnonzero(area == name)) == 1).all() for name in starts)
    assert array[0] == 0 and array[64] == 1 and array[-1] == 15


def test_unknown_monkey():
    with pytest.raises(InputError, match="'X'"):
        electrodes("X")


def test_monkey_n_lacks_one_v1_array_and_f_a_few_channels(drive, design):
    whole = {}
    for monkey in ("F", "N"):
        recording = make(drive, design, monkey=monkey)
        arrays = recording.electrodes.array
        whole[monkey] = [k for k in range(16) if recording.is_dead[arrays == k].all()]
        variance = np.nanvar(recording.normalised(), axis=0)
        assert variance[recording.is_dead].max() < 0.01 < 0.3 < variance[~recording.is_dead].min()
        assert np.isnan(recording.latency_ms[:, recording.is_dead]).all()
    assert whole["F"] == [] and len(whole["N"]) == 1 and whole["N"][0] < 8


def test_normalised_by_the_test_trials_of_the_day(drive, design):
    recording = make(drive, design)
    values = recording.normalised()
    live = ~recording.is_dead
    for day in range(4):
        mean, deviation = mean_and_deviation(values[(design.day == day) & design.is_test][:, live])
        np.testing.assert_allclose(mean[~np.isnan(mean)], 0, atol=1e-6)
        np.testing.assert_allclose(deviation[~np.isnan(deviation)], 1, atol=1e-6)


def test_some_values_are_missing_but_few(drive, design):
    missing = np.isnan(make(drive, design).responses)
    assert 0 < missing.mean() < 0.01


def test_noise_knob_makes_it_harder(drive, design):
    easy, usual, hard = (np.nanmedian(reliability(make(drive, design, noise=noise))) for noise in (0, 1, 2))
    assert easy > 0.9
    assert easy > usual + 0.1 > hard + 0.2


def test_noise_is_shared_within_a_trial(drive, design):
    """Residuals of different channels correlate beyond chance; heavy tails reach further than normal ones."""
    recording = make(drive, design, noise=1.0)
    clean = make(drive, design, noise=0.0)
    live = ~recording.is_dead & ~np.isnan(recording.responses).any(0) & ~np.isnan(clean.responses).any(0)
    residual = recording.responses[:, live] - clean.responses[:, live]
    residual -= residual.mean(axis=0)
    residual /= residual.std(axis=0)
    correlation = np.corrcoef(residual.T)[np.triu_indices(live.sum(), 1)]
    assert correlation.std() > 1.2 / len(residual) ** 0.5  # additive patterns
    assert correlation.mean() > 0.02  # a gain shared by all channels
    assert (np.abs(residual) > 4.5).mean() > 1e-4


def test_latencies_rise_along_the_stream(drive, design):
    recording = make(drive, design)
    area = recording.electrodes.area
    v1, v4, it = (np.nanmedian(recording.latency_ms[:, area == name]) for name in ("V1", "V4", "IT"))
    assert 25 < v1 < v4 < it < 150


def test_days_drift(drive, design):
    recording = make(drive, design, noise=0.0)
    live = ~recording.is_dead
    assert np.std(np.log(recording.spontaneous_mean[3, live] / recording.spontaneous_mean[0, live])) > 0.05


def test_mean_and_deviation_skip_nan():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    mean, deviation = mean_and_deviation(values)
    np.testing.assert_allclose(mean, [2, 5, np.nan])
    np.testing.assert_allclose(deviation, [2**0.5, np.nan, np.nan])
