"""The faster rotary layers are upstream's functions of upstream's parameters."""

import pytest
import torch

from neurobridge_tb._upstream import RotaryCrossAttention, RotarySelfAttention, RotaryTimeEmbedding
from neurobridge_tb.nn.rotary import cross_attention, rotate, self_attention

DIM, HEADS, DIM_HEAD = 12, 3, 8
EMBEDDING = RotaryTimeEmbedding(head_dim=DIM_HEAD, rotate_dim=DIM_HEAD // 2, t_min=1e-2, t_max=2.0).double()


def rotary(*shape):
    return EMBEDDING(torch.rand(*shape, dtype=torch.float64))


def test_rotation_is_upstreams_and_can_be_undone():
    torch.manual_seed(0)
    x, times = torch.randn(2, 5, HEADS, DIM_HEAD, dtype=torch.float64), rotary(2, 5)
    turned = rotate(x, times[:, :, None])
    torch.testing.assert_close(turned, RotaryTimeEmbedding.rotate(x, times, unsqueeze_dim=2))
    torch.testing.assert_close(rotate(turned, times[:, :, None], inverse=True), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_keeps_the_dtype(dtype):
    x, times = torch.randn(4, DIM_HEAD, dtype=dtype), rotary(4)
    turned = rotate(x, times)
    assert turned.dtype == dtype
    expected = RotaryTimeEmbedding.rotate(x.double(), times, unsqueeze_dim=0)[0]
    torch.testing.assert_close(turned.double(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_layers_are_upstreams(masked):
    torch.manual_seed(1)
    options = dict(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=True)
    cross, own = (layer(**options).double() for layer in (RotaryCrossAttention, RotarySelfAttention))
    x, context = (torch.randn(2, n, DIM, dtype=torch.float64, requires_grad=True) for n in (4, 9))
    times, context_times = rotary(2, 4), rotary(2, 9)
    mask = torch.rand(2, 9) > 0.4 if masked else None
    for actual, expected, inputs in (
        (
            cross_attention(cross, x, cross.to_kv(cross.norm_context(context)), times, context_times, mask),
            cross(x, context, times, context_times, mask),
            (x, context, *cross.parameters()),
        ),
        (self_attention(own, x, times), own(x, times), (x, *own.parameters())),
    ):
        torch.testing.assert_close(actual, expected)
        weight = torch.randn_like(expected)
        for a, e in zip(
            torch.autograd.grad((actual * weight).sum(), inputs),
            torch.autograd.grad((expected * weight).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(a, e)


def test_attention_dropout_is_for_training_only():
    torch.manual_seed(2)
    layer = RotarySelfAttention(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=True, dropout=0.5).double()
    x, times = torch.randn(2, 6, DIM, dtype=torch.float64), rotary(2, 6)
    assert not torch.equal(self_attention(layer, x, times), self_attention(layer, x, times))
    layer.eval()
    torch.testing.assert_close(self_attention(layer, x, times), layer(x, times))
