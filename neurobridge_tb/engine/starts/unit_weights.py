"""How much each unit counts in the masked loss: by what can be predicted of it.

Pretraining on units that cannot be predicted can hurt what is decoded afterwards (POYO-CAP, ICLR 2026).
"""

import numpy as np
import torch
from torch import Tensor

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel

_LEAST = 0.05  # a unit of which nothing is predicted still counts a little


def unit_weights(kind: str | None, model: NeuroBridgeModel, dataset: Dataset) -> Tensor | None:
    """(V,) weight of each unit of the model's vocabulary, from 0.05 to 1; None: all alike.

    Args:
        kind: ``"communality"``: the share of a unit's variance that its factors explain; ``"reliability"``: the column
            of that name among a recording's units, as TVSD has it; None.
        model: With factors that are fitted.
        dataset: Its recordings hold the units.

    Raises:
        InputError: There is no such kind, the model has no factors, or a recording no such column.
    """
    if kind is None:
        return None
    if kind == "communality" and model.factors is not None:
        shared = model.factors.loading_rows.weight.detach().square().sum(1)
        own = model.factors.log_noise_rows.weight.detach()[:, 0].exp()
        return (shared / (shared + own)).clamp_min(_LEAST)
    if kind != "reliability":
        raise InputError(
            expected="loss.unit_weights=communality (of a model with factors), reliability or null",
            found=repr(kind) if model.factors is not None else f"{kind!r}, and a model with num_factors=0",
            fix="Correct loss.unit_weights.",
        )
    weights = torch.ones(len(model.unit_emb.weight))
    for recording_id in dataset.recording_ids:
        units = dataset.get_recording(recording_id).units
        if "reliability" not in units.keys():
            raise InputError(
                expected=f"a column 'reliability' among the units of {recording_id}",
                found=", ".join(sorted(units.keys())),
                fix="Use loss.unit_weights=communality, which any recording has.",
            )
        reliability = np.nan_to_num(np.asarray(units.reliability, dtype=np.float32), nan=0.0)
        weights[model.unit_emb.tokenizer(units.id.astype(str).tolist())] = torch.from_numpy(reliability)
    return weights.clamp(_LEAST, 1.0)
