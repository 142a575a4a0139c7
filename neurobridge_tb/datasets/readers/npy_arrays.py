"""Arrays of numbers in .npy files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError


def load_array(path: Path) -> NDArray:
    """The array of a .npy file; files that would have to be unpickled are refused.

    Raises:
        InputError: No such file, or not an array of numbers.
    """
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of arrays (.npz)")
    except Exception as error:  # of a damaged header numpy raises SyntaxError, MemoryError and whatever comes of it
        there = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
        raise InputError(
            expected=f"an array of numbers at {path}",
            found=f"{error}" if path.exists() else f"no such file, among {', '.join(there[:8]) or 'no files'}",
            fix="Name the folder that holds it.",
        ) from error
    return array
