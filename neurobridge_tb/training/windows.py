"""DataLoaders of windows, from upstream's samplers and collate."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import (
    Data,
    Dataset,
    DatasetIndex,
    Interval,
    RandomFixedWindowSampler,
    SequentialFixedWindowSampler,
    TrialSampler,
    collate,
)
from neurobridge_tb.errors import InputError

_CACHED_WINDOWS = 4096


class _WindowSource(torch.utils.data.Dataset):
    """Windows of a Dataset with a transform of their own; windows that come back every epoch are read once.

    The Dataset itself is not changed.
    """

    def __init__(self, dataset: Dataset, transform: Callable, *, cached: bool):
        self.windows = copy.copy(dataset)  # shares the open files
        self.windows.transform = None
        self.transform, self.cached = transform, cached
        self._cache: dict[tuple[str, float, float], Data] = {}

    def __getitem__(self, index: DatasetIndex) -> Any:
        key = index.recording_id, index.start, index.end
        window = self._cache.get(key)
        if window is None:
            window = self.windows[index]
            if self.cached and len(self._cache) < _CACHED_WINDOWS:
                self._cache[key] = window
        return self.transform(window)


def window_loader(
    dataset: Dataset,
    transform: Callable,
    intervals: dict[str, Interval],
    *,
    windows: str,
    window_length: float,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
) -> DataLoader:
    """Loader of collated windows of ``dataset``.

    Args:
        dataset: Where the recordings are; it is not changed.
        transform: What makes a window into a sample, e.g. ``model.tokenize``.
        intervals: From which intervals of each recording windows are drawn.
        windows: ``"trial"``: each interval is a window; ``"continuous"``: windows of ``window_length`` lie anywhere
            inside the intervals, drawn at random when shuffled and end to end otherwise.
        window_length: In s.
        batch_size: Windows in a batch.
        num_workers: Worker processes. Default 0.
        shuffle: Random order and placement, and an incomplete last batch is left out. Default False.
        seed: Seed of the order and placement.
    """
    source = _WindowSource(dataset, transform, cached=windows == "trial" or not shuffle)
    generator = torch.Generator().manual_seed(seed)
    sampler: Any
    if windows == "trial":
        sampler = TrialSampler(sampling_intervals=intervals, shuffle=shuffle, generator=generator)
    elif windows == "continuous" and shuffle:
        sampler = RandomFixedWindowSampler(
            sampling_intervals=intervals, window_length=window_length, generator=generator
        )
    elif windows == "continuous":
        sampler = SequentialFixedWindowSampler(
            sampling_intervals=intervals, window_length=window_length, drop_short=True
        )
    else:
        raise InputError(
            expected="windows=trial or windows=continuous", found=repr(windows), fix="Correct the dataset config."
        )
    if len(sampler) < (batch_size if shuffle else 1):
        raise InputError(
            expected=f"at least {batch_size if shuffle else 1} windows of {window_length} s",
            found=f"{len(sampler)} in {sum(len(i) for i in intervals.values())} intervals",
            fix="Use a smaller batch_size or window, or check the recording's train_domain and valid_domain.",
        )
    return DataLoader(
        source,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=shuffle,
    )


class EpochSeeds(Callback):
    """Begin each epoch from seeds that depend on (seed, epoch) alone.

    So a resumed run goes on exactly as an uninterrupted one would have.

    Args:
        seed: The run's seed.
        loaders: Loaders whose samplers draw with a generator, and whose transforms may draw by epoch.
    """

    def __init__(self, seed: int, *loaders: DataLoader):
        self.seed, self.loaders = seed, loaders

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._seed(0)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._seed(trainer.current_epoch)
        torch.manual_seed(self.seed * 1_000_003 + trainer.current_epoch)

    def _seed(self, epoch: int) -> None:
        for loader in self.loaders:
            generator = getattr(loader.sampler, "generator", None)
            if generator is not None:
                generator.manual_seed(self.seed * 1_000_003 + epoch)
            transform: Any = getattr(loader.dataset, "transform", None)
            if hasattr(transform, "set_epoch"):
                transform.set_epoch(epoch)
