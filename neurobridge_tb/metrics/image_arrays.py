"""Images on their way into a metric: checked, and resized to a square."""

import numpy as np
import torch
from torch.nn import functional as F

from neurobridge_tb.arrays import Array, to_numpy
from neurobridge_tb.errors import InputError


def resize(images: Array, size: int) -> torch.Tensor:
    """Resize to a square.

    Args:
        images: uint8 RGB ``(n, H, W, 3)``.
        size: Side in pixels.

    Returns:
        float32 ``(n, 3, size, size)`` in [0, 1]; bilinear, antialiased.

    Raises:
        InputError: The images are not uint8 RGB of that shape.
    """
    pictures = to_numpy(images)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise InputError(
            expected="uint8 RGB images (n, height, width, 3)",
            found=f"{pictures.dtype} of shape {pictures.shape}",
            fix="Convert the images first; floats in [0, 1] are multiplied by 255 and rounded.",
        )
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(values, (size, size), mode="bilinear", antialias=True)
