"""Windows for forecasting: a past and a future, laid on the bins of each interval and never across its ends."""

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from neurobridge_tb._upstream import (
    Dataset,
    DatasetIndex,
    DistributedEvaluationSamplerWrapper,
    Interval,
    collate,
    pad2d,
)
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.activity import Activity
from neurobridge_tb.data.running_past import RunningPast
from neurobridge_tb.data.samplers import DistributedTrainingSampler
from neurobridge_tb.data.windows import batch_size_for
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.nn.forecasting.rate_filter import RECENT

_CACHE_BYTES = 500_000_000
_MOST_REFERENCE_WINDOWS = 1000


class ForecastSampler(Sampler[DatasetIndex]):
    """Windows of ``history`` s and up to ``horizon`` s more, inside intervals.

    - ``"continuous"``: a window every ``stride`` bins; shuffled, where each interval's first one lies is drawn anew
      every epoch. The last windows of an interval have a shorter future, of one bin at least.
    - ``"trial"``: one window an interval. It begins with the interval, or, where ``anchors`` are given, its future
      begins at each anchor.

    Args:
        intervals: Where windows may lie, for each recording; trials that windows must not cross are intervals each.
        windows: ``"continuous"`` or ``"trial"``.
        n_past: Bins of past.
        n_future: Bins of future.
        bin_size: In s.
        stride: In bins, for continuous windows. Default 1.
        anchors: Times in s at which futures begin, for each recording, for trial windows; those whose window does not
            fit into an interval are left out. Default: none.
        shuffle: Random order and placement. Default False.
        seed: Of the order and placement. Default 0.

    Raises:
        InputError: No interval holds a whole window, so that the last bins would never be learnt or scored.
    """

    def __init__(
        self,
        intervals: dict[str, Interval],
        *,
        windows: str,
        n_past: int,
        n_future: int,
        bin_size: float,
        stride: int = 1,
        anchors: dict[str, np.ndarray] | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ):
        if windows not in ("continuous", "trial"):
            raise InputError(
                expected="windows=continuous or windows=trial", found=repr(windows), fix="Correct the config."
            )
        self.intervals, self.windows, self.anchors = intervals, windows, anchors
        self.n_past, self.n_future, self.bin_size, self.stride = n_past, n_future, bin_size, stride
        self.shuffle = shuffle
        self.generator = torch.Generator().manual_seed(seed)
        self._drawn, self._length = intervals, 0  # see `restrict`
        longest = max((float(np.max(i.end - i.start, initial=0.0)) for i in intervals.values()), default=0.0)
        if longest < (n_past + n_future) * bin_size - 1e-6 or not len(self):
            raise InputError(
                expected=f"an interval that holds {n_past * bin_size:.6g} s of past and {n_future * bin_size:.6g} s to "
                "forecast" + ("" if anchors is None else " around an anchor"),
                found=f"{sum(len(i) for i in intervals.values())} intervals, the longest of {longest:.6g} s",
                fix="Use a shorter model.history or model.horizon, or check the recording's splits and trials.",
            )

    def restrict(self, intervals: dict[str, Interval], length: int) -> None:
        """From now on draw ``length`` windows, of these recordings from these intervals only, again and again."""
        self._drawn, self._length = self.intervals | intervals, length

    def holds_windows(self, intervals: dict[str, Interval]) -> bool:
        """Whether a window fits into intervals."""
        return self._count(intervals) > 0

    def __len__(self) -> int:
        return self._length or self._count(self.intervals)

    def _count(self, some: dict[str, Interval]) -> int:
        """How many windows fit into intervals, wherever the first ones lie."""
        if self.anchors is not None:
            return sum(int(self._fitting(recording, intervals).sum()) for recording, intervals in some.items())
        last = np.concatenate([np.zeros(0, dtype=np.int64), *map(self._last_bins, some.values())])
        per_interval = last // self.stride + 1 if self.windows == "continuous" else np.ones_like(last)
        return int(per_interval[last >= 0].sum())

    def __iter__(self) -> Iterator[DatasetIndex]:
        if not self.shuffle:
            yield from self._all(self.intervals, phase=lambda n: 0)
            return
        left = self._length or sys.maxsize
        while left > 0:
            indices = self._all(self._drawn, phase=lambda n: int(torch.randint(n, (), generator=self.generator)))
            for i in torch.randperm(len(indices), generator=self.generator).tolist()[:left]:
                yield indices[i]
            left = left - len(indices) if self._length else 0

    def _all(self, some: dict[str, Interval], phase: Callable[[int], int]) -> list[DatasetIndex]:
        return [
            DatasetIndex(recording, start, end)
            for recording, intervals in some.items()
            for start, end in self._of_recording(recording, intervals, phase)
        ]

    def _of_recording(
        self, recording: str, intervals: Interval, phase: Callable[[int], int]
    ) -> Iterator[tuple[float, float]]:
        width, past = self.bin_size, self.n_past * self.bin_size
        length = (self.n_past + self.n_future) * width
        if self.anchors is not None:
            for _, k in np.argwhere(self._fitting(recording, intervals)):
                start = self.anchors[recording][k] - past
                yield float(start), float(start + length)
            return
        for begin, end, last in zip(intervals.start, intervals.end, self._last_bins(intervals).tolist(), strict=True):
            if last < 0:
                continue
            stride = self.stride if self.windows == "continuous" else last + 1
            shift = phase(min(stride, last + 1)) if self.windows == "continuous" else 0
            for first in np.minimum(np.arange(0, last + 1, stride) + shift, last):
                yield float(begin + first * width), float(min(begin + first * width + length, end))

    def _last_bins(self, intervals: Interval) -> np.ndarray:
        """The latest first bin of each interval with a bin to forecast; negative where there is none."""
        return ((intervals.end - intervals.start) / self.bin_size + 1e-6).astype(np.int64) - self.n_past - 1

    def _fitting(self, recording: str, intervals: Interval) -> np.ndarray:
        """(intervals, anchors) bool: around which anchors a window fits into an interval."""
        assert self.anchors is not None
        starts = self.anchors[recording] - self.n_past * self.bin_size
        ends = self.anchors[recording] + self.n_future * self.bin_size
        return (starts >= intervals.start[:, None] - 1e-9) & (ends <= intervals.end[:, None] + 1e-9)


