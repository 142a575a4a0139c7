"""Samplers around upstream's: how often each recording is drawn, and which windows each process takes."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from neurobridge_tb._upstream import DatasetIndex, DistributedEvaluationSamplerWrapper


class RecordingBalancedSampler(Sampler[DatasetIndex]):
    """Shuffled windows of several recordings, drawn in proportion to size^exponent.

    An epoch is as long as all recordings together. A recording that is drawn more often than it has windows is passed
    over again, and upstream's samplers then lay random windows elsewhere (trials come again); of one that is drawn more
    rarely, each epoch takes other windows.

    Args:
        samplers: Upstream's sampler of each recording; they shuffle, and draw from ``generator``.
        exponent: 1 is plain sampling, 0 draws all recordings alike.
        generator: Source of all randomness.
    """

    def __init__(self, samplers: Mapping[str, Sampler[DatasetIndex]], *, exponent: float, generator: torch.Generator):
        self.samplers, self.generator = dict(samplers), generator
        sizes = np.array([len(sampler) for sampler in samplers.values()])  # type: ignore[arg-type]
        shares = sizes**exponent / (sizes**exponent).sum() * sizes.sum()
        drawn = np.floor(shares).astype(int)
        drawn[np.argsort(drawn - shares, kind="stable")[: sizes.sum() - drawn.sum()]] += 1
        self.drawn = dict(zip(samplers, drawn.tolist(), strict=True))  # windows of each recording in an epoch

    def __len__(self) -> int:
        return sum(self.drawn.values())

    def __iter__(self) -> Iterator[DatasetIndex]:
        indices = [i for name, n in self.drawn.items() for i in islice(_passes(self.samplers[name]), n)]
        for k in torch.randperm(len(indices), generator=self.generator):
            yield indices[k]


class DistributedTrainingSampler(DistributedEvaluationSamplerWrapper):
    """Upstream's division of a sampler's windows among processes, with equally many for each.

    Process r of W takes every W-th window from the r-th on, and what cannot be shared equally is left out. So W
    processes with batches of B take the very batches of one process with W x B, which leaves out the incomplete last
    batch too. The sampler inside must draw alike in all processes.
    """

    def rank_len(self) -> int:
        return len(self.sampler) // self.num_replicas

    def __iter__(self) -> Iterator[DatasetIndex]:
        return islice(super().__iter__(), self.rank_len())


def _passes(sampler: Sampler[DatasetIndex]) -> Iterator[DatasetIndex]:
    while True:
        yield from sampler
