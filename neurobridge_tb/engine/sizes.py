"""The size of a network, where the number of training windows decides it."""

from dataclasses import asdict, replace

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.presets import MODELS
from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.progress import say

_FEW_WINDOWS = 10_000


def settle_size(config: PretrainConfig, dataset: Dataset) -> PretrainConfig:
    """Settings of the model that are null are those of ``laptop``, or from 10,000 training windows on of ``small``."""
    open_settings = [name for name, value in asdict(config.model).items() if value is None]
    if not open_settings:
        return config
    intervals, length = dataset.get_sampling_intervals("train"), config.model.sequence_length
    if config.windows == "trial":
        count = sum(map(len, intervals.values()))
    else:
        count = sum(int(((its.end - its.start) // length).sum()) for its in intervals.values())
    preset = "laptop" if count < _FEW_WINDOWS else "small"
    say(f"{count:,} training windows: model={preset}")
    return replace(config, model=replace(config.model, **{name: MODELS[preset][name] for name in open_settings}))
