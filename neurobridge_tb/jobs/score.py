"""How well a pretrained model fills in what fixed masks hide, beside a Poisson GLM on the same inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurobridge_tb._upstream import Data, collate
from neurobridge_tb.arrays import Floats
from neurobridge_tb.configs.score import ScoreConfig
from neurobridge_tb.data.behavior import read_windows
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm, lagged
from neurobridge_tb.files import write_json
from neurobridge_tb.masking import Mask
from neurobridge_tb.masking.tasks import task_masks
from neurobridge_tb.metrics.spikes import PRIOR_SPIKES, TRAINED, poisson_log_likelihood
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.unit_rates import UnitRates

_BATCH = 64
_RESAMPLES = 2000
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_RECENT = 5  # bins before the cut that the GLM of forward prediction sees


def score(config: ScoreConfig | None = None, /, **settings: Any) -> Path:
    """Write ``metrics.json``: bits/spike of each task on the test split; returns the run folder.

    There is a row for each recording, and where there are several, one for all of them together.

    Bits/spike are spike-weighted, with a 95 % bootstrap interval over windows, and beside it the mean over units; the
    null model is each unit's mean rate on the training split. The GLM of a unit sees the bins ``glm_lags`` around the
    target bin, of the units that the model sees; for forward prediction, the mean of the last five bins.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`ScoreConfig`.
        **settings: Settings by name, e.g. ``root="processed", tasks=["forward"]``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(ScoreConfig, config, settings)
    dataset, model = open_dataset(config.dataset), NeuroBridgeModel.load_pretrained(config.pretrained).eval()
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
        training = np.concatenate(counts["train"])
        trained = UnitRates(training.sum(0), np.full(training.shape[1], len(training)))
        areas = model.window_grid(windows["test"][0])[1]
        for task, scored in tallies.items():
            scored.append(_score_task(config, task, model, windows, counts, trained, areas))
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
    config: ScoreConfig,
    task: str,
    model: NeuroBridgeModel,
    windows: dict[str, list[Data]],
    counts: dict[str, list[np.ndarray]],
    trained: UnitRates,
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
    observed, asked = [], []
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
            inputs["train"], targets["train"], inputs["valid"], targets["valid"], inputs["test"],
            prior=PRIOR_SPIKES / trained.bins[units], penalties=_PENALTIES,
        )  # fmt: skip
        ends = np.cumsum([len(rows) for rows in of_windows])[:-1]
        observed.append(np.split(targets["test"], ends))
        rates["NeuroBridge"].append(of_windows)
        rates["Poisson GLM"].append(np.split(glm, ends))
        asked.append(UnitRates(trained.spikes[units], trained.bins[units]))
    return {name: _tally(some, observed, asked) for name, some in rates.items()}


@dataclass(frozen=True)
class _Tally:
    """What bits/spike are made of, for one recording.

    Attributes:
        gain: (windows, units) log-likelihood above the null model's, in bits, of the target units.
        spikes: (windows, units) spikes of the target units.
        training_spikes: (units,).
    """

    gain: Floats
    spikes: Floats
    training_spikes: Floats

    def of(self, least: int) -> "_Tally":
        """Of the units with at least so many training spikes."""
        some = self.training_spikes >= least
        return _Tally(self.gain[:, some], self.spikes[:, some], self.training_spikes[some])


def _tally(rates: list[list[np.ndarray]], counts: list[list[np.ndarray]], trained: list[UnitRates]) -> _Tally:
    """Sums over the bins of each window, the units of all masks side by side.

    Args:
        rates: For each mask and window (bins asked, units asked).
        counts: As ``rates``.
        trained: For each mask, of the units asked.
    """

    def gain(rates: np.ndarray, counts: np.ndarray, null: np.ndarray) -> np.ndarray:
        return (poisson_log_likelihood(rates, counts) - poisson_log_likelihood(null, counts)).sum(0) / np.log(2)

    gains, spikes = [], []
    for some_rates, some_counts, units in zip(rates, counts, trained, strict=True):
        gains.append(np.stack([gain(r, c, units.mean) for r, c in zip(some_rates, some_counts, strict=True)]))
        spikes.append(np.stack([c.sum(0) for c in some_counts]))
    return _Tally(np.hstack(gains), np.hstack(spikes), np.concatenate([units.spikes for units in trained]))


def _row(recording: str, task: str, tallies: list[dict[str, _Tally]], seed: int) -> dict[str, Any]:
    """A row of the table, over one recording or several."""
    units = sum(len(next(iter(some.values())).training_spikes) for some in tallies)
    scores = {name: _bits_per_spike([some[name] for some in tallies], seed) for name in tallies[0]}
    return {"recording": recording, "task": task, "units": units, "scores": scores}


def _bits_per_spike(tallies: list[_Tally], seed: int) -> dict[str, float]:
    """Spike-weighted, with a bootstrap interval over windows; over units that fired in training; mean over units."""
    gain = np.concatenate([t.gain.sum(1) for t in tallies])
    spikes = np.concatenate([t.spikes.sum(1) for t in tallies])
    draws = np.random.default_rng(seed).integers(0, len(gain), (_RESAMPLES, len(gain)))
    low, high = np.percentile(gain[draws].sum(1) / spikes[draws].sum(1), [2.5, 97.5])
    by_unit = np.concatenate([_ratio(t.gain.sum(0), t.spikes.sum(0)) for t in tallies])
    return {
        "value": float(gain.sum() / spikes.sum()),
        "low": float(low),
        "high": float(high),
        **{name: _spike_weighted([t.of(least) for t in tallies]) for name, least in TRAINED.items()},
        "mean over units": float(np.nanmean(by_unit)),
    }


def _spike_weighted(tallies: list[_Tally]) -> float:
    spikes = sum(t.spikes.sum() for t in tallies)
    return float(sum(t.gain.sum() for t in tallies) / spikes) if spikes else float("nan")


def _ratio(gain: Floats, spikes: Floats) -> Floats:
    return np.divide(gain, spikes, out=np.full(len(gain), np.nan), where=spikes > 0)


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
    """Features of every target bin, of all windows one after the other."""
    features = []
    for values, mask in zip(counts, masks, strict=True):
        if mask.scheme == "forward":
            asked = np.flatnonzero(mask.target.any(1))
            recent = values[: asked[0]][-_RECENT:].mean(0)
            features.append(np.column_stack([np.tile(recent, (len(asked), 1)), asked - asked[0]]))
        else:
            features.append(lagged(values[:, mask.keep.any(0)], lags))
    return np.concatenate(features)
