"""A window of a recording whose parts are cut when they are read: upstream's ``slice`` cuts everything at once."""

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Interval, IrregularTimeSeries, RegularTimeSeries

_TIMED = (IrregularTimeSeries, RegularTimeSeries, Interval)
_EPS = 1e-9  # of a bin: as upstream's slice has it


class LazyWindow:
    """What ``recording.slice(start, end)`` holds, read from the file part by part.

    Args:
        recording: A whole recording; what it has loaded stays loaded.
        start: In s.
        end: In s.
    """

    def __init__(self, recording: Data, start: float, end: float):
        self._recording, self._start, self._end = recording, start, end
        self.absolute_start = recording.absolute_start + start

    @property
    def span(self) -> tuple[Data, float, float]:
        """The recording, and where in it the window starts and ends in s."""
        return self._recording, self._start, self._end

    def keys(self) -> list[str]:
        """Names of the parts."""
        return self._keys

    @cached_property
    def _keys(self) -> list[str]:
        return self._recording.keys()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        part = getattr(self._recording, name)
        if isinstance(part, RegularTimeSeries) and len(part.domain) == 1:
            part = SeriesWindow(part, self._start, self._end)
        elif name == "domain":
            part = part & Interval(self._start, self._end)
            part.start, part.end = part.start - self._start, part.end - self._start
        elif isinstance(part, _TIMED) or (isinstance(part, Data) and part.domain is not None):
            part = part.slice(self._start, self._end)
        self.__dict__[name] = part
        return part

    def get_nested_attribute(self, path: str) -> Any:
        """A part of a part, as in ``"cursor.velocity"``."""
        part: Any = self
        for name in path.split("."):
            part = getattr(part, name)
        return part


class SeriesWindow:
    """What ``series.slice(start, end)`` holds, for a regular series without gaps.

    Args:
        series: Of a whole recording.
        start: In s.
        end: In s.
    """

    def __init__(self, series: RegularTimeSeries, start: float, end: float):
        rate, domain, n_bins = series.sampling_rate, series.domain, len(series)
        begin, stop = float(domain.start[0]), float(domain.end[0])
        first, last = (
            n_bins if time > stop else min(max(_ceil((time - begin) * rate), 0), n_bins) for time in (start, end)
        )
        self._series, self.sampling_rate, self._bins = series, rate, slice(first, last)
        self._begin = begin + first / rate - start

    def __len__(self) -> int:
        return max(0, self._bins.stop - self._bins.start)

    def keys(self) -> list[str]:
        """Names of its arrays."""
        return self._series.keys()

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """(T,) in s from the window's start."""
        return self._begin + np.arange(len(self), dtype=np.float64) / self.sampling_rate

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._series.keys():
            raise AttributeError(name)
        array = np.asarray(self._series.__dict__[name][self._bins])  # of the file, where it is not loaded
        self.__dict__[name] = array
        return array


def _ceil(x: float) -> int:
    nearest = round(x)
    return nearest if abs(x - nearest) < _EPS else math.ceil(x)
