"""Controls that must stand beside a model's figures: shuffled targets, the mean image."""

import numpy as np

from neurobridge_tb.arrays import Array, to_numpy
from neurobridge_tb.errors import InputError


def shuffled(rows: Array, *, seed: int = 0) -> np.ndarray:
    """Rows in a random order without a fixed point, for the shuffled-labels baseline.

    Args:
        rows: ``(n, …)`` targets, n at least 2; train on them in this order, test on the true ones.
        seed: Seed of the order (a single random cycle, Sattolo 1986).
    """
    values = to_numpy(rows)
    if len(values) < 2:
        raise InputError(expected="at least two rows to shuffle", found=f"{len(values)}", fix="Pass all targets.")
    cycle = np.random.default_rng(seed).permutation(len(values))
    order = np.empty(len(values), np.int64)
    order[cycle] = np.roll(cycle, 1)
    return values[order]


def mean_image(images: Array, n: int) -> np.ndarray:
    """The mean of uint8 training images ``(m, H, W, 3)``, once for each of ``n`` test images ``(n, H, W, 3)``."""
    mean = to_numpy(images).mean(axis=0, dtype=np.float64).round().astype(np.uint8)
    return np.repeat(mean[None], n, axis=0)
