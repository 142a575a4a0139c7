"""Attention to the value tokens of each time bin, block by block: neither tokens nor scores of a batch ever exist.

Queries attend to the units u of a bin. Its keys and values are both of the form ``scale_u * (value_u * slope_u +
offset_u)``. The logarithm of the softmax's denominator comes along, with which the outputs of several bins combine
exactly (as FlashAttention combines blocks: Dao et al. 2022, https://arxiv.org/abs/2205.14135). The backward pass makes
each block again.

Both passes are operators of their own, so ``torch.compile`` does not unroll their loops.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

CPU_BLOCK = 2**17  # scores of a block, for each thread: what it needs stays in the cache
ACCELERATOR_BLOCK = 2**24  # scores of a block where launches cost most
_LOWEST = torch.finfo(torch.float32).min


@torch.library.custom_op("neurobridge_tb::bin_attention", mutates_args=())
def bin_attention(
    q: Tensor,
    values: Tensor,
    scale: Tensor,
    slope: Tensor,
    offset: Tensor,
    keep: Tensor,
    index: Tensor,
    dropout: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of queries to the units of each bin.

    Softmax and sums are in the dtype of ``values``, matrix products in that of ``q``.

    Args:
        q: (B, T, H, L, d) queries, times the softmax's scale.
        values: (B, T, N), finite everywhere.
        scale: (B, T, N).
        slope: (2, H, d, R) rows for the keys and for the values of units, and
        offset: (2, H, d, R).
        keep: (B, T, N) which cells exist.
        index: (B, N) which of the R rows is each unit's.
        dropout: Probability to drop an attention weight.
        seed: () int64 on the CPU: seed of dropout.

    Returns:
        Attended values (B, T, H, L, d), 0 for a bin without cells; logarithm of the softmax's denominator (B, T, H, L),
        -inf for such a bin; sum of the attention weights (B, T, H, L): 1, or what dropout made of it, and 0 for such a
        bin.
    """
    blocks = _Blocks(values, scale, slope, offset, keep, index)
    draws = _DropoutFactors(dropout, seed, q.device)
    out = torch.zeros_like(q)
    log_sum = values.new_full(q.shape[:-1], float("-inf"))
    mass = values.new_zeros(q.shape[:-1])
    for where in blocks.of(n_queries=q.shape[2] * q.shape[3]):
        key, value = blocks.tokens().to(q.dtype)
        p = blocks.product("scores", q[where], key).mul_(blocks.scale)
        if blocks.absent is not None:
            p.masked_fill_(blocks.absent, float("-inf"))
        top = p.amax(-1, keepdim=True).clamp_min_(_LOWEST)
        total = p.sub_(top).exp_().sum(-1, keepdim=True)
        log_sum[where] = (top + total.log()).squeeze(-1)
        left = p.mul_(draws(p)).sum(-1, keepdim=True) if dropout else total
        total = total.clamp_min(1)  # at least 1 wherever there is a cell
        mass[where] = (left / total).squeeze(-1)
        out[where] = (p.mul_(blocks.scale).to(q.dtype) @ value.mT / total).to(q.dtype)
    return out, log_sum, mass


