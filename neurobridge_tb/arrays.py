"""Arrays on their way into a computation: tensors or numpy, checked, z-scored; inside, everything is numpy."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError

Array = NDArray[Any] | torch.Tensor
Floats = NDArray[np.float64]

_BLOCK = 2**23  # values at a time: 64 MB


def to_numpy(values: Array) -> NDArray[Any]:
    """``values`` as a numpy array; a tensor is detached and copied from its device."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    return np.asarray(values)


def to_floats(values: Array) -> Floats:
    """``values`` as float64 (not copied where it is that already)."""
    return to_numpy(values).astype(np.float64, copy=False)


def mean_of_present(values: Array, axis: int = 0) -> Floats:
    """Mean over an axis, values that are NaN left out; NaN where there is none."""
    numbers = to_floats(values)
    count = (~np.isnan(numbers)).sum(axis)
    return np.where(count > 0, np.nansum(numbers, axis=axis) / np.maximum(count, 1), np.nan)


def check_same_shape(name_a: str, a: NDArray[Any], name_b: str, b: NDArray[Any]) -> None:
    """Refuse two arrays of unlike shapes.

    Raises:
        InputError: The shapes differ.
    """
    if a.shape != b.shape:
        raise InputError(
            expected=f"{name_a} and {name_b} of one shape",
            found=f"{a.shape} and {b.shape}",
            fix="Pass the two row by row, in the same order.",
        )


@dataclass(frozen=True)
class RowBlocks:
    """A matrix that is made some rows at a time, as it does not fit into memory as a whole.

    Attributes:
        parts: Make the rows of each part, ``(m, columns)``, in order.
        shape: Rows and columns in all.
    """

    parts: Sequence[Callable[[], Array]]
    shape: tuple[int, ...]

    def __iter__(self) -> Iterator[Floats]:
        return (to_floats(part()) for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]


def row_blocks(x: "Array | RowBlocks") -> RowBlocks:
    """``x`` ``(n, columns)`` some rows at a time, float64."""
    if isinstance(x, RowBlocks):
        return x
    values = to_numpy(x)
    rows = max(1, _BLOCK // max(1, math.prod(values.shape[1:])))
    parts = [partial(values.__getitem__, slice(k, k + rows)) for k in range(0, max(1, len(values)), rows)]
    return RowBlocks(parts, values.shape)


@dataclass(frozen=True)
class Standardizer:
    """Z-scoring by training statistics; NaN becomes the training mean, 0.

    Attributes:
        mean: ``(features,)``.
        std: ``(features,)``, 1 where a feature is constant.
    """

    mean: Floats
    std: Floats

    @classmethod
    def fit(cls, x: "Array | RowBlocks") -> "Standardizer":
        """Statistics of ``x`` ``(n, features)``; a feature that is NaN throughout has mean 0."""
        total, count, square = np.zeros((3, *np.shape(x)[1:]))
        for values in row_blocks(x):
            observed = ~np.isnan(values)
            total += np.where(observed, values, 0.0).sum(0)
            count += observed.sum(0)
        count = np.maximum(count, 1)
        mean = total / count
        for values in row_blocks(x):
            square += np.nan_to_num((values - mean) ** 2, nan=0.0).sum(0)
        std = np.sqrt(square / count)
        return cls(mean, np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0))

    def __call__(self, x: Array) -> Floats:
        """``x`` in training standard deviations from the training mean."""
        return np.nan_to_num((to_floats(x) - self.mean) / self.std, nan=0.0)

    def inverse(self, z: Array) -> Floats:
        """Standardised values ``z`` in their own unit again."""
        return to_floats(z) * self.std + self.mean
