"""``RotaryTimeEmbedding.rotate`` is the plain formula, whichever way it is computed."""

import pytest
import torch

from torch_brain.nn import RotaryTimeEmbedding

HEAD_DIM = 16


def plain(x, rotary_emb, unsqueeze_dim=2):
    cos, sin = rotary_emb.unsqueeze(unsqueeze_dim).to(x.dtype).chunk(2, dim=-1)
    return x * cos + RotaryTimeEmbedding._rotate_half(x) * sin


def embedding(*shape, dtype=torch.float64):
    layer = RotaryTimeEmbedding(HEAD_DIM, HEAD_DIM // 2, t_min=1e-2, t_max=2.0)
    return layer.to(dtype)(torch.rand(*shape, dtype=dtype))


@pytest.mark.parametrize("unsqueeze_dim, shape", [(2, (2, 5, 3)), (1, (2, 3, 5))])
def test_values_and_gradients(unsqueeze_dim, shape):
    torch.manual_seed(0)
    x = torch.randn(*shape, HEAD_DIM, dtype=torch.float64, requires_grad=True)
    rotary_emb = embedding(2, 5)
    outputs = [
        rotate(x, rotary_emb, unsqueeze_dim)
        for rotate in (RotaryTimeEmbedding.rotate, plain)
    ]
    torch.testing.assert_close(*outputs)
    weight = torch.randn_like(x)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in outputs]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype):
    x, rotary_emb = torch.randn(2, 4, 3, HEAD_DIM, dtype=dtype), embedding(2, 4)
    rotated = RotaryTimeEmbedding.rotate(x, rotary_emb)
    assert rotated.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        rotated.double(), plain(x.double(), rotary_emb), rtol=0, atol=8 * eps
    )


@pytest.mark.parametrize("offset", [0, 1])
def test_views_with_odd_strides(offset):
    wide = torch.randn(2, 5, 3, HEAD_DIM + 1)
    x, rotary_emb = wide[..., offset : offset + HEAD_DIM], embedding(2, 5).float()
    torch.testing.assert_close(
        RotaryTimeEmbedding.rotate(x, rotary_emb), plain(x, rotary_emb)
    )


def test_inverse_undoes_it():
    x, rotary_emb = torch.randn(2, 5, 3, HEAD_DIM, dtype=torch.float64), embedding(2, 5)
    there = RotaryTimeEmbedding.rotate(x, rotary_emb)
    back = RotaryTimeEmbedding.rotate(there, RotaryTimeEmbedding.invert(rotary_emb))
    torch.testing.assert_close(back, x)
