"""Seeds and shares of the windows, epoch by epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from neurobridge_tb.data.pairs import PairBatches


class EpochSeeds(Callback):
    """Begin each epoch from seeds that depend on (seed, epoch) alone, and give each process its share of the windows.

    So a resumed run goes on exactly as an uninterrupted one would have.

    Args:
        seed: The run's seed.
        train: Loader whose sampler draws with a generator, and whose transform may draw by epoch.
        valid: Loaders whose windows are shared among the processes too. Default: none.
    """

    def __init__(self, seed: int, train: DataLoader, valid: Mapping[str, DataLoader] | None = None):
        self.seed, self.train, self.valid = seed, train, valid or {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._share(trainer.world_size, trainer.global_rank)
        self._seed(0)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._share(1, 0)  # whoever goes on with the loaders sees all windows

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._seed(checkpoint["epoch"] + 1)  # workers of the loader draw windows before the epoch starts

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._seed(trainer.current_epoch)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:  # for dropout; a loader draws from this generator too, at times before the epoch starts
            torch.manual_seed(self.seed * 1_000_003 + trainer.current_epoch + 7_368_787 * trainer.global_rank)

    def _share(self, num_replicas: int, rank: int) -> None:
        for loader in (self.train, *self.valid.values()):
            sampler: Any = loader.sampler
            sampler.set_params(num_replicas, rank)

    def _seed(self, epoch: int) -> None:
        sampler: Any = self.train.sampler
        if sampler.sampler.generator is not None:
            sampler.sampler.generator.manual_seed(self.seed * 1_000_003 + epoch)
        transform: Any = getattr(self.train.dataset, "transform", None)
        if hasattr(transform, "set_epoch"):
            transform.set_epoch(epoch)


class PairEpochs(Callback):
    """Sets the epoch and the process of the loaders, and seeds dropout and augmentation by (seed, epoch).

    Args:
        seed: The run's seed.
        train: Training loader.
        valid: Validation loader.
    """

    def __init__(self, seed: int, train: PairBatches, valid: PairBatches):
        self.seed, self.train, self.valid = seed, train, valid

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for pairs in (self.train, self.valid):
            pairs.num_replicas, pairs.rank = trainer.world_size, trainer.global_rank

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.train.epoch = trainer.current_epoch
        torch.manual_seed(self.seed * 1_000_003 + trainer.current_epoch + 7_368_787 * trainer.global_rank)
