"""Which intervals lie within the intervals of a split."""

import numpy as np
from numpy.typing import NDArray

_TOLERANCE_S = 1e-6


def lie_within(bounds: NDArray[np.float64], domain: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each interval lies within one of a domain's.

    Args:
        bounds: Starts and ends in s, (n, 2).
        domain: Starts and ends in s, (m, 2), in the order of time and without overlap; may be empty.

    Returns:
        (n,).
    """
    if not len(domain):
        return np.zeros(len(bounds), dtype=bool)
    own = np.searchsorted(domain[:, 0], bounds[:, 0] + _TOLERANCE_S, side="right") - 1
    return (own >= 0) & (bounds[:, 1] <= domain[own, 1] + _TOLERANCE_S)
