import numpy as np
import pytest
import torch

from neurobridge_tb.estimators.factor_analysis import FactorAnalysis
from neurobridge_tb.nn.factor_model import FactorModel, log_rate_ratio

UNITS = [f"u{i}" for i in range(9)]


SESSIONS = ["quiet", "monday", "tuesday"]


@pytest.fixture(params=["few rows", "many rows"])
def model(request):
    """Three factors of four are used; the recording ``quiet`` has no dynamics."""
    rng = np.random.default_rng(0)
    model = FactorModel(4).double()
    others = [] if request.param == "few rows" else [f"other{i}" for i in range(200)]
    for table in model.tables:
        table.initialize_vocab([*others, *UNITS])
        table.double()
    for table in model.session_tables:
        table.initialize_vocab(SESSIONS)
        table.double()
    loadings, noise, bins = rng.normal(size=(9, 3)), rng.uniform(0.3, 2.0, 9), rng.uniform(2.0, 50.0, 9)
    model.set(UNITS, torch.from_numpy(loadings), torch.from_numpy(noise), torch.from_numpy(bins))
    model.truth = FactorAnalysis(np.zeros(9), loadings, noise, bins)
    model.dynamics = [np.zeros((4, 4))]
    for name in SESSIONS[1:]:
        turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        dynamics = np.zeros((4, 4))
        dynamics[:3, :3] = turned * [0.95, 0.7, 0.2]
        model.set_dynamics([name], torch.from_numpy(dynamics))
        model.dynamics.append(dynamics)
    return model


def batch(model, n_bins=5, sessions=("monday", "tuesday"), seed=1):
    """Two windows with units of their own, in orders of their own; the second one is padded in both directions."""
    rng = np.random.default_rng(seed)
    index = torch.tensor(model.loading_rows.tokenizer([*UNITS[::-1][:7], *UNITS[2:8]])).split([7, 6])
    index = torch.stack([index[0], torch.nn.functional.pad(index[1], (0, 1))])
    keep = torch.from_numpy(rng.random((2, n_bins, 7)) < 0.6)
    keep[1, :, 6] = False
    if n_bins > 1:
        keep[0, 2] = False
        keep[1, -1] = False
    return {
        "values": torch.from_numpy(rng.normal(size=(2, n_bins, 7))),
        "keep": keep,
        "unit_index": index,
        "session_index": torch.tensor(model.dynamics_rows.tokenizer(list(sessions))),
    }


def conditioned(truth, dynamics, values, keep):
    """Mean and variance (T, K) of the factors by conditioning the joint Gaussian of all T * N values.

    Units whose loadings are known from few bins speak against all factors of a bin in which they are kept.
    """
    n_bins, k = len(values), len(dynamics)
    loadings = np.pad(truth.loadings, ((0, 0), (0, k - truth.loadings.shape[1])))
    powers = [np.linalg.matrix_power(dynamics, lag) for lag in range(n_bins)]
    prior = np.block([[powers[s - t].T if s >= t else powers[t - s] for s in range(n_bins)] for t in range(n_bins)])
    doubt = np.repeat(keep @ (1 / truth.bins), k)
    prior = np.linalg.inv(np.linalg.inv(prior) + np.diag(doubt))
    to_values = np.kron(np.eye(n_bins), loadings)
    cross = prior @ to_values.T
    full = to_values @ cross + np.diag(np.tile(truth.noise, n_bins))
    kept = keep.flatten()
    gain = cross[:, kept] @ np.linalg.inv(full[np.ix_(kept, kept)])
    variance = np.diag(prior - gain @ cross[:, kept].T)
    return (gain @ values.flatten()[kept]).reshape(n_bins, k), variance.reshape(n_bins, k)


@pytest.mark.parametrize(
    ("n_bins", "sessions"), [(1, ("monday", "tuesday")), (5, ("quiet", "quiet")), (5, ("monday", "tuesday"))]
)
def test_posterior_and_predictions_are_gaussian_conditioning(model, n_bins, sessions):
    inputs = batch(model, n_bins, sessions)
    z, variance = model(**inputs)
    predicted = model.predict(z, torch.tensor([model.loading_rows.tokenizer(UNITS)] * 2)).detach().numpy()
    for b, units in enumerate([np.arange(9)[::-1][:7], np.arange(2, 8)]):
        values, keep = (inputs[name][b, :, : len(units)].numpy() for name in ("values", "keep"))
        truth = model.truth
        seen = FactorAnalysis(np.zeros(len(units)), truth.loadings[units], truth.noise[units], truth.bins[units])
        expected, spread = conditioned(seen, model.dynamics[SESSIONS.index(sessions[b])], values, keep)
        np.testing.assert_allclose(z[b].detach(), expected, atol=1e-6)
        np.testing.assert_allclose(variance[b].detach(), spread, atol=1e-6)
        np.testing.assert_allclose(predicted[b], expected[:, :3] @ model.truth.loadings.T, atol=1e-6)
    assert (z[..., 3].abs() < 1e-12).all()  # a factor that is not used


