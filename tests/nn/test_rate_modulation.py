"""The regression fitted to a reference window: by hand, on later windows, with absent units, with few windows."""

import numpy as np
import torch

from neurobridge_tb.nn.forecasting.rate_modulation import VARIABILITY, RateModulation, Windows

RATE = 0.5


def population(n_windows: int, n_units: int = 40, seed: int = 0):
    """Units whose future follows a gain that their past shows; log-gains (n_windows, n_units)."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(n_windows, 1)) * np.linspace(-0.8, 0.8, n_units)
    counts = rng.poisson(RATE * np.exp(gain)[:, None].repeat(8, 1)).astype(np.float32)
    past, future = torch.from_numpy(counts[:, :4]), torch.from_numpy(counts[:, 4:])
    there, mean = torch.ones(past.shape, dtype=torch.bool), torch.full((n_windows, 1, n_units), RATE)
    return Windows(past, there, mean, mean.log().expand(-1, 4, -1), future, there), torch.from_numpy(gain)


def fitted(windows: Windows) -> RateModulation:
    units = [f"u{i}" for i in range(windows.past.shape[2])]
    modulation = RateModulation(n_future=4)
    modulation.initialize_vocab(units)
    modulation.set(units, RateModulation.fit(windows))
    return modulation


def of(modulation: RateModulation, windows: Windows, order=None, present=None) -> torch.Tensor:
    index = torch.arange(windows.past.shape[2]) + 1 if order is None else order + 1
    pick = index - 1
    present = windows.present if present is None else present
    shown = (windows.past[..., pick], present[..., pick], windows.mean[..., pick])
    return modulation.modulation(index.expand(len(shown[0]), -1), *shown, 4)


def test_what_a_reference_taught_holds_on_later_windows():
    modulation = fitted(population(300)[0])
    later, gain = population(300, seed=1)
    found = of(modulation, later)
    strong = gain.std(0) > 0.4
    assert np.corrcoef(found[:, 0, strong].flatten(), gain[:, strong].flatten())[0, 1] > 0.8

    def likelihood(log_rate):
        return float((later.future * log_rate - log_rate.exp()).mean())

    assert likelihood(later.start + found) > likelihood(later.start) + 0.01


def test_a_newton_step_by_hand():
    """One unit: no score but its own, so the step is a two by two system."""
    windows, _ = population(60, n_units=1)
    modulation = fitted(windows)
    z = (windows.past.unflatten(1, (2, 2)).mean(2)[..., 0] - RATE) / (RATE + 0.02) ** 0.5
    z = (z - z.mean(0)).double().numpy()
    left, power, _ = np.linalg.svd(z, full_matrices=False)
    x = np.column_stack([np.ones(60), np.clip(left * 60**0.5, -3, 3)])
    y = windows.future[:, 1, 0].double().numpy()
    slopes = np.linalg.solve(RATE * x.T @ x + 20 * np.eye(3), x.T @ (y - RATE))
    np.testing.assert_allclose(of(modulation, windows)[:, 1, 0], x @ slopes, atol=1e-4)


def test_units_are_exchangeable_and_others_stand_for_absent_ones():
    windows, gain = population(300)
    modulation = fitted(windows)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    whole = of(modulation, windows)
    torch.testing.assert_close(of(modulation, windows, order), whole[..., order])
    again = Windows(*(x[..., order] for x in windows))
    torch.testing.assert_close(of(fitted(again), again), whole[..., order], atol=1e-3, rtol=0)
    half = windows.present & (torch.arange(40) % 2 == 0)
    seen = of(modulation, windows, present=half)
    slope = float((seen * whole).sum() / whole.square().sum())
    assert 0.7 < slope < 1.2
    assert float(of(modulation, windows, present=windows.present & False).std(0).max()) == 0


def test_a_longer_horizon_begins_as_a_shorter_one():
    windows, _ = population(60)
    modulation, index = fitted(windows), (torch.arange(40) + 1).expand(60, -1)
    first, longer = (modulation.modulation(index, *windows[:3], n) for n in (2, 6))
    torch.testing.assert_close(longer[:, :2], first)
    torch.testing.assert_close(longer[:, 4:], longer[:, 3:4].expand(-1, 2, -1))


def test_few_windows_and_silent_units_are_finite_and_new_units_have_none():
    for n_windows in (1, 2, 7):
        windows, _ = population(n_windows)
        windows.past[..., 0] = windows.future[..., 0] = 0
        rows = RateModulation.fit(windows)
        assert rows.isfinite().all()
        assert of(fitted(windows), windows).isfinite().all()
    modulation = fitted(windows)
    modulation.extend_vocab(["new"])
    assert not modulation(torch.tensor([41])).any()


def test_variability_tells_a_drifting_unit():
    rng = np.random.default_rng(0)
    slow = np.exp(np.cumsum(rng.normal(size=400)) * 0.1)[:, None, None]
    windows, _ = population(400, n_units=2)
    for counts in (windows.past, windows.future):
        counts[..., 1:] = torch.from_numpy(rng.poisson(RATE * slow.repeat(4, 1))).float()
    steady, drifting = RateModulation.fit(windows)[:, -VARIABILITY:]
    assert (drifting > steady + 0.1)[2:].all()  # over one, five and fifteen windows
