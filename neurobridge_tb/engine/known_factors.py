"""Factors of a recording's units, kept beside a pretrained model: what they share, learnt without any image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.windows import spread_windows
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.factor_scores import FactorScores
from neurobridge_tb.files import write_aside
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.response_readout import step_means

_FILE = "factors.h5"
_MOST_STEPS = 50_000  # of each recording


@dataclass(frozen=True)
class KnownFactors:
    """Weights of :class:`FactorScores` on standardised values, means within a latent step.

    Attributes:
        units: For each recording, the ids of its units.
        weights: For each recording, (units, factors).
    """

    units: dict[str, list[str]]
    weights: dict[str, NDArray[np.float64]]

    @classmethod
    def fit(cls, model: NeuroBridgeModel, dataset: Dataset, intervals: dict[str, Interval]) -> "KnownFactors":
        """From windows spread evenly over the intervals of each recording of ``dataset``; one without any is left out.

        Args:
            model: With unit statistics; it reads values on a grid.
            dataset: Where the recordings are.
            intervals: Training intervals of each recording.
        """
        found = cls({}, {})
        steps = model.num_latents // model.num_latents_per_step
        for recording_id, interval in intervals.items():
            recording = dataset.get_recording(recording_id)
            unit_ids = recording.units.id.astype(str).tolist()
            index = torch.tensor(model.unit_emb.tokenizer(unit_ids))[None]
            x = []
            for window in spread_windows(recording, interval, model.sequence_length, most=_MOST_STEPS // steps):
                grid, times = model.grid_values(window)
                values = torch.from_numpy(grid)[None]
                (means,), (exists,) = step_means(
                    model.standardize(values, index).nan_to_num(0.0),
                    ~values.isnan(),
                    torch.from_numpy(times)[None],
                    num_steps=steps,
                    latent_step=model.latent_step,
                )
                x.append(means.masked_fill(~exists, torch.nan)[exists.any(1)])
            if not x:
                continue
            scores = FactorScores.fit(torch.cat(x).numpy())
            found.units[recording_id] = unit_ids
            found.weights[recording_id] = scores.weights / scores.inputs.std[:, None]
        return found

    def of(self, unit_ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Weights (len(unit_ids), factors), or None: no one recording had all of these units, or they share nothing."""
        for recording_id, known in self.units.items():
            row = {unit: k for k, unit in enumerate(known)}
            if all(unit in row for unit in unit_ids) and self.weights[recording_id].shape[1]:
                return self.weights[recording_id][[row[unit] for unit in unit_ids]]
        return None

    def save(self, model_folder: Path) -> None:
        """Write ``factors.h5`` into the folder of a saved model, aside and renamed."""
        with write_aside(model_folder / _FILE) as aside, h5py.File(aside, "w") as file:
            for recording_id, unit_ids in self.units.items():
                group = file.create_group(recording_id)
                group.create_dataset("units", data=unit_ids, dtype=h5py.string_dtype())
                group.create_dataset("weights", data=self.weights[recording_id].astype(np.float32))

    @classmethod
    def load(cls, model: str | Path) -> "KnownFactors":
        """Read those of a saved model; of a checkpoint, or of a model without any, none.

        Raises:
            InputError: The file cannot be read.
        """
        path = Path(model) / _FILE
        found = cls({}, {})
        if path.is_file():
            try:
                with h5py.File(path) as file:
                    file.visititems(lambda name, item: found._read(name, item))
            except (OSError, KeyError) as error:
                raise InputError(
                    expected="an HDF5 file of factors, as `neurobridge pretrain` writes it",
                    found=f"{path}: {error}",
                    fix="Delete it to align without them, or pretrain again.",
                ) from error
        return found

    def _read(self, name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "units" in item:
            self.units[name] = item["units"].asstr()[:].tolist()
            self.weights[name] = item["weights"][:].astype(np.float64)
