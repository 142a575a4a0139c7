"""The size of a network, where the number of training windows decides it."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.parts import MaskedConfig
from neurobridge_tb.configs.presets import GROUPS
from neurobridge_tb.progress import say

_FEW_WINDOWS = 10_000

Sized = TypeVar("Sized", bound=MaskedConfig)
Part = TypeVar("Part")


def settle_size(config: Sized, dataset: Dataset, *, group: str, seconds: float) -> Sized:
    """Settings of the model that are null are those of ``laptop``, or from 10,000 training windows on of ``small``.

    Args:
        config: A job's settings, its network's under ``model``.
        dataset: With ``train`` sampling intervals.
        group: Group of the presets, ``"model"`` or ``"forecaster"``.
        seconds: Length of a window in s.
    """
    job: Any = config
    presets = GROUPS[group][0]
    if _filled(job.model, presets["laptop"]) == job.model:
        return config
    intervals = dataset.get_sampling_intervals("train")
    if config.windows == "trial":
        count = sum(map(len, intervals.values()))
    else:
        count = sum(int(((its.end - its.start) // seconds).sum()) for its in intervals.values())
    preset = "laptop" if count < _FEW_WINDOWS else "small"
    say(f"{count:,} training windows: {group}={preset}")
    return replace(job, model=_filled(job.model, presets[preset]))


def _filled(part: Part, preset: Mapping[str, Any]) -> Part:
    """A part of a config, its settings that are null taken from a preset."""
    settings: Any = part
    taken: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            taken[field.name] = _filled(value, preset.get(field.name, {}))
        elif value is None and field.name in preset:
            taken[field.name] = preset[field.name]
    return replace(settings, **taken)
