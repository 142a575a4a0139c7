"""How good a forecaster is on the test split, beside its baselines: rows for the table, arrays for the figures."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders, anchors_of, trial_columns
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.smoothed_rate import SmoothedRate, Windows, fit_smoothed_rate
from neurobridge_tb.metrics.rates import ForecastScore, ForecastScores, PsthScores
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.scoring.forecast_glm import glm_rows
from neurobridge_tb.scoring.paired_gains import WindowGains
from neurobridge_tb.scoring.unit_rates import bits_cells, inside, training_rates

ROLLED, FORCED, START = "rolled out", "one bin ahead (each bin before observed)", "start (before the residual)"
SMOOTHED, DRIFTING = "last smoothed rate", "smoothed rate drawn to the recent mean"
BASELINES = (SMOOTHED, DRIFTING)
_PRIORS = (0.4, 1.0, 2.5, 6.0)  # s: weights of the training mean in the recent mean that are tried
_EXAMPLES = 6  # windows drawn


@torch.no_grad()
def forecast_scores(
    model: NeuroHorizonModel,
    dataset: Dataset,
    config: ForecastConfig,
    loaders: ForecastLoaders,
    *,
    group: str,
    baselines: dict[str, SmoothedRate],
    follow: Callable[[Iterable[dict]], Iterable[dict]] = iter,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows of scores, and the arrays of which figures are drawn.

    Args:
        model: In evaluation mode; it knows the units of ``dataset``.
        dataset: The recordings to score.
        config: The job's settings.
        loaders: Of the windows of ``dataset``.
        group: What these recordings are to the model: ``"trained"`` or ``"unseen"``.
        baselines: From :func:`fit_baselines`.
        follow: Passes batches on, after the model was told what came before them. Default: it is told nothing.

    Returns:
        A row for each forecast: ``recordings``, ``forecast``, and its scores; ``bits/spike by bin`` is how they decay
        with the horizon. And the arrays for :mod:`neurobridge_tb.report.drawing.forecast_figures`.
    """
    trained = training_rates(model.encoder, dataset)
    null = trained.mean
    scored = _scored_units(model, config.units)
    names = (ROLLED, FORCED, START, *BASELINES)
    scores = {name: ForecastScores(null, model.n_future, trained.spikes) for name in names}
    gains = WindowGains(names, trained, (model.n_past + model.n_future) * model.bin_size)
    examples: list[dict[str, Any]] = []
    for batch in follow(loaders.of_split("test")):
        forecasts = _forecasts(model, batch, baselines, null)
        units, mask = batch["model_inputs"]["unit_index"], _mask(batch, scored)
        for name, rates in forecasts.items():
            scores[name].update(rates, batch["target_values"], mask=mask, units=units)
        starts, counts = batch["absolute_start"].numpy(), batch["target_values"].numpy()
        gains.update(batch["session_id"], starts, forecasts, counts, mask, units.numpy())
        if len(examples) < _EXAMPLES:
            examples += _examples(batch, forecasts[ROLLED])
    results = {name: accumulated.compute() for name, accumulated in scores.items()}
    psth = _psth_r2(model, dataset, config, loaders, baselines, null, scored, follow)
    rows = [_row(group, name, results[name], psth.get(name)) for name in results]
    rows += glm_rows(model, config, loaders, trained, scored, group)
    rows.append({"recordings": group, "forecast": "training mean rate", "bits/spike": 0.0, "mean over units": 0.0})

    index = np.flatnonzero(scored & np.isin(np.arange(len(null)), _unit_indices(model, dataset)))
    arrays = {
        "unit_id": np.array([model.unit_stats.detokenizer(i) for i in index]),
        "mean_rate": null[index] / model.bin_size,
        "training_spikes": trained.spikes[index],
        "bits_per_spike": results[ROLLED].bits_per_spike.per_unit[index],
        "bits_per_spike_smoothed": results[DRIFTING].bits_per_spike.per_unit[index],
        "r2": results[ROLLED].r2[index],
        "rate_correlation": results[ROLLED].rate_correlation[index],
        "psth_r2": psth[ROLLED][index] if psth else np.full(len(index), np.nan),
        "bin_size": np.array(model.bin_size),
        "forecasts": np.array(list(results)),
        **gains.arrays(),
    }
    for key in ("past", "future", "rates", "mask"):
        widest = max(e[key].shape[1] for e in examples)
        padded = [np.pad(e[key], ((0, 0), (0, widest - e[key].shape[1]))) for e in examples[:_EXAMPLES]]
        arrays[f"example_{key}"] = np.stack(padded)
    arrays["example_name"] = np.array([e["name"] for e in examples[:_EXAMPLES]])
    return rows, arrays


