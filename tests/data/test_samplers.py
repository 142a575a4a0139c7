"""How often recordings are drawn, and what each process of a distributed run takes."""

from collections import Counter

import numpy as np
import pytest
import torch

from neurobridge_tb._upstream import Interval, RandomFixedWindowSampler, SequentialFixedWindowSampler, TrialSampler
from neurobridge_tb.data.samplers import (
    DistributedTrainingSampler,
    RandomWindows,
    RecordingBalancedSampler,
    SequentialWindows,
)
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.engine.epoch_seeds import EpochSeeds
from neurobridge_tb.errors import InputError


def recordings(seconds):
    return {f"r{s}": Interval(0.0, float(s)) for s in seconds}


def balanced(seconds, exponent, seed=0):
    generator = torch.Generator().manual_seed(seed)
    alone = {
        name: RandomFixedWindowSampler(sampling_intervals={name: i}, window_length=1.0, generator=generator)
        for name, i in recordings(seconds).items()
    }
    return RecordingBalancedSampler(alone, exponent=exponent, generator=generator)


@pytest.mark.parametrize(
    "exponent, expected",
    [(1.0, {"r400": 400, "r100": 100, "r25": 25}), (0.5, {"r400": 300, "r100": 150, "r25": 75})]
    + [(0.0, {"r400": 175, "r100": 175, "r25": 175})],
)
def test_recordings_are_drawn_in_proportion_to_a_power_of_their_size(exponent, expected):
    sampler = balanced((400, 100, 25), exponent)
    assert Counter(index.recording_id for index in sampler) == expected
    assert len(sampler) == 525


def test_an_epoch_keeps_its_length_when_shares_are_not_whole():
    sampler = balanced((7, 3, 2), 0.5)
    assert len(list(sampler)) == len(sampler) == 12


def test_windows_are_random_mixed_and_fixed_by_the_generator():
    first, again, other = (list(balanced((40, 10), 0.5, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({index.start for index in first if index.recording_id == "r10"}) > 10  # a second pass lies elsewhere
    changes = sum(a.recording_id != b.recording_id for a, b in zip(first, first[1:], strict=False))
    assert changes > 10


@pytest.mark.parametrize("n, processes, batch", [(32, 2, 4), (37, 2, 4), (41, 3, 4), (5, 2, 4)])
def test_processes_take_the_batches_of_one_process_between_them(n, processes, batch):
    """Disjoint, equally many, and together what one process with the whole batch takes."""
    trials = {"r": Interval(torch.arange(n).double().numpy(), torch.arange(n).double().numpy() + 1)}
    shares = []
    for rank in range(processes):
        sampler = TrialSampler(sampling_intervals=trials, shuffle=True, generator=torch.Generator().manual_seed(3))
        share = DistributedTrainingSampler(sampler, num_replicas=processes, rank=rank)
        shares.append([index.start for index in share])
        assert len(shares[-1]) == len(share) == n // processes
    assert len({start for share in shares for start in share}) == n // processes * processes
    sampler = TrialSampler(sampling_intervals=trials, shuffle=True, generator=torch.Generator().manual_seed(3))
    order = [index.start for index in sampler]
    for k in range(n // (batch * processes)):
        whole = order[k * batch * processes : (k + 1) * batch * processes]
        assert sorted(whole) == sorted(start for share in shares for start in share[k * batch : (k + 1) * batch])


class FakeTrainer:
    current_epoch = 0

    def __init__(self, world_size, global_rank):
        self.world_size, self.global_rank = world_size, global_rank


@pytest.mark.parametrize("windows", ["continuous", "trial"])
def test_every_validation_window_is_seen_once_and_afterwards_one_process_sees_all(binned_root, windows):
    dataset = BinnedRecordings(root=binned_root)
    intervals = dataset.get_sampling_intervals("valid")
    intervals = {r: Interval(i.start[0] + torch.arange(7).numpy(), i.start[0] + torch.arange(1, 8).numpy() + 0.0)
                 for r, i in intervals.items()}  # fmt: skip
    common = dict(windows=windows, window_length=1.0, batch_size=4)
    train = window_loader(dataset, len, intervals, shuffle=True, recording_exponent=0.5, **common)
    valid = window_loader(dataset, len, intervals, **common)
    seeds = EpochSeeds(0, train, {"all": valid})
    everything = list(valid.sampler)
    seen, trained = [], []
    for rank in range(3):
        seeds.setup(FakeTrainer(3, rank), None, "fit")
        seen += list(valid.sampler)
        trained.append(list(train.sampler))
    keys = [(index.recording_id, index.start) for index in seen]
    assert sorted(keys) == sorted((index.recording_id, index.start) for index in everything)
    assert len(set(keys)) == 14
    assert {len(share) for share in trained} == {4}
    seeds.teardown(None, None, "fit")
    assert list(valid.sampler) == everything and len(list(train.sampler)) == 14


def test_a_recording_too_short_for_a_window_is_left_out(binned_root):
    dataset = BinnedRecordings(root=binned_root)
    intervals = {"session0": Interval(0.0, 30.0), "session1": Interval(0.0, 0.5)}
    loader = window_loader(
        dataset, len, intervals, windows="continuous", window_length=1.0, batch_size=4, shuffle=True,
        recording_exponent=0.5,
    )  # fmt: skip
    assert {index.recording_id for index in loader.sampler} == {"session0"}


def same(ours, theirs):
    """But for the last bit: upstream's steps are multiplied and added in one operation on some processors."""
    names = [i.recording_id for i in ours] == [i.recording_id for i in theirs]
    times = [np.array([(i.start, i.end) for i in some]) for some in (ours, theirs)]
    return names and np.abs(times[0] - times[1]).max() < 1e-9


@pytest.mark.parametrize("length", [1.0, 0.3, 0.7])
def test_windows_are_those_of_upstreams_samplers(length):
    rng = np.random.default_rng(0)
    intervals = {}
    for name in "abc":
        start = np.cumsum(rng.uniform(0, 3, 40)) + rng.uniform(0, 1e4)
        start[:4] = np.arange(4) * 0.1  # ends that are multiples of the length, but for rounding
        span = np.concatenate([[length, 2 * length, 3 * length, 0.1], rng.uniform(0, 9, 36)])
        intervals[name] = Interval(start=np.sort(start), end=np.sort(start) + span)
    settings = {"sampling_intervals": intervals, "window_length": length}
    theirs, ours = SequentialFixedWindowSampler(**settings, drop_short=True), SequentialWindows(**settings)
    assert same(list(ours), list(theirs)) and len(ours) == len(theirs) == len(list(ours))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    theirs = RandomFixedWindowSampler(**settings, drop_short=True, generator=generators[0])
    ours = RandomWindows(**settings, generator=generators[1])
    assert len(ours) == len(theirs)
    for _ in range(2):
        assert same(list(ours), list(theirs))


def test_intervals_that_are_no_trials_are_not_taken_for_windows():
    """A block of training time, of which a model of one second would see one window of 400 s."""
    with pytest.raises(InputError, match="about the model's 1 s[\\s\\S]*one of 400 s[\\s\\S]*windows=continuous"):
        window_loader(None, None, recordings((400, 2)), windows="trial", window_length=1.0, batch_size=1)
