"""Windows with their behaviour."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurobridge_tb._upstream import Data, Dataset, Interval
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.registry_ext import MODALITY_REGISTRY, DataType, ModalitySpec


def behavior_spec(target: str) -> ModalitySpec:
    """Entry of a continuous behaviour in the modality registry, e.g. ``"hand_velocity_2d"``.

    Raises:
        InputError: There is no such modality, or it is not continuous.
    """
    spec = MODALITY_REGISTRY.get(target)
    if spec is None or spec.type != DataType.CONTINUOUS:
        continuous = [name for name, s in MODALITY_REGISTRY.items() if s.type == DataType.CONTINUOUS]
        raise InputError(
            expected=f"target=<a continuous modality: {', '.join(continuous)}>",
            found=target,
            fix="Correct target, or register your behaviour with neurobridge_tb.registry_ext.register_modality.",
        )
    return spec


def behavior_at(window: Any, spec: ModalitySpec, times: np.ndarray) -> np.ndarray:
    """(T, dim) behaviour of a window at ``times`` (T,) in s from its start, interpolated linearly.

    Raises:
        InputError: The recording does not hold it.
    """
    if spec.timestamp_key.split(".")[0] not in window.keys():
        raise InputError(
            expected=f"'{spec.value_key}' in recording {window.session.id}",
            found=", ".join(sorted(window.keys())),
            fix="Set target=<a modality that the recording holds>.",
        )
    at, values = (window.get_nested_attribute(key) for key in (spec.timestamp_key, spec.value_key))
    columns = np.asarray(values, dtype=np.float64).reshape(len(at), -1).T
    return np.stack([np.interp(times, at, column) for column in columns], axis=1)


def read_windows(dataset: Dataset, intervals: dict[str, Interval], *, windows: str, window_length: float) -> list[Data]:
    """Windows of ``intervals`` in order, as :func:`neurobridge_tb.data.windows.window_loader` lays them."""
    loader = window_loader(
        dataset, lambda window: window, intervals, windows=windows, window_length=window_length, batch_size=1
    )
    source: Any = loader.dataset
    return [source.window(index) for index in loader.sampler]


def raw_samples(
    model: NeuroBridgeModel, windows: Sequence[Data], spec: ModalitySpec, history: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Raw activity of ``history`` bins (the present and those before; a window's first bin stands for what lies before
    it), and the behaviour in the middle of each bin: (T, history * N) and (T, dim) for each window."""
    features, targets = [], []
    for window in windows:
        values, times = model.grid_values(window)
        padded = np.concatenate([np.repeat(values[:1], history - 1, axis=0), values])
        features.append(np.concatenate([padded[k : k + len(values)] for k in range(history)], axis=1))
        targets.append(behavior_at(window, spec, times + (times[1] - times[0]) / 2))
    return features, targets
