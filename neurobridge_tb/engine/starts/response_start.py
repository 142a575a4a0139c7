"""The start of a model's rate response: fitted to training windows later than those that its factors were fitted to."""

from collections import defaultdict

import numpy as np
import torch

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.arrays import Floats
from neurobridge_tb.configs.parts import MaskedTrainingConfig
from neurobridge_tb.data.activity import Activity
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.engine.references import divide, length
from neurobridge_tb.engine.starts.factor_start import fit_factors, set_factors
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.grid_decoder import Cells
from neurobridge_tb.nn.rate_response import LaterCells
from neurobridge_tb.nn.unit_rows import rows_of
from neurobridge_tb.progress import say

_EARLY = 0.8  # of a recording's training intervals, to which the factors are fitted
_LEAST_WINDOWS = 20  # after them, of all recordings
_MOST_CELLS = 2**20
_RECENT = 0.125  # of a recording's training time: a spike that old counts 1/e


def fit_rate_response(
    model: NeuroBridgeModel,
    dataset: Dataset,
    intervals: dict[str, Interval],
    valid: dict[str, Interval],
    config: MaskedTrainingConfig,
) -> None:
    """Set the response of a model of counts or spikes; with fewer than 20 later windows it stays as it is.

    Factors and recent rates are fitted to the first four fifths of each recording's training intervals, and the
    response to what they predict, and what was observed, where the training's masks hide the rest. Of that, only the
    response is kept; recent rates are those of all training intervals. A response of other recordings is the prior, as
    strong as serves the validation windows.

    Args:
        model: With a factor model; of MUA, nothing is done.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording.
        valid: Validation intervals.
        config: Its ``masking``, ``windows``, ``loader.batch_size`` and ``seed``.
    """
    if model.response is None or model.factors is None:
        return
    set_recent_rates(model, dataset, intervals)
    activity = Activity(model, dataset)
    parts = {r: divide(i, _EARLY * length(i)) for r, i in intervals.items() if len(i)}
    parts = {r: part for r, part in parts.items() if activity[r].totals(part[0])[0].any()}
    later = {r: activity[r].with_values(part[1], whole=config.windows == "trial") for r, part in parts.items()}
    if sum(map(length, later.values())) < _LEAST_WINDOWS * model.sequence_length:
        return
    say("Fitting how rates answer to the factors")
    early = NeuroBridgeModel(**model.config)
    early.init_vocabs(dataset)
    before = {r: part[0] for r, part in parts.items()}
    early.fit_unit_statistics(dataset, before)
    most = model.factors.loading_rows.embedding_dim
    set_factors(early, fit_factors(early, dataset, before, most=most, seed=config.seed))
    set_recent_rates(early, dataset, before)
    valid = {r: activity[r].with_values(i, whole=config.windows == "trial") for r, i in valid.items()}
    model.response.fit(_later_cells(early, dataset, later, config), _later_cells(model, dataset, valid, config))


def set_recent_rates(model: NeuroBridgeModel, dataset: Dataset, intervals: dict[str, Interval]) -> None:
    """Set how far each unit's rate was from its mean at the end of training; without a response, nothing is done.

    The logarithm of spikes over those expected at the mean rate, both weighted by ``exp(-8 age / training time)`` and
    with one spike added to each. It is time within the intervals that counts.

    Args:
        model: With vocabularies and unit statistics.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording.
    """
    if model.response is None:
        return
    activity, sums = Activity(model, dataset), defaultdict[str, Floats](lambda: np.zeros(2))
    for recording_id, interval in intervals.items():
        recording = activity[recording_id]
        for unit, *of_unit in zip(recording.unit_ids, *recording.totals(interval, recent=_RECENT), strict=True):
            sums[unit] = sums[unit] + of_unit
    spikes, bins = np.array(list(sums.values())).T
    mean = model.unit_stats.log_mean(rows_of(model.unit_stats, list(sums))).exp().double().numpy()
    model.response.set_recent(list(sums), torch.from_numpy(np.log((1 + spikes) / (1 + bins * mean))))


@torch.no_grad()
def _later_cells(
    model: NeuroBridgeModel, dataset: Dataset, intervals: dict[str, Interval], config: MaskedTrainingConfig
) -> LaterCells:
    """Masked cells of intervals."""
    schemes = {name: float(weight) for name, weight in config.masking.items() if weight}
    loader = window_loader(
        dataset,
        MaskedTokenizer(model, schemes, seed=config.seed, fixed=True),
        intervals,
        windows=config.windows,
        window_length=model.sequence_length,
        batch_size=config.loader.batch_size,
    )
    parts = []
    for batch in loader:
        inputs = batch["model_inputs"]
        cells = Cells.listed(inputs["output_cells"], inputs["output_cell_count"])
        log_rates, features = model.factor_log_rates(**inputs)
        some = torch.arange(0, len(cells.unit), max(1, len(cells.unit) * len(loader) // _MOST_CELLS))
        of_batch = (features[cells], log_rates[cells], batch["target_values"][cells])
        parts.append([x[some].double().numpy() for x in of_batch])
    return LaterCells(*(np.concatenate(x) for x in zip(*parts, strict=True)))