def trial_columns(dataset: Dataset, column: str) -> dict[str, np.ndarray]:
    """A column of each recording's ``trials``."""
    found = {}
    for recording_id in dataset.recording_ids:
        recording = dataset.get_recording(recording_id)
        columns = list(recording.trials.keys()) if "trials" in recording.keys() else []
        if column not in columns:
            raise InputError(
                expected=f"a column '{column}' of trials in recording {recording_id}",
                found=", ".join(columns) or "no trials",
                fix="Set align or psth_condition to one of them, or leave it out.",
            )
        found[recording_id] = np.asarray(getattr(recording.trials, column))
    return found


def anchors_of(dataset: Dataset, column: str) -> dict[str, np.ndarray]:
    """Times in s of a column of each recording's ``trials``; NaN are left out."""
    times = {r: np.asarray(values, float) for r, values in trial_columns(dataset, column).items()}
    return {r: values[np.isfinite(values)] for r, values in times.items()}


class _Samples(torch.utils.data.Dataset):
    """Tokenized windows with the running past, kept in memory as far as it reaches: a window's sample never changes."""

    def __init__(self, dataset: Dataset, model: NeuroHorizonModel):
        self.windows = copy.copy(dataset)  # shares the open files
        self.windows.transform = None
        self.tokenize = model.tokenize_with_targets
        self._pasts: dict[str, RunningPast] = {}
        self._bin_size = model.bin_size
        self._cache: dict[tuple[str, float, float], Any] = {}
        self._room = _CACHE_BYTES

    def __getitem__(self, index: DatasetIndex) -> Any:
        key = index.recording_id, round(index.start, 6), round(index.end, 6)
        if key in self._cache:
            return self._cache[key]
        sample = self.tokenize(self.windows[index])
        recent = self._past(index.recording_id).before(index.start)
        for name, values in zip(("recent_spikes", "recent_bins"), recent, strict=True):
            sample["model_inputs"][name] = pad2d(torch.from_numpy(values))
        if self._room > 0:
            self._cache[key] = sample
            self._room -= _size(sample)
        return sample

    def _past(self, recording_id: str) -> RunningPast:
        if recording_id not in self._pasts:
            recording = self.windows.get_recording(recording_id)
            self._pasts[recording_id] = RunningPast(recording, self._bin_size, RECENT)
        return self._pasts[recording_id]


