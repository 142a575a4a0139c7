"""The transform that pretraining puts on a Dataset: draw a mask for the window, then tokenize."""

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from neurobridge_tb._upstream import Data
from neurobridge_tb.masking.schemes import Mask, draw_mask

_DRAWS = 100  # of a mask that leaves something to see


class GridModel(Protocol):
    """What a model needs for it."""

    def window_grid(self, data: Data) -> tuple[int, np.ndarray]: ...

    def absent(self, data: Data) -> np.ndarray | None: ...

    def tokenize_with_targets(self, data: Data, mask: Mask | None = None) -> dict: ...


class MaskedTokenizer:
    """Draw a mask and tokenize with it.

    The draw is a function of (seed, epoch, recording, window start) alone, so it does not depend on the number of
    workers, on the batch, or on where a run was resumed.

    Args:
        model: Its ``tokenize_with_targets`` and ``window_grid`` are called.
        schemes: Weight of each masking scheme, see :func:`neurobridge_tb.masking.schemes.draw_mask`.
        seed: Seed of all draws.
        fixed: Draw the same mask for a window in every epoch (validation). Default False.
    """

    def __init__(self, model: GridModel, schemes: Mapping[str, float], *, seed: int = 0, fixed: bool = False):
        self.model, self.schemes, self.seed, self.fixed = model, dict(schemes), seed, fixed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by persistent workers too

    @property
    def epoch(self) -> int:
        """The epoch that was set last; 0 before."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Tell the transform, and its copies in DataLoader workers, which epoch begins."""
        self._epoch.fill_(epoch)

    def draw(self, data: Data) -> Mask:
        """Mask of this window in this epoch; drawn again where it would hide all values that exist."""
        n_bins, areas = self.model.window_grid(data)
        rng = np.random.default_rng(
            [
                self.seed,
                0 if self.fixed else 1 + self.epoch,
                zlib.crc32(str(data.session.id).encode()),
                int(round(float(data.absolute_start) * 1e6)) & 0xFFFFFFFFFFFF,
            ]
        )
        mask, absent = draw_mask(self.schemes, rng, n_bins, areas), self.model.absent(data)
        if absent is not None:
            for _ in range(_DRAWS):
                if (mask.keep & ~absent).any():
                    break
                mask = draw_mask(self.schemes, rng, n_bins, areas)
        return mask

    def __call__(self, data: Data) -> dict[str, Any]:
        return self.model.tokenize_with_targets(data, self.draw(data))
