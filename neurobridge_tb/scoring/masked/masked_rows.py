"""How well a pretrained model fills in masked cells, beside baselines, on windows with fixed masks."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurobridge_tb.devices import compute
from neurobridge_tb.metrics.retrieval import bootstrap_interval
from neurobridge_tb.metrics.spikes import BitsPerSpike
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.masked.masked_baselines import (
    Baselines,
    baseline_bits,
    baseline_errors,
    is_mua,
    standardized,
)
from neurobridge_tb.scoring.unit_rates import bits_cells, training_rates


@torch.no_grad()
def masked_scores(
    model: NeuroBridgeModel, loaders: dict[str, DataLoader], baselines: Baselines | None = None
) -> list[dict[str, Any]]:
    """One row for each scheme: masked MSE in standard deviations (MUA), or bits/spike (counts).

    Args:
        model: In evaluation mode.
        loaders: A loader with fixed masks for each scheme.
        baselines: From :func:`fit_baselines`. Default: none.

    Returns:
        Rows of ``scheme``, ``metric``, ``model`` and ``baselines``; for MUA also ``model less baseline``, with 95 %
        bootstrap intervals over windows. For bits/spike the training mean rate is the null model, so its baseline is 0
        by definition.
    """
    rows = []
    for scheme, loader in loaders.items():
        score = _masked_mse if is_mua(model, loader) else _masked_bits_per_spike
        rows.append({"scheme": scheme, **score(model, loader, baselines or {})})
    return rows


def _masked_mse(model: NeuroBridgeModel, loader: DataLoader, baselines: Baselines) -> dict[str, Any]:
    parts = []
    for batch in loader:
        scored = batch["model_inputs"]["output_mask"]
        target = compute(model.standardize, batch["target_values"], batch["model_inputs"]["output_unit_index"])
        output = compute(model, **batch["model_inputs"])
        errors = (torch.where(scored, x, 0.0).double().square().sum((1, 2)) for x in (output - target, target))
        parts.append(torch.stack([*errors, scored.sum((1, 2))]).numpy())
    squared, of_mean, count = np.concatenate(parts, axis=1)  # (windows,) each
    others = {"training mean": of_mean, **baseline_errors(model, loader, baselines)}
    total = count.sum()
    differences = {name: (squared - other) * len(count) / total for name, other in others.items()}
    return {
        "metric": "masked MSE (z units)",
        "model": squared.sum() / total,
        "baselines": {name: other.sum() / total for name, other in others.items()},
        "model less baseline": {
            name: dict(zip(("value", "low", "high"), (x.mean(), *bootstrap_interval(x)), strict=True))
            for name, x in differences.items()
        },
    }


def _masked_bits_per_spike(model: NeuroBridgeModel, loader: DataLoader, baselines: Baselines) -> dict[str, Any]:
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
        "baselines": {"training mean rate": 0.0, **baseline_bits(model, loader, baselines, trained)},
        **{name: value for name, value in bits_cells(score).items() if name != "bits/spike"},
    }


@torch.no_grad()
def masked_example(model: NeuroBridgeModel, loaders: dict[str, DataLoader]) -> dict[str, np.ndarray]:
    """One validation window for the report: what was seen, what was masked and what the model filled in.

    Returns:
        ``values``, ``predicted`` (T, N; counts as rates, MUA in standard deviations; NaN where not a target),
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
        values = standardized(model, values, model.unit_index(window))
    return {
        "values": values,
        "keep": mask.keep,
        "target": target,
        "predicted": np.where(target, predicted, np.nan),
        "area": model.window_grid(window)[1],
        "scheme": np.array(scheme),
    }
