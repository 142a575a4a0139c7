"""Loaders of masked windows: random masks for training, fixed ones for each scheme in validation."""

from dataclasses import asdict
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.configs.parts import MaskedConfig
from neurobridge_tb.data.activity import sampling_intervals
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.masking.schemes import is_possible
from neurobridge_tb.models import NeuroBridgeModel


def masked_loaders(
    config: MaskedConfig, dataset: Dataset, model: NeuroBridgeModel
) -> tuple[DataLoader, dict[str, DataLoader]]:
    """Training loader with all schemes mixed, and a validation loader with fixed masks for each scheme.

    A recording is validated by the schemes that suit it. Of a model of several modalities, each has loaders of its own,
    named ``"<modality>/<scheme>"``. Windows without any value are left out.

    Args:
        config: Its ``masking``, ``windows``, ``loader`` and ``seed``.
        dataset: With ``train`` and ``valid`` sampling intervals.
        model: Its ``tokenize`` makes the samples.
    """
    schemes = {name: float(weight) for name, weight in config.masking.items() if weight}
    layout: dict[str, Any] = {"windows": config.windows, "window_length": model.sequence_length}
    common = {**layout, "seed": config.seed, **asdict(config.loader)}
    train = window_loader(
        dataset,
        MaskedTokenizer(model, schemes, seed=config.seed),
        sampling_intervals(model, dataset, "train", windows=config.windows),
        shuffle=True,
        **common,
    )
    valid_intervals = sampling_intervals(model, dataset, "valid", windows=config.windows)
    valid_intervals = {r: interval for r, interval in valid_intervals.items() if len(interval)}
    grids = {r: _first_window(model, dataset, r, intervals) for r, intervals in valid_intervals.items()}
    valid = {}
    for modality in model.modalities:
        prefix = f"{modality}/" if len(model.modalities) > 1 else ""
        for scheme in schemes:
            suited = {r: i for r, i in valid_intervals.items() if grids[r][0] == modality}
            suited = {r: i for r, i in suited.items() if is_possible(scheme, *grids[r][1])} or suited
            if suited:
                transform = MaskedTokenizer(model, {scheme: 1.0}, fixed=True)
                valid[prefix + scheme] = window_loader(dataset, transform, suited, **common)
    return train, valid


def _first_window(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, intervals: Interval
) -> tuple[str, tuple[int, np.ndarray]]:
    """Modality of a recording, and the grid of a window of it."""
    start, end = float(intervals.start[0]), float(intervals.end[0])
    window = dataset.get_recording(recording_id).slice(start, min(end, start + model.sequence_length))
    return model.modality_of(window), model.window_grid(window)
