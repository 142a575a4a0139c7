"""Attention in blocks must be plain attention, forward and backward, however the batch is cut."""

import pytest
import torch

from neurobridge_tb.nn import bin_attention as module
from neurobridge_tb.nn.bin_attention import bin_attention


def make_inputs(n_items=3, n_bins=4, n_units=6, n_rows=9, heads=2, n_queries=3, dim_head=4, density=0.6):
    generator = torch.Generator().manual_seed(n_bins * 100 + n_units)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    keep = torch.rand(n_items, n_bins, n_units, generator=generator) < density
    keep[0] = True  # an item that keeps everything
    keep[-1, :, 0] = False  # and one without one of its units
    keep[:, 0] |= torch.arange(n_units) == n_units - 1  # no item without cells
    if n_bins > 2:
        keep[1, 2] = False  # a bin without cells
    return {
        "q": normal(n_items, n_bins, heads, n_queries, dim_head),
        "values": normal(n_items, n_bins, n_units),
        "scale": normal(n_items, n_bins, n_units).abs() + 0.2,
        "slope": normal(2, heads, dim_head, n_rows),
        "offset": normal(2, heads, dim_head, n_rows),
        "keep": keep,
        "index": torch.stack([torch.randperm(n_rows, generator=generator)[:n_units] for _ in range(n_items)]),
        "dropout": 0.0,
        "seed": torch.tensor(5),
    }


def plain_attention(q, values, scale, slope, offset, keep, index, dropout, seed):
    """The same, with all tokens and scores."""
    slope, offset = (x[..., index].permute(0, 3, 1, 2, 4)[:, :, None] for x in (slope, offset))  # (2, B, 1, H, d, N)
    key, value = scale[:, :, None, None] * (values[:, :, None, None] * slope + offset)
    score = (q @ key).masked_fill(~keep[:, :, None, None], float("-inf"))
    p = score.softmax(-1).nan_to_num(0.0)
    return p @ value.mT, score.logsumexp(-1), p.sum(-1)


def gradients(function, inputs):
    names = ("q", "values", "scale", "slope", "offset")
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    out, log_sum, mass = function(**(inputs | leaves))
    generator = torch.Generator().manual_seed(1)
    weight, weight_log = (torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in (out, log_sum))
    seen = inputs["keep"].any(-1)[..., None, None].expand_as(log_sum)
    total = (out * weight).sum() + (log_sum * weight_log)[seen].sum() + (mass * weight_log).sum()
    return (out, log_sum, mass), torch.autograd.grad(total, list(leaves.values()))


@pytest.mark.parametrize(("n_bins", "n_units"), [(1, 1), (1, 6), (5, 1), (4, 6)])
@pytest.mark.parametrize("block", [1, 40, 2**17])
@pytest.mark.parametrize("may_look", [True, False])  # False: what runs where the mask's values are out of reach
def test_blocks_give_plain_attention(monkeypatch, n_bins, n_units, block, may_look):
    monkeypatch.setattr(module, "CPU_BLOCK", block)
    monkeypatch.setattr(module, "ACCELERATOR_BLOCK", block)
    monkeypatch.setattr(module, "_may_look", lambda mask: may_look)
    inputs = make_inputs(n_bins=n_bins, n_units=n_units)
    (actual, actual_gradients), (expected, expected_gradients) = (
        gradients(f, inputs) for f in (bin_attention, plain_attention)
    )
    for a, e in zip((*actual, *actual_gradients), (*expected, *expected_gradients), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)


def test_an_item_without_cells_gets_nothing():
    inputs = make_inputs()
    inputs["keep"][1] = False
    out, log_sum, mass = bin_attention(**inputs)
    assert not out[1].any() and not mass[1].any() and (log_sum[1] == -torch.inf).all()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_the_function(dropout):
    inputs = make_inputs(n_items=2, n_bins=2, n_units=3) | {"dropout": dropout}
    inputs["keep"][:] = True
    inputs["keep"][1, 1, 2] = False
    for name in ("q", "values", "scale", "slope", "offset"):
        inputs[name].requires_grad_()
    assert torch.autograd.gradcheck(bin_attention, tuple(inputs.values()), atol=1e-7)


def test_dropout_drops_weights_and_keeps_their_expectation():
    inputs = make_inputs()
    expected, _, _ = bin_attention(**inputs)
    draws = [bin_attention(**(inputs | {"dropout": 0.3, "seed": torch.tensor(i)})) for i in range(600)]
    outs, masses = torch.stack([d[0] for d in draws]), torch.stack([d[2] for d in draws])
    error = outs.std(0) / len(outs) ** 0.5
    assert ((outs.mean(0) - expected).abs() <= 5 * error + 1e-9).all()
    assert masses.std(0).max() > 0.1
    assert torch.equal(draws[3][0], bin_attention(**(inputs | {"dropout": 0.3, "seed": torch.tensor(3)}))[0])


def test_it_is_a_sound_operator():
    inputs = make_inputs()
    for name in ("q", "values", "scale", "slope", "offset"):
        inputs[name].requires_grad_()
    torch.library.opcheck(
        bin_attention,
        tuple(inputs.values()),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_half_precision_is_close():
    inputs = {
        k: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for k, x in make_inputs().items()
    }
    out, expected = gradients(bin_attention, inputs | {"q": inputs["q"].bfloat16()}), gradients(bin_attention, inputs)
    assert out[0][0].dtype == torch.bfloat16 and out[0][1].dtype == torch.float32
    for a, e in zip((*out[0], *out[1]), (*expected[0], *expected[1]), strict=True):
        seen = e.isfinite()
        assert (a.float() - e)[seen].norm() < 0.02 * e[seen].norm()