def test_bins_that_share_a_mask_are_listed_once(model):
    inputs = batch(model)
    patterns, which = zip(*(torch.unique(k, dim=0, return_inverse=True) for k in inputs["keep"]), strict=True)
    patterns = torch.nn.utils.rnn.pad_sequence(list(patterns), batch_first=True)
    listed = {"patterns": patterns, "pattern_index": torch.stack(which)}
    torch.testing.assert_close(model(**inputs, **listed), model(**inputs))
    inputs["keep"] = inputs["keep"][:, :1].expand_as(inputs["keep"])
    torch.testing.assert_close(model(**inputs, patterns=inputs["keep"][:, :1]), model(**inputs))


@pytest.mark.parametrize("n_bins", [1, 5])
def test_gradients(model, n_bins):
    inputs = batch(model, n_bins)
    weights = [table.weight.detach().clone().requires_grad_() for table in model.tables]

    def outputs(loadings, log_noise, log_bins, curve, values):
        rows = {"loading_rows": loadings, "log_noise_rows": log_noise, "log_bins_rows": log_bins, "curve_rows": curve}
        replaced = {f"{name}.weight": weight for name, weight in rows.items()}
        return torch.func.functional_call(model, replaced, (), inputs | {"values": values}).mean

    assert torch.autograd.gradcheck(outputs, (*weights, inputs["values"].requires_grad_()), fast_mode=True)
    assert not model.dynamics_rows.weight.requires_grad


def test_responses_curve(model):
    inputs = batch(model)
    z, index = model(**inputs).mean, inputs["unit_index"]
    straight = model.predict(z, index)
    with torch.no_grad():
        model.curve_rows.weight[index[0, 2]] = 0.1
    expected = straight.clone()
    for b, units in enumerate(index):
        curved = units == index[0, 2]
        expected[b][:, curved] += 0.1 * ((1 + straight[b][:, curved] ** 2) ** 0.5 - 1)
    torch.testing.assert_close(model.predict(z, index), expected)


def test_units_order_padding_and_batch_mates_do_not_matter(model):
    inputs = batch(model)
    expected = model(**inputs)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    turned = {name: x[..., order] if x.ndim > 1 else x for name, x in inputs.items()}
    torch.testing.assert_close(model(**turned), expected)
    alone = {name: x[1:, :4, :6] if x.ndim == 3 else x[1:, :6] if x.ndim == 2 else x[1:] for name, x in inputs.items()}
    torch.testing.assert_close(model(**alone), type(expected)(*(x[1:, :4] for x in expected)))
    hidden = torch.where(inputs["keep"], inputs["values"], torch.full_like(inputs["values"], 1e6))  # it is not read
    torch.testing.assert_close(model(**inputs | {"values": hidden}), expected)


def test_hidden_bins_are_predicted_from_their_neighbours(model):
    inputs = batch(model)
    z, variance = model(**inputs)
    assert z[0, 2, :3].abs().max() > 0.1 and variance[0, 2, :3].sum() < 2.9
    far = variance[1, :, :3].sum(-1)
    assert (far > variance[1, :4, :3].sum(-1).max()).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("n_bins", [1, 5])
def test_limits_are_exact_and_half_precision_is_safe(model, n_bins):
    inputs = batch(model, n_bins)
    z, variance = model(**inputs | {"keep": torch.zeros_like(inputs["keep"])})
    assert (z == 0).all() and (variance - 1).abs().max() < 1e-12
    assert (model.predict(z, inputs["unit_index"]) == 0).all()
    expected = model(**inputs)
    model.float()
    inputs["values"] = inputs["values"].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, variance = model(**inputs)
        assert z.dtype == variance.dtype == model.predict(z, inputs["unit_index"]).dtype == torch.float32
    torch.testing.assert_close(z.double(), expected.mean, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.log_noise_rows.weight.fill_(-12.0)  # units that are nearly all shared
    assert torch.isfinite(model(**inputs | {"values": 1e3 * inputs["values"]}).mean).all()


def test_rates_stay_finite_however_low_the_prediction():
    predicted = torch.tensor([-1e6, -30.0, -1.0, 0.0, 2.0, 1e6], requires_grad=True)
    ratio = log_rate_ratio(predicted, torch.tensor(0.25), torch.tensor(0.5))
    rate = 1 + 2 * predicted.detach().double().numpy()
    exact = np.arcsinh(rate / 0.2) - np.arcsinh(1 / 0.2)
    np.testing.assert_allclose(ratio.detach(), exact, rtol=1e-5, atol=1e-6)
    ratio.sum().backward()
    assert torch.isfinite(predicted.grad).all() and (predicted.grad > 0).all()
    assert (log_rate_ratio(predicted, torch.tensor(1e-4), torch.tensor(0.01)) == 0).all()  # hardly a spike in training
