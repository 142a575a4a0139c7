"""What a reference window tells of its units: by hand, on later windows, with absent units, with few windows."""

import numpy as np
import torch

from neurobridge_tb.nn.forecasting.rate_modulation import FEATURES, RECENT, Cells, RateModulation, Windows

RATE = 0.5


def population(n_windows: int, n_units: int = 40, seed: int = 0):
    """Units whose future follows a gain that their past shows; log-gains (n_windows, n_units)."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(n_windows, 1)) * np.linspace(-0.8, 0.8, n_units)
    counts = rng.poisson(RATE * np.exp(gain)[:, None].repeat(8, 1)).astype(np.float32)
    past, future = torch.from_numpy(counts[:, :4]), torch.from_numpy(counts[:, 4:])
    there, mean = torch.ones(past.shape, dtype=torch.bool), torch.full((n_windows, 1, n_units), RATE)
    apart = torch.ones(n_windows, dtype=torch.bool)
    return Windows(past, there, mean, mean.log().expand(-1, 4, -1), future, there, apart), torch.from_numpy(gain)


def fitted(windows: Windows) -> RateModulation:
    units = [f"u{i}" for i in range(windows.past.shape[2])]
    modulation = RateModulation(n_past=4, n_future=4)
    for table in (modulation.rows, modulation.departure):
        table.initialize_vocab(units)
    modulation.set(units, modulation.fit(windows))
    return modulation


def of(modulation: RateModulation, windows: Windows, order=None, present=None, n_bins=4) -> torch.Tensor:
    """(B, T, N, FEATURES)"""
    pick = torch.arange(windows.past.shape[2]) if order is None else order
    present = windows.present if present is None else present
    shown = (windows.past[..., pick], present[..., pick], windows.mean[..., pick])
    start, recent = torch.zeros(len(shown[0]), n_bins, len(pick)), torch.zeros(len(shown[0]), len(pick), RECENT)
    return modulation.features((pick + 1).expand(len(shown[0]), -1), *shown, start, recent)


def test_what_a_reference_taught_holds_on_later_windows():
    modulation = fitted(population(300)[0])
    later, gain = population(300, seed=1)
    found = of(modulation, later)[..., 1]
    strong = gain.std(0) > 0.4
    assert np.corrcoef(found[:, 0, strong].flatten(), gain[:, strong].flatten())[0, 1] > 0.8

    def likelihood(log_rate):
        return float((later.future * log_rate - log_rate.exp()).mean())

    assert likelihood(later.start + found) > likelihood(later.start) + 0.01


def test_units_are_exchangeable_and_others_stand_for_absent_ones():
    windows, gain = population(300)
    modulation = fitted(windows)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    whole = of(modulation, windows)[..., 1]
    torch.testing.assert_close(of(modulation, windows, order)[..., 1], whole[..., order])
    again = Windows(*(x[..., order] for x in windows[:-1]), apart=windows.apart)
    torch.testing.assert_close(of(fitted(again), again)[..., 1], whole[..., order], atol=1e-2, rtol=0)
    half = windows.present & (torch.arange(40) % 2 == 0)
    seen = of(modulation, windows, present=half)[..., 1]
    slope = float((seen * whole).sum() / whole.square().sum())
    assert 0.7 < slope < 1.2
    assert not of(modulation, windows, present=windows.present & False)[..., 1].any()


def test_the_past_is_read_from_the_rates_by_now_and_from_those_of_the_reference():
    windows, _ = population(300)
    mean = torch.cat([windows.past, windows.future], 1).mean((0, 1)).expand(windows.mean.shape)
    windows = windows._replace(mean=mean)
    modulation = fitted(windows)
    found = of(modulation, windows)
    torch.testing.assert_close(found[..., 1], found[..., 2], atol=0.02, rtol=0)
    drifted = of(modulation, windows._replace(mean=mean * torch.linspace(0.5, 1.5, 40)))
    torch.testing.assert_close(drifted[..., 2], found[..., 2])
    assert (drifted[..., 1] - found[..., 1]).abs().mean() > 0.2


def test_a_time_course_is_the_mean_over_windows():
    windows, _ = population(200)
    windows.future[:, 2:] += 1
    offset = of(fitted(windows), windows)[0, :, :, 3]
    expected = ((5 + windows.future.sum(0)) / (5 + 200 * RATE)).log()
    torch.testing.assert_close(offset, expected)


def drawn_cells(n: int, worth, seed: int = 0) -> Cells:
    """Cells (n,) whose log-rates are off by what ``worth`` says of their features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, FEATURES))
    log_rates = features[:, 0] - 1
    counts = rng.poisson(np.exp(log_rates + worth(features)))
    return Cells(*(torch.from_numpy(x).float() for x in (features, log_rates, counts)))


