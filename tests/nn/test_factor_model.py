import numpy as np
import pytest
import torch

from neurobridge_tb.estimators.factor_analysis import FactorAnalysis
from neurobridge_tb.nn.factor_model import FactorModel, log_rate_ratio

UNITS = [f"u{i}" for i in range(9)]


@pytest.fixture(params=["few rows", "many rows"])
def model(request):
    rng = np.random.default_rng(0)
    model = FactorModel(4).double()
    others = [] if request.param == "few rows" else [f"other{i}" for i in range(200)]
    for table in model.tables:
        table.initialize_vocab([*others, *UNITS])
        table.double()
    loadings, noise, bins = rng.normal(size=(9, 3)), rng.uniform(0.3, 2.0, 9), rng.uniform(2.0, 50.0, 9)
    model.set(UNITS, torch.from_numpy(loadings), torch.from_numpy(noise), torch.from_numpy(bins))
    model.truth = FactorAnalysis(np.zeros(9), loadings, noise, bins)
    return model


def batch(model, seed=1):
    """Two windows of five bins with units of their own, in orders of their own; the second one is padded."""
    rng = np.random.default_rng(seed)
    index = torch.tensor(model.loading_rows.tokenizer([*UNITS[::-1][:7], *UNITS[2:8]])).split([7, 6])
    index = torch.stack([index[0], torch.nn.functional.pad(index[1], (0, 1))])
    keep = torch.from_numpy(rng.random((2, 5, 7)) < 0.6)
    keep[1, :, 6] = False
    keep[0, 2] = False
    return torch.from_numpy(rng.normal(size=(2, 5, 7))), keep, index


def test_posterior_and_predictions_are_gaussian_conditioning(model):
    values, keep, index = batch(model)
    z, variance = model(values, keep, index)
    columns = [np.arange(9)[::-1][:7], np.arange(2, 8)]
    loadings, noise, bins = model.truth.loadings, model.truth.noise, model.truth.bins
    predicted = model.predict(z, torch.tensor([model.loading_rows.tokenizer(UNITS)] * 2)).detach().numpy()
    for b, units in enumerate(columns):
        for t in range(5):
            kept = keep[b, t, : len(units)].numpy()
            seen, x = units[kept], values[b, t, : len(units)].numpy()[kept]
            prior = np.eye(3) / (1 + (1 / bins[seen]).sum())  # loadings known from few bins count for less
            gain = (
                prior
                @ loadings[seen].T
                @ np.linalg.inv(loadings[seen] @ prior @ loadings[seen].T + np.diag(noise[seen]))
            )
            np.testing.assert_allclose(z[b, t, :3].detach(), gain @ x, atol=1e-6)
            covariance = prior - gain @ loadings[seen] @ prior
            np.testing.assert_allclose(variance[b, t, :3].detach(), np.diag(covariance), atol=1e-6)
            np.testing.assert_allclose(predicted[b, t], loadings @ gain @ x, atol=1e-6)
    assert (z[..., 3] == 0).all()  # a factor that is not used


def test_bins_that_share_a_mask_share_the_solve(model):
    values, keep, index = batch(model)
    expected = model(values, keep, index)
    patterns, which = zip(*(torch.unique(k, dim=0, return_inverse=True) for k in keep), strict=True)
    patterns = torch.nn.utils.rnn.pad_sequence(list(patterns), batch_first=True)
    torch.testing.assert_close(model(values, keep, index, patterns, torch.stack(which)), expected)
    keep = keep[:, :1].expand_as(keep)
    torch.testing.assert_close(model(values, keep, index, keep[:, :1]), model(values, keep, index))


def test_gradients(model):
    values, keep, index = batch(model)
    weights = [table.weight.detach().clone().requires_grad_() for table in model.tables]

    def outputs(loadings, log_noise, log_bins, curve, values):
        rows = {"loading_rows": loadings, "log_noise_rows": log_noise, "log_bins_rows": log_bins, "curve_rows": curve}
        replaced = {f"{name}.weight": weight for name, weight in rows.items()}
        return tuple(torch.func.functional_call(model, replaced, (values, keep, index)))

    assert torch.autograd.gradcheck(outputs, (*weights, values.requires_grad_()), fast_mode=True)


def test_responses_curve(model):
    values, keep, index = batch(model)
    z = model(values, keep, index).mean
    straight = model.predict(z, index)
    with torch.no_grad():
        model.curve_rows.weight[index[0, 2]] = 0.1
    expected = straight.clone()
    for b, units in enumerate(index):
        curved = units == index[0, 2]
        expected[b][:, curved] += 0.1 * ((1 + straight[b][:, curved] ** 2) ** 0.5 - 1)
    torch.testing.assert_close(model.predict(z, index), expected)


def test_units_order_padding_and_batch_mates_do_not_matter(model):
    values, keep, index = batch(model)
    expected = model(values, keep, index)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(values[..., order], keep[..., order], index[:, order]), expected)
    alone = model(values[1:, :, :6], keep[1:, :, :6], index[1:, :6])
    torch.testing.assert_close(alone, type(expected)(*(x[1:] for x in expected)))
    hidden = torch.where(keep, values, torch.full_like(values, 1e6))  # what is hidden is not read
    torch.testing.assert_close(model(hidden, keep, index), expected)


def test_limits_are_exact_and_half_precision_is_safe(model):
    values, keep, index = batch(model)
    z, variance = model(values, torch.zeros_like(keep), index)
    assert (z == 0).all() and (variance == 1).all() and (model.predict(z, index) == 0).all()
    expected = model(values, keep, index)
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, variance = model(values.float(), keep, index)
        assert z.dtype == variance.dtype == model.predict(z, index).dtype == torch.float32
    torch.testing.assert_close(z.double(), expected.mean, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.log_noise_rows.weight.fill_(-12.0)  # units that are nearly all shared
    assert torch.isfinite(model(1e3 * values.float(), keep, index).mean).all()


def test_rates_stay_finite_however_low_the_prediction():
    predicted = torch.tensor([-1e6, -30.0, -1.0, 0.0, 2.0, 1e6], requires_grad=True)
    ratio = log_rate_ratio(predicted, torch.tensor(0.25), torch.tensor(0.5))
    rate = 1 + 2 * predicted.detach().double().numpy()
    exact = np.arcsinh(rate / 0.2) - np.arcsinh(1 / 0.2)
    np.testing.assert_allclose(ratio.detach(), exact, rtol=1e-5, atol=1e-6)
    ratio.sum().backward()
    assert torch.isfinite(predicted.grad).all() and (predicted.grad > 0).all()
    assert (log_rate_ratio(predicted, torch.tensor(1e-4), torch.tensor(0.01)) == 0).all()  # hardly a spike in training