def fit_baselines(
    model: NeuroHorizonModel, dataset: Dataset, config: ForecastConfig, loaders: ForecastLoaders
) -> dict[str, SmoothedRate]:
    """The smoothed rates of ``BASELINES`` with the settings that are best on the validation split.

    Args:
        model: Knows the units of ``dataset``.
        dataset: The recordings to choose on.
        config: The job's settings.
        loaders: Of the windows of ``dataset``.
    """
    null = training_rates(model.encoder, dataset).mean
    scored = _scored_units(model, config.units)
    valid = [_windows(batch, null, scored) for batch in loaders.of_split("valid")]
    priors = [seconds / model.bin_size for seconds in _PRIORS]
    return {SMOOTHED: fit_smoothed_rate(valid), DRIFTING: fit_smoothed_rate(valid, priors=priors)}


@torch.no_grad()
def rolled_out_loss(model: NeuroHorizonModel, loader: DataLoader, *, start: bool = False) -> float:
    """Poisson loss of a loader's windows, rolled out: nats a bin and unit.

    Args:
        model: In evaluation mode.
        loader: Windows.
        start: Of the rate filter alone. Default False.
    """
    forecast = model.start if start else model.generate
    total, cells = 0.0, 0
    for batch in loader:
        n = int(batch["target_mask"].sum())
        total += n * float(model.loss(compute(forecast, **batch["model_inputs"]), batch))
        cells += n
    return total / cells


def check_scoring(model: NeuroHorizonModel, datasets: list[Dataset], config: ForecastConfig) -> None:
    """Find before the training what :func:`forecast_scores` would miss after it.

    Raises:
        InputError: A window, a unit, a column of trials or a horizon that the config names does not exist.
    """
    known = set().union(*(dataset.get_unit_ids() for dataset in datasets))
    for dataset in datasets:
        for recording_id in dataset.recording_ids:
            model.check_bins(dataset.get_recording(recording_id))
        ForecastLoaders(config, dataset, model).of_split("test")
        if config.psth_condition:
            trial_columns(dataset, config.psth_condition)
        units = sorted(known) if config.units is None else config.units
        if not set(units) <= known or not set(units) & set(dataset.get_unit_ids()):
            raise InputError(
                expected="units=[ids of units in the recordings], some of the trained and some of the unseen ones",
                found=", ".join(units[:5]),
                fix="`neurobridge validate FILE` shows a recording's unit ids.",
            )
    for horizon in config.glm_horizons:
        if model.bins_of(horizon) > model.n_future:
            raise InputError(
                expected=f"glm_horizons up to the model's, {model.horizon} s",
                found=f"{horizon} s",
                fix="Name a shorter one.",
            )


def _unit_indices(model: NeuroHorizonModel, dataset: Dataset) -> list[int]:
    return model.unit_stats.tokenizer(dataset.get_unit_ids())


def _scored_units(model: NeuroHorizonModel, unit_ids: list[str] | None) -> np.ndarray:
    """(units,) bool by unit index; padding is never scored."""
    known = model.unit_stats.vocab
    scored = np.arange(len(known)) > 0
    if unit_ids is None:
        return scored
    return np.isin(np.arange(len(known)), model.unit_stats.tokenizer([u for u in unit_ids if u in known]))


def _mask(batch: dict, scored: np.ndarray) -> np.ndarray:
    return batch["target_mask"].numpy() & scored[batch["model_inputs"]["unit_index"].numpy()][:, None]


def _windows(batch: dict, null: np.ndarray, scored: np.ndarray) -> Windows:
    inputs = batch["model_inputs"]
    read = {name: inputs[name] for name in ("past", "recent_spikes", "recent_bins")}
    return Windows(
        **read,
        present=inputs["past_mask"],
        mean=null[inputs["unit_index"].numpy()],
        future=batch["target_values"],
        scored=_mask(batch, scored),
    )


