"""Linear probe: how much of a behaviour the frozen latents of an encoder hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurobridge_tb._upstream import Data, collate
from neurobridge_tb.configs.probe import ProbeConfig
from neurobridge_tb.data.behavior import behavior_at, behavior_spec, raw_samples, read_windows
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.estimators.linear_probe import regression_probe
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.registry_ext import ModalitySpec

_BATCH = 128


def probe(config: ProbeConfig | None = None, /, **settings: Any) -> Path:
    """Write ``metrics.json``: R^2 on the test split of ridge from the pretrained latents and its baselines.

    Windows are those of the dataset's config. A bin's features are the latents of its step and of ``steps_around``
    steps before and after; the penalty is chosen on the validation split. Baselines: the same encoder with random
    weights, and ridge from raw activity of ``history`` bins.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`ProbeConfig`.
        **settings: Settings by name, e.g. ``root="processed", target="wheel_velocity"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(ProbeConfig, config, settings)
    dataset, spec = open_dataset(config.dataset), behavior_spec(config.target)
    trained = NeuroBridgeModel.load_pretrained(config.pretrained).eval()
    torch.manual_seed(config.seed)
    untrained = NeuroBridgeModel(**trained.config).eval()
    untrained.init_vocabs(dataset)
    untrained.unit_stats.load_state_dict(trained.unit_stats.state_dict())
    windows = {
        split: read_windows(
            dataset,
            dataset.get_sampling_intervals(split),
            windows=config.windows,
            window_length=trained.sequence_length,
        )
        for split in ("train", "valid", "test")
    }
    features: dict[str, Callable] = {
        "pretrained latents": lambda w: latent_samples(trained, w, spec, config.steps_around),
        "latents of random weights": lambda w: latent_samples(untrained, w, spec, config.steps_around),
        f"raw activity, {config.history} bins": lambda w: raw_samples(trained, w, spec, config.history),
    }
    rows = []
    for name, samples in features.items():
        train, valid, test = ((np.concatenate(x), np.concatenate(y)) for x, y in map(samples, windows.values()))
        score = regression_probe(train, valid, test)
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


@torch.no_grad()
def latent_samples(
    model: NeuroBridgeModel, windows: list[Data], spec: ModalitySpec, steps_around: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Latents of each bin's step and of ``steps_around`` steps before and after it (0 outside of the window), and the
    behaviour in the middle of the bin: (T, (2 * steps_around + 1) * J * D) and (T, dim) for each window."""
    features, targets = [], []
    for start in range(0, len(windows), _BATCH):
        chunk = windows[start : start + _BATCH]
        latents = model.encode(**collate([model.tokenize(w) for w in chunk]))
        steps = latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2)  # (B, S, J * D)
        padded = torch.nn.functional.pad(steps, (0, 0, steps_around, steps_around))
        around = torch.cat([padded[:, k : k + steps.shape[1]] for k in range(2 * steps_around + 1)], dim=-1)
        for window, states in zip(chunk, around, strict=True):
            times = model.grid_values(window)[1]
            step = np.clip((times / model.latent_step + 1e-6).astype(int), 0, len(states) - 1)
            features.append(states[step].numpy())
            targets.append(behavior_at(window, spec, times + (times[1] - times[0]) / 2))
    return features, targets