@torch.library.custom_op("neurobridge_tb::bin_attention_backward", mutates_args=())
def _backward(
    d_out: Tensor,
    d_log_sum: Tensor,
    d_mass: Tensor,
    out: Tensor,
    log_sum: Tensor,
    mass: Tensor,
    q: Tensor,
    values: Tensor,
    scale: Tensor,
    slope: Tensor,
    offset: Tensor,
    keep: Tensor,
    index: Tensor,
    dropout: float,
    seed: Tensor,
    values_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q``, ``values`` (0 unless ``values_too``), ``scale``, ``slope`` and ``offset``."""
    blocks = _Blocks(values, scale, slope, offset, keep, index)
    draws = _DropoutFactors(dropout, seed, q.device)
    d_q, d_values, d_scale = torch.zeros_like(q), torch.zeros_like(values), torch.zeros_like(scale)
    d_all = d_log_sum - d_mass * mass - (d_out * out).sum(-1, dtype=d_mass.dtype)  # of all scores of a softmax
    for where in blocks.of(n_queries=q.shape[2] * q.shape[3]):
        tokens = blocks.tokens().to(q.dtype)
        x = torch.stack([q[where], d_out[where]])
        raw = blocks.product("scores", x, tokens)  # scores and gradients of weights, but for the cells' scale
        both = torch.mul(raw, blocks.scale, out=blocks.buffer("weights", raw.shape))
        p, d_score = both
        p.sub_(log_sum[where].clamp_min(_LOWEST).unsqueeze(-1)).exp_()
        if blocks.absent is not None:
            p.masked_fill_(blocks.absent, 0.0)
        d_score.add_(d_mass[where].unsqueeze(-1))
        factors = draws(p) if dropout else None
        if factors is not None:
            d_score.mul_(factors)
        d_score.add_(d_all[where].unsqueeze(-1)).mul_(p)
        if factors is not None:
            p.mul_(factors)
        d_scale[blocks.cells] = raw[1].mul_(p).addcmul_(raw[0], d_score).sum((2, 3))
        both = both.mul_(blocks.scale).to(q.dtype)
        d_q[where] = both[1] @ tokens[0].mT
        d_tokens = blocks.product("gradients", x.flip(0).mT, both)  # of the units' values, then of their keys
        if values_too:
            d_values[blocks.cells] = (d_tokens.flip(0) * blocks.slope).sum((0, 3, 4))
        blocks.add_gradients(d_tokens)
    d_slope, d_offset = blocks.table_gradients()
    return d_q, d_values, d_scale, d_slope.flip(0), d_offset.flip(0)


def _may_look(mask: Tensor) -> bool:
    """Whether to decide by a mask's values costs nothing."""
    return mask.device.type == "cpu"


class _DropoutFactors:
    """What dropout multiplies with, drawn again in the same order by the backward pass."""

    def __init__(self, dropout: float, seed: Tensor, device: torch.device):
        self.keep = 1.0 - dropout
        if dropout:
            self.generator = torch.Generator(device).manual_seed(int(seed))

    def __call__(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).bernoulli_(self.keep, generator=self.generator).div_(self.keep)


class _Blocks:
    """A batch in blocks of (g items, t bins, n units), with the rows of a block's units and its work space.

    On the CPU a block is some bins of one item, without the bins and units of which the item keeps nothing. Elsewhere,
    where looking at the mask would wait for the device, it is some whole items.

    Attributes, of the present block:
        cells: Where it lies in a (B, T, N) array.
        values, scale: (g, t, 1, 1, n).
        absent: Like them, which of its cells do not exist; None where all do.
        slope, offset: (2, g, 1, H, d, n) rows of its units.
    """

    def __init__(self, values: Tensor, scale: Tensor, slope: Tensor, offset: Tensor, keep: Tensor, index: Tensor):
        self._values, self._scale, self._keep, self._index, self._tables = values, scale, keep, index, (slope, offset)
        self._rows: Tensor | None = None
        self._row_gradients: tuple[Tensor, Tensor] | None = None
        self._buffers: dict[str, Tensor] = {}

    def of(self, n_queries: int) -> Iterator[tuple[slice, slice]]:
        """Go through the blocks; yields where each lies in a (B, T, …) array."""
        n_items, n_bins, n_units = self._keep.shape
        if not _may_look(self._keep):
            step = max(1, ACCELERATOR_BLOCK // (n_queries * n_bins * n_units))
            for start in range(0, n_items, step):
                items = slice(start, start + step)
                self._choose(self._index[items])
                yield self._enter(items, slice(None), slice(None), ~self._keep[items])
            return
        for item in range(n_items):
            items, keep = slice(item, item + 1), self._keep[item]
            units = slice(None) if keep.any(0).all() else keep.any(0).nonzero()[:, 0]
            rows, absent = self._index[items, units], ~keep[None, :, units]
            if self._rows is None or not torch.equal(rows, self._rows):
                self._choose(rows)
            step = max(1, CPU_BLOCK * torch.get_num_threads() // (n_queries * max(1, rows.numel())))
            for start in range(0, n_bins, step):
                bins = slice(start, start + step)
                if not absent[:, bins].all():
                    yield self._enter(items, bins, units, absent[:, bins] if absent[:, bins].any() else None)

    def _choose(self, rows: Tensor) -> None:
        """Take the tables' ``rows`` (g, n)."""
        self._return_gradients()
        self._rows = rows
        self.slope, self.offset = (
            x.gather(3, rows.flatten().expand(*x.shape[:3], -1)).unflatten(3, rows.shape).movedim(3, 1)[:, :, None]
            for x in self._tables
        )

    def _enter(self, items: slice, bins: slice, units: slice | Tensor, absent: Tensor | None) -> tuple[slice, slice]:
        self.cells = items, bins, units
        self.values, self.scale = (x[self.cells][:, :, None, None] for x in (self._values, self._scale))
        self.absent = None if absent is None else absent[:, :, None, None]
        return items, bins

    @cached_property
    def _table_gradients(self) -> tuple[Tensor, Tensor]:
        slope, offset = self._tables
        return torch.zeros_like(slope), torch.zeros_like(offset)

    def buffer(self, name: str, shape: torch.Size) -> Tensor:
        """Work space, made once: to get fresh memory for each block takes longer than to fill it."""
        if name not in self._buffers or self._buffers[name].numel() < shape.numel():
            self._buffers[name] = self._values.new_empty(shape.numel())
        return self._buffers[name][: shape.numel()].view(shape)

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b`` in the named work space."""
        out = self.buffer(name, torch.Size((*a.shape[:-1], b.shape[-1])))
        if a.dtype != out.dtype:
            return out.copy_(a @ b)
        torch.bmm(a.flatten(0, -3), b.flatten(0, -3), out=out.flatten(0, -3))
        return out

    def tokens(self) -> Tensor:
        """Keys and values of the cells but for their scale, (2, g, t, H, d, n)."""
        shape = torch.broadcast_shapes(self.slope.shape, self.values.shape)
        return torch.addcmul(self.offset, self.values, self.slope, out=self.buffer("tokens", shape))

    def add_gradients(self, d_tokens: Tensor) -> None:
        """Add what the tokens' gradient is to the rows. Overwrites it."""
        if self._row_gradients is None:
            self._row_gradients = (torch.zeros_like(self.slope), torch.zeros_like(self.offset))
        d_slope, d_offset = self._row_gradients
        if d_tokens.shape[2] == 1:
            d_offset.add_(d_tokens)
            d_slope.addcmul_(d_tokens, self.values)
        else:
            d_offset.add_(d_tokens.sum(2, keepdim=True))
            d_slope.add_(d_tokens.mul_(self.values).sum(2, keepdim=True))

    def _return_gradients(self) -> None:
        if self._rows is not None and self._row_gradients is not None:
            for table, d_rows in zip(self._table_gradients, self._row_gradients, strict=True):
                place = self._rows.flatten().expand(*table.shape[:3], -1)
                table.scatter_add_(3, place, d_rows.squeeze(2).movedim(1, 3).flatten(3))
        self._row_gradients = None

    def table_gradients(self) -> tuple[Tensor, Tensor]:
        """Sums of the rows' gradients, for both tables."""
        self._return_gradients()
        return self._table_gradients


@bin_attention.register_fake
def _(q, values, *_):
    return torch.empty_like(q), values.new_empty(q.shape[:-1]), values.new_empty(q.shape[:-1])


@_backward.register_fake
def _(d_out, d_log_sum, d_mass, out, log_sum, mass, q, values, scale, slope, offset, *_):
    return tuple(torch.empty_like(x) for x in (q, values, scale, slope, offset))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.dropout, seed = inputs
    ctx.save_for_backward(*output, *tensors, seed)


def _differentiate(ctx, d_out, d_log_sum, d_mass):
    *tensors, seed = ctx.saved_tensors
    gradients = _backward(d_out.contiguous(), d_log_sum, d_mass, *tensors, ctx.dropout, seed, ctx.needs_input_grad[1])
    return *gradients, None, None, None, None


bin_attention.register_autograd(_differentiate, setup_context=_setup_context)