def _forecasts(
    model: NeuroHorizonModel, batch: dict, baselines: dict[str, SmoothedRate], null: np.ndarray
) -> dict[str, Any]:
    """(B, T, N) rates of each forecast."""
    inputs, future = batch["model_inputs"], batch["target_values"]
    windows = _windows(batch, null, np.ones(len(null), bool))
    return {
        ROLLED: compute(model.generate, **inputs).exp().numpy(),
        FORCED: compute(model, future=future, future_mask=batch["target_mask"], **inputs).exp().numpy(),
        START: compute(model.start, **inputs).exp().numpy(),
        **{k: np.broadcast_to(x.predict(windows)[:, None], future.shape) for k, x in baselines.items()},
    }


def _examples(batch: dict, rates: np.ndarray) -> list[dict[str, Any]]:
    """A few whole windows, spread over the batch."""
    mask = batch["target_mask"].numpy()
    whole = np.flatnonzero(mask[:, -1].any(1))
    chosen = whole[np.linspace(0, len(whole) - 1, min(3, len(whole))).astype(int)]
    past = batch["model_inputs"]["past"].numpy()
    future = batch["target_values"].numpy()
    names = [f"{batch['session_id'][i]} at {float(batch['absolute_start'][i]):.1f} s" for i in chosen]
    return [
        {"past": past[i], "future": future[i], "rates": rates[i], "mask": mask[i], "name": name}
        for i, name in zip(chosen, names, strict=True)
    ]


def _row(group: str, name: str, score: ForecastScore, psth: np.ndarray | None) -> dict[str, Any]:
    bits = score.bits_per_spike
    row = {
        "recordings": group,
        "forecast": name,
        **bits_cells(bits),
        "R2 on counts": _mean(score.r2),
        "rate correlation": _mean(score.rate_correlation),
        "correlation over all units and bins": score.count_correlation,
    }
    if psth is not None:
        row["PSTH R2 (median unit)"] = float(np.nanmedian(psth)) if np.isfinite(psth).any() else float("nan")
    row["bits/spike by bin"] = [b.spike_weighted for b in score.by_bin]
    row["mean over units by bin"] = [b.unit_mean for b in score.by_bin]
    return row


def _mean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def _psth_r2(
    model: NeuroHorizonModel,
    dataset: Dataset,
    config: ForecastConfig,
    loaders: ForecastLoaders,
    baselines: dict[str, SmoothedRate],
    null: np.ndarray,
    scored: np.ndarray,
    follow: Callable[[Iterable[dict]], Iterable[dict]],
) -> dict[str, np.ndarray]:
    """R^2 of each unit's PSTH over the future of trial-aligned windows; empty where the recordings have no trials."""
    recordings = {r: dataset.get_recording(r) for r in dataset.recording_ids}
    if not all("trials" in recording.keys() for recording in recordings.values()):
        return {}
    domains = dataset.get_sampling_intervals("test")
    labels = trial_columns(dataset, config.psth_condition) if config.psth_condition else {}
    trials, conditions, starts = {}, {}, {}
    for r, recording in recordings.items():
        table = recording.trials
        middle = (table.start + table.end) / 2
        used = inside(middle, domains[r])
        trials[r] = Interval(start=np.asarray(table.start)[used], end=np.asarray(table.end)[used])
        column = labels[r] if labels else np.zeros(len(table.start))
        conditions[r], starts[r] = column[used].astype(str), trials[r].start
    names = np.unique(np.concatenate(list(conditions.values())))
    past = model.n_past * model.bin_size
    anchors = None if config.align is None else anchors_of(dataset, config.align)
    aligned = anchors is not None
    try:
        windows = loaders.of_trials(domains if aligned else trials, anchors)
    except InputError:  # no trial is as long as a window
        return {}
    scores = {name: PsthScores(len(names), model.n_future, len(null)) for name in (ROLLED, *BASELINES)}
    for batch in follow(windows):
        forecasts = _forecasts(model, batch, baselines, null)
        begins = batch["absolute_start"].numpy() + (past if aligned else 0.0)
        which = [
            int(np.searchsorted(starts[s], t + 1e-6, side="right")) - 1
            for s, t in zip(batch["session_id"], begins, strict=True)
        ]
        names_of = [conditions[s][max(k, 0)] for s, k in zip(batch["session_id"], which, strict=True)]
        for name, accumulated in scores.items():
            accumulated.update(
                forecasts[name],
                batch["target_values"],
                condition=np.searchsorted(names, names_of),
                mask=_mask(batch, scored),
                units=batch["model_inputs"]["unit_index"],
            )
    return {name: accumulated.r2() for name, accumulated in scores.items()}
