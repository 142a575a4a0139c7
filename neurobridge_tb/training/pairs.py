"""The transform that alignment puts on a Dataset: a window, its image, and the same window masked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from neurobridge_tb._upstream import Data
from neurobridge_tb.masking import Mask, MaskedTokenizer
from neurobridge_tb.models import NeuroBridgeModel


class PairTokenizer:
    """Tokenize a presentation for alignment.

    Args:
        model: Its ``tokenize`` makes the samples.
        schemes: Weights of the masking schemes of the masked copy, for replay; None: no masked copy.
        masked_from: First epoch with a masked copy. Default 0.
        unit_dropout: A random share of the units, at most this, is hidden. Default 0.
        seed: Seed of the masks.
    """

    def __init__(
        self,
        model: NeuroBridgeModel,
        *,
        schemes: Mapping[str, float] | None = None,
        masked_from: int = 0,
        unit_dropout: float = 0.0,
        seed: int = 0,
    ):
        self.model, self.unit_dropout, self.masked_from = model, unit_dropout, masked_from
        self.masked = None if schemes is None else MaskedTokenizer(model, schemes, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`MaskedTokenizer.set_epoch`."""
        if self.masked is not None:
            self.masked.set_epoch(epoch)

    def __call__(self, data: Data) -> dict[str, Any]:
        """``window`` and, for replay, ``masked`` (as ``model.tokenize`` makes them) and ``image_id``."""
        n_bins, areas = self.model.window_grid(data)
        hidden = torch.rand(len(areas)).numpy() < self.unit_dropout * float(torch.rand(()))
        keep = np.broadcast_to(~hidden, (n_bins, len(areas)))
        sample = {
            "window": self.model.tokenize(data, Mask("none", keep, np.zeros_like(keep))),
            "image_id": str(data.presentations.image_id[0]),
        }
        if self.masked is None or self.masked.epoch < self.masked_from:
            return sample
        return sample | {"masked": self.masked(data)}
