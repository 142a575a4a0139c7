"""How well a pretrained model fills in masked cells, beside baselines, on windows with fixed masks."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Data
from neurobridge_tb.devices import compute
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis, choose_factor_analysis
from neurobridge_tb.estimators.masked_ridge import MaskedRidge, fit_masked_ridge
from neurobridge_tb.metrics.spikes import BitsPerSpike
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.unit_rates import bits_cells, training_rates

_MOST_WINDOWS = 4000  # of training are fitted by baselines


Baselines = dict[str, dict[str, MaskedRidge | FactorAnalysis]]  # of each recording, by name


def fit_baselines(model: NeuroBridgeModel, train: DataLoader, valid: dict[str, DataLoader]) -> Baselines:
    """Ridge and factor analysis from the units kept in a bin, fitted to each recording of MUA.

    Args:
        model: Its units' statistics standardise the values.
        train: Training windows, which are fitted; the number of factors is chosen on them too.
        valid: Loaders with fixed masks, some of which choose the penalty of ridge.
    """
    activity: dict[str, list[np.ndarray]] = {}
    source: Any = train.dataset
    indices = list(train.sampler)
    for i in np.linspace(0, len(indices) - 1, min(_MOST_WINDOWS, len(indices))).astype(int):
        window = source.window(indices[i])
        if model.modality_of(window) == "mua":
            activity.setdefault(str(window.session.id), []).append(_standard_grid(model, window))
    fits: Baselines = {}
    for session, schemes in _masked_windows(model, valid).items():
        some = [rows[k] for rows in schemes.values() for k in range(0, len(rows), max(1, len(rows) // 10))]
        training = np.concatenate(activity[session])
        fits[session] = {
            "ridge from the units kept": fit_masked_ridge(
                training, *(np.concatenate(x) for x in zip(*some, strict=True))
            ),
            "factor analysis": choose_factor_analysis(training)[0],
        }
    return fits


@torch.no_grad()
def masked_scores(
    model: NeuroBridgeModel, loaders: dict[str, DataLoader], baselines: Baselines | None = None
) -> list[dict[str, Any]]:
    """One row for each scheme: masked MSE in standard deviations (MUA), or bits/spike (counts).

    Args:
        model: In evaluation mode.
        loaders: A loader with fixed masks for each scheme.
        baselines: From :func:`fit_baselines`, for MUA. Default: none.

    Returns:
        Rows of ``scheme``, ``metric``, ``model`` and ``baselines``; for bits/spike the training mean rate is the null
        model, so its baseline is 0 by definition.
    """
    amplitudes = {scheme: loader for scheme, loader in loaders.items() if _modality(model, loader) == "mua"}
    rows = [
        {"scheme": s, **(_masked_mse(model, x) if s in amplitudes else _masked_bits_per_spike(model, x))}
        for s, x in loaders.items()
    ]
    if baselines:
        errors = _baseline_mse(model, amplitudes, baselines)
        for row in rows:
            row["baselines"] |= errors.get(row["scheme"], {})
    return rows


def _modality(model: NeuroBridgeModel, loader: DataLoader) -> str:
    """What the windows of a loader are read as."""
    source: Any = loader.dataset
    return model.modality_of(source.window(next(iter(loader.sampler))))


def _masked_mse(model: NeuroBridgeModel, loader: DataLoader) -> dict[str, Any]:
    squared, of_mean, count = 0.0, 0.0, 0
    for batch in loader:
        asked = batch["model_inputs"]["output_mask"]
        target = compute(model.standardize, batch["target_values"], batch["model_inputs"]["output_unit_index"])[asked]
        output = compute(model, **batch["model_inputs"])[asked]
        squared += float(((output - target) ** 2).sum())
        of_mean += float((target**2).sum())
        count += len(target)
    return {
        "metric": "masked MSE (z units)",
        "model": squared / count,
        "baselines": {"training mean": of_mean / count},
    }


def _masked_windows(model: NeuroBridgeModel, loaders: dict[str, DataLoader]) -> dict[str, dict[str, list[tuple]]]:
    """Of each recording of MUA and each scheme: standardised values, kept and asked cells (T, N) of its windows."""
    masked: dict[str, dict[str, list[tuple]]] = {}
    for scheme, loader in loaders.items():
        source: Any = loader.dataset
        for index in loader.sampler:
            window = source.window(index)
            if model.modality_of(window) == "mua":
                mask = source.transform.draw(window)
                rows = masked.setdefault(str(window.session.id), {}).setdefault(scheme, [])
                rows.append((_standard_grid(model, window), mask.keep, mask.target))
    return masked


def _baseline_mse(
    model: NeuroBridgeModel, loaders: dict[str, DataLoader], baselines: Baselines
) -> dict[str, dict[str, float]]:
    """Masked MSE of each baseline for each scheme, in standard deviations."""
    squared: dict[str, dict[str, float]] = {scheme: {} for scheme in loaders}
    count = dict.fromkeys(loaders, 0)
    for session, schemes in _masked_windows(model, loaders).items():
        for scheme, rows in schemes.items():
            values, keep, target = (np.concatenate(x) for x in zip(*rows, strict=True))
            asked = target & ~np.isnan(values)
            for name, fit in baselines[session].items():
                error = float(((fit.predict(values, keep) - values)[asked] ** 2).sum())
                squared[scheme][name] = squared[scheme].get(name, 0.0) + error
            count[scheme] += int(asked.sum())
    return {scheme: {name: x / count[scheme] for name, x in sums.items()} for scheme, sums in squared.items()}


def _standard_grid(model: NeuroBridgeModel, window: Data) -> np.ndarray:
    """(T, N) values of a window in training standard deviations; NaN where absent."""
    units = torch.from_numpy(model.unit_index(window))[None]
    return compute(model.standardize, torch.from_numpy(model.grid_values(window)[0])[None], units)[0].numpy()


def _masked_bits_per_spike(model: NeuroBridgeModel, loader: DataLoader) -> dict[str, Any]:
    source: Any = loader.dataset
    trained = training_rates(model, source.dataset)
    total = BitsPerSpike(trained.mean, trained.spikes)
    for batch in loader:
        inputs = batch["model_inputs"]
        units = inputs["output_unit_index"][:, None]
        total.update(compute(model, **inputs).exp(), batch["target_values"], mask=inputs["output_mask"], units=units)
    score = total.compute()
    return {
        "metric": "bits/spike",
        "model": score.spike_weighted,
        "baselines": {"training mean rate": 0.0},
        **{name: value for name, value in bits_cells(score).items() if name != "bits/spike"},
    }


@torch.no_grad()
def masked_example(model: NeuroBridgeModel, loaders: dict[str, DataLoader]) -> dict[str, np.ndarray]:
    """One validation window for the report: what was seen, what was masked and what the model filled in.

    Returns:
        ``values``, ``predicted`` (T, N; counts as rates, MUA in standard deviations; NaN where not asked),
        ``keep``, ``target`` (T, N), ``area`` (N,), ``scheme``.
    """
    scheme, loader = next(iter(loaders.items()))
    source: Any = loader.dataset
    index = next(iter(loader.sampler))
    window = source.window(index)
    mask = source.transform.draw(window)
    values, _ = model.grid_values(window)
    batch = loader.collate_fn([model.tokenize_with_targets(window, mask)])
    output = compute(model, **batch["model_inputs"])[0]
    target = mask.target & ~np.isnan(values)
    predicted = np.full_like(values, np.nan)
    is_mua = model.modality_of(window) == "mua"
    predicted[np.ix_(target.any(1), target.any(0))] = (output if is_mua else output.exp()).numpy()
    if is_mua:
        values = _standard_grid(model, window)
    return {
        "values": values,
        "keep": mask.keep,
        "target": target,
        "predicted": np.where(target, predicted, np.nan),
        "area": model.window_grid(window)[1],
        "scheme": np.array(scheme),
    }
