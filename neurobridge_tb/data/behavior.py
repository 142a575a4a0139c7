"""Windows with their behaviour."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.activity import window_values
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.registry_ext import ModalitySpec


def behavior_at(window: Any, spec: ModalitySpec, times: np.ndarray) -> np.ndarray:
    """(T, dim) behaviour of a window at ``times`` (T,) in s from its start, interpolated linearly.

    NaN where it is unknown: further than two sampling steps from the next sample that is not NaN.

    Raises:
        InputError: The recording does not hold it.
    """
    if spec.timestamp_key.split(".")[0] not in window.keys():
        raise InputError(
            expected=f"'{spec.value_key}' in recording {window.session.id}",
            found=", ".join(sorted(window.keys())),
            fix="Set target=<a series that the recording holds>.",
        )
    at, values = (np.asarray(window.get_nested_attribute(key)) for key in (spec.timestamp_key, spec.value_key))
    values = values.astype(np.float64).reshape(len(at), spec.dim)
    known = np.isfinite(values).all(1)
    if not known.any():
        return np.full((len(times), values.shape[1]), np.nan)
    reach = 2 * float(np.median(np.diff(at))) if len(at) > 1 else np.inf
    at, values = at[known], values[known]
    after = np.clip(np.searchsorted(at, times), 1, max(len(at) - 1, 1))
    distance = np.minimum(np.abs(times - at[after - 1]), np.abs(times - at[np.minimum(after, len(at) - 1)]))
    interpolated = np.stack([np.interp(times, at, column) for column in values.T], axis=1)
    return np.where(distance[:, None] <= reach, interpolated, np.nan)


def check_known(split: str, target: str, behavior: Sequence[np.ndarray]) -> None:
    """Refuse a split in which a behaviour is never known, or never changes: nothing can be learnt or scored.

    Args:
        split: Its name.
        target: That of the behaviour.
        behavior: (T, dim) known values of each window.

    Raises:
        InputError: See above.
    """
    known = np.concatenate(behavior)
    if not len(known) or not np.ptp(known, axis=0).any():
        raise InputError(
            expected=f"values of {target} that differ, in the windows of '{split}'",
            found="one value" if len(known) else "none that is known (NaN, or further than two samples away)",
            fix="Choose splits in which it was measured, or another target.",
        )


def read_windows(
    dataset: Dataset, intervals: dict[str, Interval], *, windows: str, window_length: float
) -> list[LazyWindow]:
    """Windows of ``intervals`` in order, as :func:`neurobridge_tb.data.windows.window_loader` lays them."""
    loader = window_loader(
        dataset, lambda window: window, intervals, windows=windows, window_length=window_length, batch_size=1
    )
    source: Any = loader.dataset
    return [source.window(index) for index in loader.sampler]


def raw_samples(
    model: NeuroBridgeModel, windows: Sequence[LazyWindow], spec: ModalitySpec, history: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Raw activity of ``history`` bins (the present and those before; a window's first bin stands for what lies before
    it), and the behaviour in the middle of each bin: (T, history * N) and (T, dim) for each window, of the T bins in
    which the behaviour is known. NaN where activity is absent."""
    features, targets = [], []
    for window, values in zip(windows, window_values(model, windows), strict=True):
        times = model.bin_times(window)
        padded = np.concatenate([np.repeat(values[:1], history - 1, axis=0), values])
        behavior = behavior_at(window, spec, times + (times[1] - times[0]) / 2)
        known = np.isfinite(behavior).all(1)
        features.append(np.concatenate([padded[k : k + len(values)] for k in range(history)], axis=1)[known])
        targets.append(behavior[known])
    return features, targets
