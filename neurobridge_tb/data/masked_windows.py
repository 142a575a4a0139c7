"""Loaders of masked windows: random masks for training, fixed ones for each scheme in validation and test."""

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
    transform = MaskedTokenizer(model, schemes, seed=config.seed)
    intervals = sampling_intervals(model, dataset, "train", windows=config.windows)
    train = window_loader(dataset, transform, intervals, shuffle=True, **_layout(config, model))
    return train, fixed_mask_loaders(config, dataset, model, "valid")


def fixed_mask_loaders(
    config: MaskedConfig, dataset: Dataset, model: NeuroBridgeModel, split: str, *, most: int | None = None
) -> dict[str, DataLoader]:
    """A loader with fixed masks for each scheme, as :func:`masked_loaders` names them.

    Args:
        config: Its ``masking``, ``windows``, ``loader`` and ``seed``.
        dataset: Where the recordings are.
        model: Its ``tokenize`` makes the samples.
        split: Whose sampling intervals.
        most: At most so many windows of each scheme, spread evenly. Default: all.
    """
    all_intervals = sampling_intervals(model, dataset, split, windows=config.windows)
    all_intervals = {r: interval for r, interval in all_intervals.items() if len(interval)}
    grids = {r: _first_window(model, dataset, r, intervals) for r, intervals in all_intervals.items()}
    loaders = {}
    for modality in model.modalities:
        prefix = f"{modality}/" if len(model.modalities) > 1 else ""
        for scheme in (name for name, weight in config.masking.items() if weight):
            suited = {r: i for r, i in all_intervals.items() if grids[r][0] == modality}
            suited = {r: i for r, i in suited.items() if is_possible(scheme, *grids[r][1])} or suited
            if suited:
                transform = MaskedTokenizer(model, {scheme: 1.0}, fixed=True)
                loaders[prefix + scheme] = _at_most(
                    most, window_loader(dataset, transform, suited, **_layout(config, model))
                )
    return loaders


def _layout(config: MaskedConfig, model: NeuroBridgeModel) -> dict[str, Any]:
    layout: dict[str, Any] = {"windows": config.windows, "window_length": model.sequence_length, "seed": config.seed}
    return layout | asdict(config.loader)


def _at_most(most: int | None, loader: DataLoader) -> DataLoader:
    windows = list(loader.sampler)
    if most is None or len(windows) <= most:
        return loader
    chosen = [windows[k] for k in np.linspace(0, len(windows) - 1, most).astype(int)]
    return DataLoader(loader.dataset, batch_size=loader.batch_size, sampler=chosen, collate_fn=loader.collate_fn)


def _first_window(
    model: NeuroBridgeModel, dataset: Dataset, recording_id: str, intervals: Interval
) -> tuple[str, tuple[int, np.ndarray]]:
    """Modality of a recording, and the grid of a window of it."""
    start, end = float(intervals.start[0]), float(intervals.end[0])
    window = dataset.get_recording(recording_id).slice(start, min(end, start + model.sequence_length))
    return model.modality_of(window), model.window_grid(window)
