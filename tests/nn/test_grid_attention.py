"""The grid layers must be upstream's functions exactly, for any mask, raggedness and batch."""

import copy

import pytest
import torch

from neurobridge_tb._upstream import InfiniteVocabEmbedding, RotaryCrossAttention, RotaryTimeEmbedding
from neurobridge_tb.nn.grid_decoder import Cells, grid_cross_attention
from neurobridge_tb.nn.value_attention import grid_value_attention, value_token_rows

DIM, DIM_HEAD = 16, 8


ROTARY = RotaryTimeEmbedding(head_dim=DIM_HEAD, rotate_dim=DIM_HEAD // 2, t_min=1e-2, t_max=2.0).double()


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attention(rotate_value: bool) -> RotaryCrossAttention:
    layer = RotaryCrossAttention(dim=DIM, heads=2, dim_head=DIM_HEAD, rotate_value=rotate_value)
    for norm in (layer.norm, layer.norm_context):  # gains and biases that matter
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
    return layer


@pytest.mark.parametrize(("n_bins", "n_units"), [(1, 1), (1, 9), (5, 1), (4, 7)])
@pytest.mark.parametrize("same_units", [True, False])
@pytest.mark.parametrize("unit_value_maps", [True, False])
def test_grid_value_attention_is_upstreams_function_of_the_tokens(n_bins, n_units, same_units, unit_value_maps):
    torch.manual_seed(n_bins * 10 + n_units)
    n_batch, n_latents, vocab = 3, 6, 12
    layer, rotary_emb = attention(rotate_value=True), ROTARY
    value_map = torch.nn.Linear(1, DIM // 2)
    unit_emb, gain_emb = (InfiniteVocabEmbedding(DIM // 2, init_scale=s) for s in (1.0, 0.5))
    for table in (unit_emb, gain_emb):
        table.initialize_vocab([str(i) for i in range(vocab)])
    index = torch.randint(1, vocab + 1, (n_batch, n_units))
    if same_units:
        index = index[:1].expand(n_batch, -1)
    latents = torch.randn(n_batch, n_latents, DIM)
    latent_times, times = torch.rand(n_batch, n_latents), torch.rand(n_batch, n_bins)
    values = torch.randn(n_batch, n_bins, n_units) * 3
    keep = torch.rand(n_batch, n_bins, n_units) > 0.4
    keep[:, 0, 0] = True

    slope, offset = value_token_rows(value_map, unit_emb, gain_emb if unit_value_maps else None, index)
    tokens = values[..., None] * slope[:, None] + offset[:, None]
    plain = torch.cat([value_map(values[..., None]), unit_emb(index)[:, None].expand(-1, n_bins, -1, -1)], -1)
    if not unit_value_maps:
        torch.testing.assert_close(tokens, plain)  # CaPOYO's token
    expected = layer(
        latents,
        tokens.flatten(1, 2),
        rotary_emb(latent_times),
        rotary_emb(times).repeat_interleave(n_units, dim=1),
        keep.flatten(1),
    )
    rows = torch.arange(index.numel()).view_as(index)
    actual = grid_value_attention(
        layer, latents, latent_times, values, keep, times, slope.flatten(0, 1), offset.flatten(0, 1), rows, rotary_emb
    )
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-9)

    parameters = [*layer.parameters(), *value_map.parameters(), unit_emb.weight]
    parameters += [gain_emb.weight] if unit_value_maps else []
    weight = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad((actual * weight).sum(), parameters, retain_graph=True),
        torch.autograd.grad((expected * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-8)


def test_masked_values_do_not_matter():
    torch.manual_seed(0)
    layer, rotary_emb = attention(rotate_value=True), ROTARY
    slope, offset, index = torch.randn(5, DIM), torch.randn(5, DIM), torch.arange(5).expand(2, -1)
    latents, latent_times, times = torch.randn(2, 3, DIM), torch.rand(2, 3), torch.rand(2, 4)
    values = torch.randn(2, 4, 5)
    keep = torch.rand(2, 4, 5) > 0.5
    keep[:, 1, 1] = True
    results = [
        grid_value_attention(layer, latents, latent_times, v, keep, times, slope, offset, index, rotary_emb)
        for v in (values, values.masked_fill(~keep, float("nan")))
    ]
    torch.testing.assert_close(*results)


def test_grid_cross_attention_is_upstreams_function_of_the_queries():
    torch.manual_seed(1)
    layer, rotary_emb = attention(rotate_value=False), ROTARY
    queries, latents = torch.randn(2, 5, DIM), torch.randn(2, 7, DIM)
    times, latent_times = torch.rand(2, 3), torch.rand(2, 7)
    expected = layer(
        queries[:, None].expand(-1, 3, -1, -1).flatten(1, 2),
        latents,
        rotary_emb(times).repeat_interleave(5, dim=1),
        rotary_emb(latent_times),
    ).unflatten(1, (3, 5))
    queried = torch.rand(2, 3, 5) > 0.5
    inputs = (layer, queries, times, latents, latent_times, rotary_emb)
    torch.testing.assert_close(grid_cross_attention(*inputs), expected, rtol=1e-6, atol=1e-10)
    some = grid_cross_attention(*inputs, Cells(*queried.nonzero().T))
    torch.testing.assert_close(some, expected[queried], rtol=1e-6, atol=1e-10)


def ragged_batch():
    """Two sessions of 7 and 4 units, the second one padded, with 3 bins; and the tokens that exist."""
    torch.manual_seed(3)
    unit_emb, gain_emb = (InfiniteVocabEmbedding(DIM // 2, init_scale=s) for s in (1.0, 0.5))
    for table in (unit_emb, gain_emb):
        table.initialize_vocab([str(i) for i in range(11)])
    layer, value_map = attention(rotate_value=True), torch.nn.Linear(1, DIM // 2)
    index = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 0, 0, 0]])
    keep = (index > 0)[:, None].repeat(1, 3, 1)
    keep[0, :, 2] = False  # a masked unit
    keep[1, 1] = False  # a masked bin
    keep[0, 0, 5] = False  # a masked cell
    values = torch.randn(2, 3, 7).masked_fill(~keep, 0.0)
    slope, offset = value_token_rows(value_map, unit_emb, gain_emb, torch.arange(12))
    return layer, index, keep, values, slope, offset


def test_sessions_of_a_batch_do_not_mix_and_padding_does_not_matter():
    layer, index, keep, values, slope, offset = ragged_batch()
    latents, latent_times, times = torch.randn(2, 5, DIM), torch.rand(2, 5), torch.rand(2, 3)
    together = grid_value_attention(layer, latents, latent_times, values, keep, times, slope, offset, index, ROTARY)
    for item, n_units in enumerate((7, 4)):
        own = slice(item, item + 1)
        only, rows = (own, slice(None), slice(n_units)), index[own, None, :n_units]
        expected = layer(
            latents[own],
            (values[only][..., None] * slope[rows] + offset[rows]).flatten(1, 2),
            ROTARY(latent_times[own]),
            ROTARY(times[own]).repeat_interleave(n_units, dim=1),
            keep[only].flatten(1),
        )
        torch.testing.assert_close(together[own], expected, rtol=1e-9, atol=1e-10)


def test_gradients_of_inputs_are_upstreams():
    layer, index, keep, values, slope, offset = ragged_batch()
    latents, values = torch.randn(2, 5, DIM, requires_grad=True), values.requires_grad_()
    latent_times, times = torch.rand(2, 5), torch.rand(2, 3)
    actual = grid_value_attention(layer, latents, latent_times, values, keep, times, slope, offset, index, ROTARY)
    tokens = values[..., None] * slope[index][:, None] + offset[index][:, None]
    expected = layer(
        latents,
        tokens.flatten(1, 2),
        ROTARY(latent_times),
        ROTARY(times).repeat_interleave(7, dim=1),
        keep.flatten(1),
    )
    weight = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad((actual * weight).sum(), (latents, values)),
        torch.autograd.grad((expected * weight).sum(), (latents, values)),
        strict=True,
    ):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)


def float32_case():
    layer, index, keep, values, slope, offset = ragged_batch()
    layer, rotary_emb = layer.float(), copy.deepcopy(ROTARY).float()
    slope, offset = (x.detach().float().requires_grad_() for x in (slope, offset))
    latents, latent_times, times = (torch.randn(2, 5, DIM), torch.rand(2, 5), torch.rand(2, 3))
    arguments = (latents.float(), latent_times.float(), values.float(), keep, times.float(), slope, offset, index)

    def function():
        return grid_value_attention(layer, *arguments, rotary_emb)

    return function, [slope, offset, *layer.parameters()]


def test_bf16_autocast_is_close_to_float32():
    function, parameters = float32_case()
    expected = function()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = function()
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).norm() < 0.02 * expected.norm()
    for a, e in zip(
        torch.autograd.grad(actual.float().square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        assert a.dtype == e.dtype and (a - e).norm() < 0.05 * e.norm() + 1e-6


def test_it_compiles_to_one_graph():
    function, parameters = float32_case()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    expected, actual = function(), compiled()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    for a, e in zip(
        torch.autograd.grad(actual.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_only_and_keeps_the_expectation():
    layer, index, keep, values, slope, offset = ragged_batch()
    latents, latent_times, times = torch.randn(2, 5, DIM), torch.rand(2, 5), torch.rand(2, 3)

    def run():
        with torch.no_grad():
            return grid_value_attention(layer, latents, latent_times, values, keep, times, slope, offset, index, ROTARY)

    expected = run()
    layer.dropout = 0.3
    draws = torch.stack([run() for _ in range(600)])
    assert draws.std(0).min() > 0
    assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / 600**0.5).all()
    layer.eval()
    torch.testing.assert_close(run(), expected)
