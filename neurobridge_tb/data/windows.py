"""DataLoaders of windows, from upstream's samplers and collate."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurobridge_tb._upstream import (
    Data,
    Dataset,
    DatasetIndex,
    DistributedEvaluationSamplerWrapper,
    Interval,
    TrialSampler,
    collate,
)
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.data.samplers import (
    DistributedTrainingSampler,
    RandomWindows,
    RecordingBalancedSampler,
    SequentialWindows,
)
from neurobridge_tb.errors import InputError

_CACHED_WINDOWS = 4096
_BATCHES = 32  # of an epoch at least, where the number of windows decides
_LONGEST = 3  # times the model's length may a trial last
_OPEN_FILES = 64  # at a time, of a dataset that does not keep its files open


class WindowSource(torch.utils.data.Dataset):
    """Windows of a Dataset with a transform of their own; windows that come back every epoch are read once.

    The Dataset itself is not changed.

    Args:
        dataset: Where the recordings are.
        transform: What makes a window into a sample. Default: the windows themselves.
        cached: Keep the windows.
    """

    def __init__(self, dataset: Dataset, transform: Callable | None = None, *, cached: bool):
        self.dataset, self.transform = dataset, transform
        self.keeps_open = getattr(dataset, "_data_objects", None) is not None  # upstream's keep_files_open
        self.cached = cached and self.keeps_open  # a window keeps its file open
        self._forget()

    def _forget(self) -> None:
        self._recordings: dict[str, Data] = {}
        self._windows: dict[tuple[str, float, float], LazyWindow] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process opens its own recordings."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def window(self, index: DatasetIndex) -> LazyWindow:
        """The window itself."""
        key = index.recording_id, index.start, index.end
        window = self._windows.get(key)
        if window is None:
            window = LazyWindow(self._recording(index.recording_id), index.start, index.end)
            if self.cached and len(self._windows) < _CACHED_WINDOWS:
                self._windows[key] = window
        return window

    def __getitem__(self, index: DatasetIndex) -> Any:
        window = self.window(index)
        return window if self.transform is None else self.transform(window)

    def _recording(self, recording_id: str) -> Data:
        if recording_id not in self._recordings:
            if not self.keeps_open and len(self._recordings) >= _OPEN_FILES:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[recording_id] = self.dataset.get_recording(recording_id)
        return self._recordings[recording_id]


def batch_size_for(n_windows: int) -> int:
    """The largest power of two, from 8 to 64, that leaves an epoch 32 batches."""
    return int(2 ** np.clip(np.floor(np.log2(max(n_windows, 1) / _BATCHES)), 3, 6))


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
    recording_exponent: float = 1.0,
) -> DataLoader:
    """Loader of collated windows of ``dataset``; each process of a distributed run takes its share of them.

    Args:
        dataset: Where the recordings are; it is not changed.
        transform: What makes a window into a sample, e.g. ``model.tokenize``.
        intervals: From which intervals of each recording windows are drawn.
        windows: ``"trial"``: each interval is a window; ``"continuous"``: windows of ``window_length`` lie anywhere
            inside the intervals, drawn at random when shuffled and end to end otherwise.
        window_length: In s.
        batch_size: Windows in a batch; 0: see :func:`batch_size_for`.
        num_workers: Worker processes. Default 0.
        shuffle: Random order and placement, and an incomplete last batch is left out. Default False.
        seed: Seed of the order and placement.
        recording_exponent: When shuffled, recordings are drawn in proportion to the number of their windows to this
            power: 1 as they are, 0 all alike. Default 1.
    """
    source = WindowSource(dataset, transform, cached=windows == "trial" or not shuffle)
    if windows not in ("trial", "continuous"):
        raise InputError(
            expected="windows=trial or windows=continuous", found=repr(windows), fix="Correct the dataset config."
        )
    longest = max((float((i.end - i.start).max()) for i in intervals.values() if len(i)), default=0.0)
    if windows == "trial" and longest > _LONGEST * window_length:
        raise InputError(
            expected=f"with windows=trial, intervals of about the model's {window_length:g} s, one a window",
            found=f"one of {longest:g} s",
            fix="Take windows=continuous, which lie anywhere inside the intervals, or split the recording by trials.",
        )
    generator = torch.Generator().manual_seed(seed)

    def sampler_of(intervals: dict[str, Interval]) -> Any:
        if windows == "trial":
            return TrialSampler(sampling_intervals=intervals, shuffle=shuffle, generator=generator)
        if shuffle:
            return RandomWindows(sampling_intervals=intervals, window_length=window_length, generator=generator)
        return SequentialWindows(sampling_intervals=intervals, window_length=window_length)

    sampler: Any = sampler_of(intervals)
    batch_size = batch_size or batch_size_for(len(sampler))
    if len(sampler) < (batch_size if shuffle else 1):
        raise InputError(
            expected=f"at least {batch_size if shuffle else 1} windows of {window_length} s",
            found=f"{len(sampler)} in {sum(len(i) for i in intervals.values())} intervals",
            fix="Use a smaller batch_size or window, or check the recording's train_domain and valid_domain.",
        )
    if shuffle and len(intervals) > 1 and recording_exponent != 1:
        alone = {r: one for r, i in intervals.items() if len(one := sampler_of({r: i}))}
        sampler = RecordingBalancedSampler(alone, exponent=recording_exponent, generator=generator)
    share = DistributedTrainingSampler if shuffle else DistributedEvaluationSamplerWrapper
    return DataLoader(
        source,
        batch_size=batch_size,
        sampler=share(sampler, num_replicas=1, rank=0),
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=shuffle,
    )
