"""What a reader has taken, left out and assumed, for the user to read."""

from dataclasses import dataclass, field

import numpy as np

from neurobridge_tb._upstream import Data, Interval, IrregularTimeSeries, RegularTimeSeries

_MOST_AREAS = 20


@dataclass
class Notes:
    """Lines about one source.

    Attributes:
        taken: What is in the recording.
        left: What the source holds besides, and why it was left out.
        assumed: What the source does not say and was assumed, and what should be looked at.
    """

    taken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def leave(self, what: str, why: str) -> None:
        self.left.append(f"{what}: {why}")


def contents(recording: Data) -> list[str]:
    """A line for each thing that a recording holds."""
    units = recording.units
    areas, counts = (
        np.unique(units.area, return_counts=True) if "area" in units.keys() else (np.array([]), np.array([]))
    )
    listed = ", ".join(f"{area or '(none)'} {n}" for area, n in zip(areas, counts, strict=True))
    span = f"{recording.domain.start[0]:g} to {recording.domain.end[-1]:g} s"
    lines = [f"{len(units.id)} units" + (f" ({listed})" if 0 < len(areas) <= _MOST_AREAS else "")]
    for name in recording.keys():
        item = getattr(recording, name)
        if name == "spikes":
            lines.append(f"spikes: {len(item.timestamps):,}, {span}")
        elif isinstance(item, RegularTimeSeries):
            lines.append(f"{name}: {item.value.shape}, {item.sampling_rate:g} Hz, {span}")
        elif isinstance(item, IrregularTimeSeries):
            lines += [f"{name}.{key}: {getattr(item, key).shape}" for key in item.keys() if key != "timestamps"]
        elif name.endswith("_domain"):
            lines.append(
                f"{name.removesuffix('_domain')}: {(item.end - item.start).sum():,.0f} s, {len(item)} intervals"
            )
        elif isinstance(item, Interval) and name != "domain":
            columns = [key for key in item.keys() if key not in ("start", "end")]
            lines.append(f"{name}: {len(item):,} rows ({', '.join(columns)})")
    return lines
