"""The brain area of each unit, under the names that torch_brain's own sets give it."""

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import ArrayDict

# Ours first. BrainWideBench has the regions of three atlases.
AREA_COLUMNS = (
    "area",
    "area_name",
    "brain_region",
    "brain_area",
    "region_beryl",
    "region_allen",
    "region_cosmos",
    "location",
)


def unit_areas(units: ArrayDict) -> NDArray[np.str_]:
    """Area of each unit, (N,) text; "" where a recording names none."""
    for column in AREA_COLUMNS:
        if column in units.keys() and (values := np.asarray(getattr(units, column))).dtype.kind in "OSUiu":
            return values.astype(str, copy=False)
    return np.full(len(units), "")
