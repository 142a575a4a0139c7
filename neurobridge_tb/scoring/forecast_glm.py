"""The baseline of a forecast that is fitted for each horizon: Poisson GLMs on the last bins of all units."""

from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm
from neurobridge_tb.metrics.spikes import BitsPerSpike
from neurobridge_tb.models import NeuroHorizonModel

_GLM_BINS = 5  # of past that the GLM reads


def glm_rows(
    model: NeuroHorizonModel,
    config: DictConfig,
    loaders: ForecastLoaders,
    null: np.ndarray,
    scored: np.ndarray,
    group: str,
) -> list[dict[str, Any]]:
    """One row for each of ``config.glm_horizons``.

    Args:
        model: Tells bins and history.
        config: ``configs/forecast.yaml``.
        loaders: Of the windows: the GLM is fitted, its penalty chosen and scored on those of the three splits.
        null: Mean training count a bin by unit index.
        scored: Which units are scored, by unit index.
        group: What the recordings are to the model.
    """
    rows = []
    for horizon in config.glm_horizons:
        step = model.bins_of(horizon) - 1
        splits = {split: _lagged(loaders.of_split(split), step, scored) for split in ("train", "valid", "test")}
        total = BitsPerSpike(null)
        for session, (inputs, counts, units) in splits["test"].items():
            train, valid = splits["train"][session], splits["valid"][session]
            rates = fit_poisson_glm(train[0], train[1], valid[0], valid[1], inputs)
            total.update(rates, counts, units=units)
        bits = total.compute()
        rows.append(
            {
                "recordings": group,
                "forecast": f"Poisson GLM, {step + 1} bins ahead",
                "bits/spike": bits.spike_weighted,
                "mean over units": bits.unit_mean,
            }
        )
    return rows


def _lagged(loader: DataLoader, step: int, scored: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each recording: (n, lags * units) last counts, (n, scored units) counts ``step`` bins on, unit indices."""
    parts: dict[str, tuple[list, list, np.ndarray]] = {}
    for batch in loader:
        for i, session in enumerate(batch["session_id"]):
            index = batch["model_inputs"]["unit_index"][i].numpy()
            n = int((index > 0).sum())
            columns = np.flatnonzero(scored[index[:n]])
            if not batch["target_mask"][i, step, :n].all():
                continue
            inputs, counts, _ = parts.setdefault(session, ([], [], index[columns]))
            inputs.append(batch["model_inputs"]["past"][i, -_GLM_BINS:, :n].flatten().numpy())
            counts.append(batch["target_values"][i, step, columns].numpy())
    return {session: (np.stack(x), np.stack(y), units) for session, (x, y, units) in parts.items()}
