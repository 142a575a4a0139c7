"""Start the population embedding of a recording from its principal components."""

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.windows import spread_windows
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import principal_axes
from neurobridge_tb.models.neurobridge import NeuroBridgeModel

_MOST_WINDOWS = 2000  # of each recording
_SCALE = 2.0  # of the scores; at 1, what a component has above a unit's own noise is learnt more slowly


def start_from_principal_components(
    model: NeuroBridgeModel, dataset: Dataset, intervals: dict[str, Interval], *, components: int, known: set[str]
) -> None:
    """Set the population embedding's rows to the first principal components of each recording.

    Random rows map the activity of a thousand units to a few numbers, and what the units share drowns in what is each
    one's own; with some hundred trials there is too little to learn better rows from. With these rows the latents see
    scores of the components, the largest first. A component's sign is such that its loadings have a positive sum. A
    unit that several recordings share keeps the rows of the first.

    Args:
        model: With vocabularies and unit statistics.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording.
        components: How many; the other columns of the rows start at zero.
        known: Ids of units whose rows stay as they are.

    Raises:
        InputError: The model has no population embedding of standardised values on a grid, or one of fewer columns.
    """
    width, population = model.config["dim_population"], model.population
    if population is None or model.reads_events or not model.standardize_inputs or components > width:
        raise InputError(
            expected="values on a grid, model.standardize_inputs=true and principal_start <= model.dim_population",
            found=f"modality {model.modality!r}, standardize_inputs={model.standardize_inputs}, "
            f"principal_start={components}, dim_population={width}",
            fix="Leave principal_start out, or correct the model config.",
        )
    done = set(known)
    for recording_id, interval in intervals.items():
        recording = dataset.get_recording(recording_id)
        unit_ids = recording.units.id.astype(str).tolist()
        index = torch.tensor(model.unit_emb.tokenizer(unit_ids))
        windows = spread_windows(recording, interval, model.sequence_length, most=_MOST_WINDOWS)
        values = torch.from_numpy(np.concatenate([model.grid_values(window)[0] for window in windows]))
        z = model.standardize(values[None], index[None])[0].double().nan_to_num(0.0)
        loadings = _loadings(z.numpy(), components)
        loadings *= _SCALE * len(unit_ids) ** 0.5  # the embedding divides by the root
        rows = np.zeros((len(unit_ids), width))
        rows[:, : loadings.shape[1]] = loadings
        new = [k for k, unit in enumerate(unit_ids) if unit not in done]
        with torch.no_grad():
            table = population.value_rows.weight
            table[index[new]] = torch.from_numpy(rows[new]).to(table)
        done.update(unit_ids)


def _loadings(z: NDArray[np.float64], components: int) -> NDArray[np.float64]:
    """(units, components) orthonormal loadings of bins ``z`` (n, units), largest component first."""
    _, axes = principal_axes(z)
    loadings = axes[:, ::-1][:, :components]
    return loadings * np.where(loadings.sum(0) < 0, -1.0, 1.0)
