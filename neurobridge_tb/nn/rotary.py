"""Upstream's rotary attention layers, run faster: their own functions and parameters.

Upstream rotates with a dozen passes over memory, each of which leaves an array behind. A rotation of pairs is one
product of complex numbers. Where ``torch.compile`` fuses the passes, upstream's own way stays.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neurobridge_tb._upstream import RotaryCrossAttention, RotarySelfAttention, RotaryTimeEmbedding

_NO_FLOAT64 = ("mps",)  # devices that have none


class TimeEmbedding(RotaryTimeEmbedding):
    """Upstream's rotary embedding of times, of float32 times as of the float64 ones that they were rounded from."""

    def forward(self, timestamps: Tensor) -> Tensor:
        """(…) times in s -> (…, 2d)."""
        return super().forward(precise(timestamps))


def precise(timestamps: Tensor) -> Tensor:
    """Times in s in float64, where the device has it, at the nearest 0.1 us.

    Batches hold float32, as some accelerators know nothing else. That is off by up to 0.06 us in a window of 2 s, which
    turns the fastest rotation (a period of 0.1 ms) by 0.004 rad. Bins lie at multiples of 0.1 us: these come back
    exactly in windows of up to 1 s.
    """
    if timestamps.device.type in _NO_FLOAT64 or timestamps.dtype == torch.float64:
        return timestamps
    return (timestamps.double() * 1e7).round() / 1e7


def rotate(x: Tensor, rotary: Tensor, *, inverse: bool = False) -> Tensor:
    """Rotate pairs of features, as ``RotaryTimeEmbedding.rotate`` does.

    Args:
        x: (…, d).
        rotary: (…, 2d) from ``RotaryTimeEmbedding``; its leading dimensions broadcast against those of ``x``.
        inverse: Rotate back.

    Returns:
        (…, d) in the dtype of ``x``; half precision is rotated in float32.
    """
    if torch.compiler.is_compiling():
        rotary = RotaryTimeEmbedding.invert(rotary) if inverse else rotary
        return RotaryTimeEmbedding.rotate(x, rotary, unsqueeze_dim=0)[0]
    exact = torch.promote_types(x.dtype, torch.float32)
    cos, sin = rotary.to(exact).chunk(2, dim=-1)
    turn = torch.complex(cos[..., ::2], -sin[..., ::2] if inverse else sin[..., ::2])
    pairs = x.to(exact).unflatten(-1, (-1, 2))
    if pairs.stride(-1) != 1 or pairs.storage_offset() % 2 or any(s % 2 for s in pairs.stride()[:-1]):
        pairs = pairs.contiguous()  # a complex number begins at an even place
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x.dtype)


def cross_attention(
    atn: RotaryCrossAttention,
    x: Tensor,
    key_value: Tensor,
    rotary: Tensor,
    context_rotary: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """What ``atn(x, context, rotary, context_rotary, mask)`` returns; it rotates its values.

    Args:
        atn: The layer (``rotate_value=True``).
        x: (B, L, D).
        key_value: (B, n, 2 H d) ``atn.to_kv(atn.norm_context(context))``.
        rotary: (B, L, 2d).
        context_rotary: (B, n, 2d).
        mask: (B, n) bool, which of the context exist. Default: all.

    Returns:
        (B, L, D).
    """
    q = atn.to_q(atn.norm(x)).unflatten(-1, (atn.heads, -1))
    key_value = key_value.unflatten(-1, (2 * atn.heads, -1))
    q, key_value = rotate(q, rotary[:, :, None]), rotate(key_value, context_rotary[:, :, None])
    return _attend(atn, (q, *key_value.chunk(2, dim=2)), rotary, mask)


def self_attention(atn: RotarySelfAttention, x: Tensor, rotary: Tensor) -> Tensor:
    """What ``atn(x, rotary)`` returns, for x (B, L, D) and rotary (B, L, 2d); it rotates its values."""
    q_k_v = rotate(atn.to_qkv(atn.norm(x)).unflatten(-1, (3 * atn.heads, -1)), rotary[:, :, None])
    return _attend(atn, q_k_v.chunk(3, dim=2), rotary, None)


def _attend(
    atn: RotaryCrossAttention | RotarySelfAttention, q_k_v: Sequence[Tensor], rotary: Tensor, mask: Tensor | None
) -> Tensor:
    q, k, v = (y.transpose(1, 2) for y in q_k_v)  # (B, H, …, d)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask is None else mask[:, None, None],
        dropout_p=atn.dropout if atn.training else 0.0,
    )
    return atn.to_out(rotate(out.transpose(1, 2), rotary[:, :, None], inverse=True).flatten(2))
