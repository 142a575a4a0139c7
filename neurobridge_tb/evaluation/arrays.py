"""Metrics take torch tensors or numpy arrays; inside they compute with numpy."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError

Array = NDArray[Any] | torch.Tensor
Floats = NDArray[np.float64]


def to_numpy(values: Array) -> NDArray[Any]:
    """``values`` as a numpy array; a tensor is detached and copied from its device."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    return np.asarray(values)


def to_floats(values: Array) -> Floats:
    """``values`` as float64 (not copied where it is that already)."""
    return to_numpy(values).astype(np.float64, copy=False)


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
