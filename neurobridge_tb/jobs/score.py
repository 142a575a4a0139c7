"""How well a pretrained model fills in what fixed masks hide, beside a Poisson GLM on the same inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from neurobridge_tb._upstream import Data, collate
from neurobridge_tb.data.behavior import read_windows
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.engine.config import open_dataset
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm, lagged
from neurobridge_tb.files import write_json
from neurobridge_tb.masking import Mask
from neurobridge_tb.masking.tasks import task_masks
from neurobridge_tb.metrics.spikes import bits_per_spike, poisson_log_likelihood
from neurobridge_tb.models import NeuroBridgeModel

_BATCH = 64
_RESAMPLES = 2000
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_RECENT = 5  # bins before the cut that the GLM of forward prediction sees


def score(config: DictConfig) -> Path:
    """Write ``metrics.json``: bits/spike of each task on the test split; returns the run folder.

    There is a row for each recording, and where there are several, one for all of them together.

    Bits/spike are spike-weighted, with a 95 % bootstrap interval over windows, and beside it the mean over units; the
    null model is each unit's mean rate on the training split. The GLM of a unit sees the bins ``glm_lags`` around the
    bin asked for, of the units that the model sees; for forward prediction, the mean of the last five bins.

    Args:
        config: ``configs/score.yaml`` with its overrides.
    """
    dataset, model = open_dataset(config), NeuroBridgeModel.load_pretrained(config.pretrained).eval()
    rows: list[dict[str, Any]] = []
    tallies: dict[str, list[dict[str, _Tally]]] = {task: [] for task in config.tasks}
    for recording_id in dataset.recording_ids:
        windows = {
            split: read_windows(
                dataset,
                {recording_id: dataset.get_sampling_intervals(split)[recording_id]},
                windows=config.windows,
                window_length=model.sequence_length,
            )
            for split in ("train", "valid", "test")
        }
        counts = {split: [_counts(model, w) for w in some] for split, some in windows.items()}
        null = np.concatenate(counts["train"]).mean(0)
        areas = model.window_grid(windows["test"][0])[1]
        for task, scored in tallies.items():
            scored.append(_score_task(config, task, model, windows, counts, null, areas))
            rows.append(_row(recording_id, task, scored[-1:], config.seed))
    if len(dataset.recording_ids) > 1:
        rows += [_row("all", task, scored, config.seed) for task, scored in tallies.items()]
    write_json(
        Path(config.run_dir) / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "metric": "bits/spike",
            "rows": rows,
        },
    )
    return Path(config.run_dir)


def _score_task(
    config: DictConfig,
    task: str,
    model: NeuroBridgeModel,
    windows: dict[str, list[Data]],
    counts: dict[str, list[np.ndarray]],
    null: np.ndarray,
    areas: np.ndarray,
) -> dict[str, "_Tally"]:
    """Tallies of the model and of the GLM on one recording."""

    def masks(some: list[np.ndarray], k: int) -> list[Mask]:
        """The k-th mask of the task for each window; only its length differs between windows."""
        return [variants[len(values)][k] for values in some]

    settings = dict(held_out=config.held_out, max_asked=config.max_asked, seed=config.seed)
    lengths = {len(values) for some in counts.values() for values in some}
    variants = {n_bins: task_masks(task, n_bins, areas, **settings) for n_bins in lengths}
    rates: dict[str, list[list[np.ndarray]]] = {"NeuroBridge": [], "Poisson GLM": []}
    observed, null_rates = [], []
    for k, variant in enumerate(next(iter(variants.values()))):
        units = variant.target.any(0)
        of_windows = _model_rates(model, windows["test"], masks(counts["test"], k))
        inputs, targets = {}, {}
        for split, some in counts.items():
            inputs[split] = _glm_inputs(some, masks(some, k), tuple(config.glm_lags))
            targets[split] = np.concatenate(
                [values[mask.target.any(1)][:, units] for values, mask in zip(some, masks(some, k), strict=True)]
            )
        glm = fit_poisson_glm(
            inputs["train"], targets["train"], inputs["valid"], targets["valid"], inputs["test"], penalties=_PENALTIES
        )
        ends = np.cumsum([len(rows) for rows in of_windows])[:-1]
        observed.append(np.split(targets["test"], ends))
        rates["NeuroBridge"].append(of_windows)
        rates["Poisson GLM"].append(np.split(glm, ends))
        null_rates.append(null[units])
    return {name: _tally(some, observed, null_rates) for name, some in rates.items()}


@dataclass(frozen=True)
class _Tally:
    """What bits/spike are made of, for one recording.

    Attributes:
        gain: (windows,) log-likelihood above the null model's, in bits.
        spikes: (windows,) spikes asked for.
        per_unit: (units,) bits/spike of each unit asked for, NaN for a silent one.
    """

    gain: NDArray[np.float64]
    spikes: NDArray[np.float64]
    per_unit: NDArray[np.float64]


def _tally(rates: list[list[np.ndarray]], counts: list[list[np.ndarray]], null: list[np.ndarray]) -> _Tally:
    """Sums over all masks.

    Args:
        rates: For each mask and window (bins asked, units asked).
        counts: As ``rates``.
        null: For each mask (units asked,) training mean rates.
    """
    gain, spikes, by_unit = np.zeros(len(counts[0])), np.zeros(len(counts[0])), []
    for some_rates, some_counts, mean in zip(rates, counts, null, strict=True):
        gain += np.array(
            [
                (poisson_log_likelihood(r, c) - poisson_log_likelihood(np.broadcast_to(mean, c.shape), c)).sum()
                for r, c in zip(some_rates, some_counts, strict=True)
            ]
        )
        spikes += np.array([c.sum() for c in some_counts])
        together = bits_per_spike(np.concatenate(some_rates), np.concatenate(some_counts), mean)
        by_unit.append(together.per_unit)
    return _Tally(gain / np.log(2), spikes, np.concatenate(by_unit))


def _row(recording: str, task: str, tallies: list[dict[str, _Tally]], seed: int) -> dict[str, Any]:
    """A row of the table, over one recording or several."""
    units = sum(len(next(iter(some.values())).per_unit) for some in tallies)
    scores = {name: _bits_per_spike([some[name] for some in tallies], seed) for name in tallies[0]}
    return {"recording": recording, "task": task, "units": units, "scores": scores}


def _bits_per_spike(tallies: list[_Tally], seed: int) -> dict[str, float]:
    """Spike-weighted, with a bootstrap interval over windows, and the mean over units."""
    gain, spikes = np.concatenate([t.gain for t in tallies]), np.concatenate([t.spikes for t in tallies])
    draws = np.random.default_rng(seed).integers(0, len(gain), (_RESAMPLES, len(gain)))
    low, high = np.percentile(gain[draws].sum(1) / spikes[draws].sum(1), [2.5, 97.5])
    return {
        "value": float(gain.sum() / spikes.sum()),
        "low": float(low),
        "high": float(high),
        "mean over units": float(np.nanmean(np.concatenate([t.per_unit for t in tallies]))),
    }


def _counts(model: NeuroBridgeModel, window: Data) -> np.ndarray:
    if not model.predicts_log_rates:
        raise InputError(
            expected="a model of spikes or spike counts",
            found=f"modality '{model.modality}'",
            fix="For MUA see metrics.json of the pretraining run: masked MSE beside ridge.",
        )
    return model.grid_values(window)[0]


@torch.no_grad()
def _model_rates(model: NeuroBridgeModel, windows: list[Data], masks: list[Mask]) -> list[np.ndarray]:
    """Expected counts (bins asked, units asked) of each window."""
    rates = []
    for start in range(0, len(windows), _BATCH):
        some = [
            model.tokenize_with_targets(w, m)
            for w, m in zip(windows[start:], masks[start : start + _BATCH], strict=False)
        ]
        inputs = collate(some)["model_inputs"]
        for output, asked in zip(model(**inputs).exp(), inputs["output_mask"], strict=True):
            rates.append(output[asked.any(1)][:, asked.any(0)].numpy().astype(np.float64))
    return rates


def _glm_inputs(counts: list[np.ndarray], masks: list[Mask], lags: tuple[int, ...]) -> np.ndarray:
    """Features of every bin asked for, of all windows one after the other."""
    features = []
    for values, mask in zip(counts, masks, strict=True):
        if mask.scheme == "forward":
            asked = np.flatnonzero(mask.target.any(1))
            recent = values[: asked[0]][-_RECENT:].mean(0)
            features.append(np.column_stack([np.tile(recent, (len(asked), 1)), asked - asked[0]]))
        else:
            features.append(lagged(values[:, mask.keep.any(0)], lags))
    return np.concatenate(features)