def _size(x: Any) -> int:
    if isinstance(x, dict):
        return sum(map(_size, x.values()))
    content = getattr(x, "obj", x)  # what upstream's pad() wraps
    return content.nbytes if isinstance(content, torch.Tensor | np.ndarray) else sys.getsizeof(content)


class ForecastLoaders:
    """Loaders of a dataset's tokenized windows, which they share; each process takes its share of the windows.

    Args:
        config: Its ``windows``, ``align``, ``stride``, ``loader`` and ``seed``.
        dataset: With ``train``, ``valid`` and ``test`` sampling intervals.
        model: Its ``tokenize_with_targets`` makes the samples.
    """

    def __init__(self, config: ForecastConfig, dataset: Dataset, model: NeuroHorizonModel):
        self.config, self.dataset = config, dataset
        self._bins: dict[str, Any] = {"n_past": model.n_past, "n_future": model.n_future, "bin_size": model.bin_size}
        self._samples, self._activity = _Samples(dataset, model), Activity(model.encoder, dataset)

    def of_split(self, split: str) -> DataLoader:
        """Windows of a split: shuffled ones for ``"train"``, else one after the other."""
        return self._loader(self.sampler(self.dataset.get_sampling_intervals(split), shuffle=split == "train"))

    def of_reference(self, window: dict[str, Interval]) -> DataLoader:
        """Windows in reference windows, one after the other: the last 1,000.

        Args:
            window: Of each recording.

        Raises:
            InputError: A past and a future do not fit into it.
        """
        indices = list(self.sampler(window))[-_MOST_REFERENCE_WINDOWS:]
        return DataLoader(self._samples, batch_size=batch_size_for(len(indices)), sampler=indices, collate_fn=collate)

    def sampler(self, intervals: dict[str, Interval], *, shuffle: bool = False) -> ForecastSampler:
        """What draws the windows of these intervals, for each recording, as the config says."""
        config = self.config
        align = config.align if config.windows == "trial" else None
        return ForecastSampler(
            self._with_values(intervals, cut=config.windows == "continuous" or bool(align)),
            windows=config.windows,
            **self._bins,
            stride=config.stride,
            anchors=anchors_of(self.dataset, align) if align else None,
            shuffle=shuffle,
            seed=config.seed,
        )

    def of_trials(self, intervals: dict[str, Interval], anchors: dict[str, np.ndarray] | None) -> DataLoader:
        """One window a trial, see :class:`ForecastSampler`."""
        intervals = self._with_values(intervals, cut=anchors is not None)
        return self._loader(ForecastSampler(intervals, windows="trial", **self._bins, anchors=anchors))

    def _with_values(self, intervals: dict[str, Interval], *, cut: bool) -> dict[str, Interval]:
        """Intervals without the stretches in which no unit has a value for as long as a past.

        Args:
            intervals: Of each recording.
            cut: A window may begin after such a stretch. Otherwise each begins with its interval, or is left out.
        """
        kept: dict[str, Interval] = {}
        for recording, its in intervals.items():
            parts = self._activity[recording].with_values(its, whole=False)
            rows = np.full(len(parts), True) if cut else np.isin(parts.start, its.start)
            kept[recording] = Interval(start=parts.start[rows], end=parts.end[rows])
        return kept

    def _loader(self, sampler: ForecastSampler) -> DataLoader:
        """An incomplete last batch is left out when the sampler shuffles."""
        sizes = self.config.loader
        batch_size = sizes.batch_size or batch_size_for(len(sampler))
        if sampler.shuffle and len(sampler) < batch_size:
            raise InputError(
                expected=f"at least {batch_size} windows to train on, a batch",
                found=f"{len(sampler)}",
                fix="Use a smaller loader.batch_size or stride.",
            )
        share = DistributedTrainingSampler if sampler.shuffle else DistributedEvaluationSamplerWrapper
        return DataLoader(
            self._samples,
            batch_size=batch_size,
            sampler=share(sampler, num_replicas=1, rank=0),
            collate_fn=collate,
            num_workers=sizes.num_workers,
            persistent_workers=sizes.num_workers > 0,
            drop_last=sampler.shuffle,
        )
