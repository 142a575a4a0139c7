"""How well a pretrained model fills in masked cells, beside baselines, on validation windows with fixed masks."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.evaluation.spikes import BitsPerSpike
from neurobridge_tb.models import NeuroBridgeModel


@torch.no_grad()
def masked_scores(model: NeuroBridgeModel, loaders: dict[str, DataLoader]) -> list[dict[str, Any]]:
    """One row for each scheme: masked MSE in standard deviations (MUA), or bits/spike (counts).

    Args:
        model: In evaluation mode.
        loaders: Validation loader of each scheme.

    Returns:
        Rows of ``scheme``, ``metric``, ``model`` and ``baselines``; for bits/spike the training mean rate is the null
        model, so its baseline is 0 by definition.
    """
    score = _masked_bits_per_spike if model.predicts_log_rates else _masked_mse
    return [{"scheme": scheme, **score(model, loader)} for scheme, loader in loaders.items()]


def _masked_mse(model: NeuroBridgeModel, loader: DataLoader) -> dict[str, Any]:
    squared, of_mean, count = 0.0, 0.0, 0
    for batch in loader:
        asked = batch["model_inputs"]["output_mask"]
        target = model.standardize(batch["target_values"], batch["model_inputs"]["output_unit_index"])[asked]
        output = model(**batch["model_inputs"])[asked]
        squared += float(((output - target) ** 2).sum())
        of_mean += float((target**2).sum())
        count += len(target)
    return {
        "metric": "masked MSE (z units)",
        "model": squared / count,
        "baselines": {"training mean": of_mean / count},
    }


def _masked_bits_per_spike(model: NeuroBridgeModel, loader: DataLoader) -> dict[str, Any]:
    total = BitsPerSpike(model.unit_stats.weight[:, 0].numpy())
    for batch in loader:
        inputs = batch["model_inputs"]
        rates = model(**inputs).exp().numpy()
        for rate, counts, asked, units in zip(
            rates, batch["target_values"].numpy(), inputs["output_mask"].numpy(),
            inputs["output_unit_index"].numpy(), strict=True,
        ):  # fmt: skip
            on_all_units = np.zeros((3, len(rate), len(model.unit_stats.weight)))
            real = units > 0
            for row, grid in zip(on_all_units, (rate, counts, asked), strict=True):
                row[:, units[real]] = grid[:, real]
            total.update(on_all_units[0], on_all_units[1], mask=on_all_units[2].astype(bool))
    score = total.compute()
    return {"metric": "bits/spike", "model": score.spike_weighted, "baselines": {"training mean rate": 0.0}}


@torch.no_grad()
def masked_example(model: NeuroBridgeModel, loaders: dict[str, DataLoader]) -> dict[str, np.ndarray]:
    """One validation window for the report: what was seen, what was masked and what the model filled in.

    Returns:
        ``values``, ``predicted`` (T, N; counts as rates, MUA in standard deviations; NaN where not asked),
        ``keep``, ``target`` (T, N), ``area`` (N,), ``scheme``.
    """
    scheme, loader = next(iter(loaders.items()))
    dataset, index = loader.dataset, next(iter(loader.sampler))
    window = dataset.get_recording(index.recording_id).slice(index.start, index.end)
    mask = dataset.transform.draw(window)
    values, _ = model.grid_values(window)
    batch = loader.collate_fn([model.tokenize(window, mask)])
    output = model(**batch["model_inputs"])[0]
    target = mask.target & ~np.isnan(values)
    predicted = np.full_like(values, np.nan)
    predicted[np.ix_(target.any(1), target.any(0))] = (output.exp() if model.predicts_log_rates else output).numpy()
    if not model.predicts_log_rates:
        units = torch.tensor([model.unit_emb.tokenizer(window.units.id.astype(str).tolist())])
        values = model.standardize(torch.from_numpy(values)[None], units)[0].numpy()
    return {
        "values": values,
        "keep": mask.keep,
        "target": target,
        "predicted": np.where(target, predicted, np.nan),
        "area": model.window_grid(window)[1],
        "scheme": np.array(scheme),
    }
