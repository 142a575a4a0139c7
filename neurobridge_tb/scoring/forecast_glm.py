"""The baseline of a forecast that is fitted for each horizon: Poisson GLMs on the last bins of all units."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm
from neurobridge_tb.metrics.spikes import PRIOR_SPIKES, BitsPerSpike
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.scoring.unit_rates import UnitRates, bits_cells

_GLM_BINS = 5  # of past that the GLM reads


def glm_rows(
    model: NeuroHorizonModel,
    config: ForecastConfig,
    loaders: ForecastLoaders,
    trained: UnitRates,
    scored: np.ndarray,
    group: str,
) -> list[dict[str, Any]]:
    """One row for each of ``config.glm_horizons``.

    Args:
        model: Tells bins and history.
        config: The job's settings.
        loaders: Of the windows: the GLM is fitted, its penalty chosen and scored on those of the three splits.
        trained: Spikes of the units in training.
        scored: Which units are scored, by unit index.
        group: What the recordings are to the model.
    """
    rows = []
    for horizon in config.glm_horizons:
        step = model.bins_of(horizon) - 1
        splits = {split: _lagged(loaders.of_split(split), step, scored) for split in ("train", "valid", "test")}
        total = BitsPerSpike(trained.mean, trained.spikes)
        for session, (inputs, counts, units) in splits["test"].items():
            train, valid = splits["train"][session], splits["valid"][session]
            prior = PRIOR_SPIKES / trained.bins[units]
            rates = fit_poisson_glm(train[0], train[1], valid[0], valid[1], inputs, prior=prior)
            total.update(rates, counts, units=units)
        name = f"Poisson GLM, {step + 1} bins ahead"
        rows.append({"recordings": group, "forecast": name, **bits_cells(total.compute())})
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