def test_the_response_finds_what_features_are_worth():
    def worth(x):
        return 0.5 * x[:, 1] - 0.2 * x[:, 1] * x[:, 3] + 0.3 * x[:, 2] - 0.1

    modulation = fitted(population(20)[0])
    index, new = torch.tensor([[1]]), torch.randn(1000, FEATURES, generator=torch.Generator().manual_seed(0))

    def found():
        return modulation(index, new[None, :, None]).flatten()

    assert not found().any()
    modulation.fit_response(drawn_cells(20000, worth))
    assert (found() - worth(new)).abs().mean() < 0.1 * worth(new).abs().mean() + 0.05


def test_a_recordings_own_response_departs_as_far_as_its_cells_tell_and_is_its_units_alone():
    def worth(x):
        return 0.3 * x[:, 1]

    def own(x):
        return 0.6 * x[:, 1]

    modulation = fitted(population(20)[0])
    modulation.fit_response(drawn_cells(20000, worth))
    features, rows = torch.zeros(2, 1, 1, FEATURES), modulation.rows.weight[1:3].clone()
    features[..., :2] = 1.0
    departed = []
    for n in (100, 3000, 100000):
        modulation.set(["u0", "u1"], rows, modulation.own_response(drawn_cells(n, own, seed=1)))
        its, common = modulation(torch.tensor([[1], [3]]), features).flatten().tolist()
        departed.append(its - common)
    assert abs(departed[0]) < 0.05 < departed[1] < departed[2] and 0.25 < departed[2] < 0.35
    modulation.set(["u0", "u1"], rows)
    assert not modulation.departure.weight.any()


def test_a_longer_horizon_begins_as_a_shorter_one():
    windows, _ = population(60)
    modulation = fitted(windows)
    first, longer = (of(modulation, windows, n_bins=n) for n in (2, 6))
    torch.testing.assert_close(longer[:, :2], first)
    torch.testing.assert_close(longer[:, 4:], longer[:, 3:4].expand(-1, 2, -1, -1))


def test_few_windows_and_silent_units_are_finite_and_new_units_have_none():
    for n_windows in (1, 2, 7):
        windows, _ = population(n_windows)
        windows.past[..., 0] = windows.future[..., 0] = 0
        modulation = fitted(windows)
        assert modulation.rows.weight.isfinite().all()
        assert of(modulation, windows).isfinite().all()
    modulation.rows.extend_vocab(["new"])
    assert not modulation.rows(torch.tensor([41])).any()


def test_variability_tells_a_drifting_unit():
    rng = np.random.default_rng(0)
    slow = np.exp(np.cumsum(rng.normal(size=400)) * 0.1)[:, None, None]
    windows, _ = population(400, n_units=2)
    for counts in (windows.past, windows.future):
        counts[..., 1:] = torch.from_numpy(rng.poisson(RATE * slow.repeat(4, 1))).float()
    steady, drifting = fitted(windows).variability(torch.tensor([1, 2]))
    assert (drifting > steady + 0.1)[2:].all()  # over one, five and fifteen windows
