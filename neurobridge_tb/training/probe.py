"""Linear probe: how much of a behaviour the frozen latents of an encoder hold."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from neurobridge_tb._upstream import Dataset, SequentialFixedWindowSampler, collate
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.errors import InputError
from neurobridge_tb.evaluation.probe import regression_probe
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.registry_ext import MODALITY_REGISTRY, ModalitySpec
from neurobridge_tb.training.config import open_dataset

_BATCH = 128


def probe(config: DictConfig) -> Path:
    """Write ``metrics.json``: R^2 on the test split of ridge from the pretrained latents and its baselines.

    Windows lie end to end inside the intervals of a split (the last of an interval may overlap the one before). A bin's
    features are the latents of its step and of the steps before and after; the penalty is chosen on the validation
    split. Baselines: the same encoder with random weights, and ridge from raw activity of ``history`` bins.

    Args:
        config: ``configs/probe.yaml`` with its overrides.
    """
    dataset = open_dataset(config)
    spec = MODALITY_REGISTRY[config.target]
    trained = NeuroBridgeModel.load_pretrained(config.pretrained).eval()
    torch.manual_seed(config.seed)
    untrained = NeuroBridgeModel(**trained.config).eval()
    untrained.init_vocabs(dataset)
    untrained.unit_stats.load_state_dict(trained.unit_stats.state_dict())
    features = {
        "pretrained latents": lambda split: _latent_samples(trained, dataset, spec, split),
        "latents of random weights": lambda split: _latent_samples(untrained, dataset, spec, split),
        f"raw activity, {config.history} bins": lambda split: _raw_samples(
            trained, dataset, spec, split, config.history
        ),
    }
    rows = []
    for name, samples in features.items():
        score = regression_probe(*(samples(split) for split in ("train", "valid", "test")))
        rows.append({"features": name, "R2": np.atleast_1d(score.score).tolist(), "penalty": score.penalty})
    write_json(
        Path(config.run_dir) / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "target": config.target,
            "rows": rows,
        },
    )
    return Path(config.run_dir)


def _windows(dataset: Dataset, split: str, length: float) -> list[Any]:
    sampler = SequentialFixedWindowSampler(
        sampling_intervals=dataset.get_sampling_intervals(split), window_length=length, drop_short=True
    )
    return [dataset[index] for index in sampler]


def _behaviour(window: Any, spec: ModalitySpec, times: np.ndarray, bin_size: float) -> np.ndarray:
    """(T, dim) behaviour at the middle of each bin, interpolated."""
    if spec.timestamp_key.split(".")[0] not in window.keys():
        raise InputError(
            expected=f"'{spec.value_key}' in recording {window.session.id}",
            found=", ".join(sorted(window.keys())),
            fix="Set target=<a modality that the recording holds>.",
        )
    at, values = (window.get_nested_attribute(key) for key in (spec.timestamp_key, spec.value_key))
    columns = np.asarray(values, dtype=np.float64).reshape(len(at), -1).T
    return np.stack([np.interp(times + bin_size / 2, at, column) for column in columns], axis=1)


@torch.no_grad()
def _latent_samples(model: NeuroBridgeModel, dataset: Dataset, spec: ModalitySpec, split: str) -> tuple:
    windows = _windows(dataset, split, model.sequence_length)
    features, targets = [], []
    for start in range(0, len(windows), _BATCH):
        chunk = windows[start : start + _BATCH]
        latents = model.encode(**collate([model.tokenize(w) for w in chunk])["model_inputs"])
        steps = latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2)  # (B, S, J * D)
        padded = torch.nn.functional.pad(steps, (0, 0, 1, 1))
        around = torch.cat([padded[:, :-2], steps, padded[:, 2:]], dim=-1)
        for window, states in zip(chunk, around, strict=True):
            times = model.grid_values(window)[1]
            step = np.clip((times / model.latent_step + 1e-6).astype(int), 0, len(states) - 1)
            features.append(states[step].numpy())
            targets.append(_behaviour(window, spec, times, float(times[1] - times[0])))
    return np.concatenate(features), np.concatenate(targets)


def _raw_samples(model: NeuroBridgeModel, dataset: Dataset, spec: ModalitySpec, split: str, history: int) -> tuple:
    features, targets = [], []
    for window in _windows(dataset, split, model.sequence_length):
        values, times = model.grid_values(window)
        padded = np.concatenate([np.repeat(values[:1], history - 1, axis=0), values])
        features.append(np.concatenate([padded[k : k + len(values)] for k in range(history)], axis=1))
        targets.append(_behaviour(window, spec, times, float(times[1] - times[0])))
    return np.concatenate(features), np.concatenate(targets)
