"""Simulated strangers: identified by a window that ends before the targets, and by the whole again in validation."""

import numpy as np
import pytest
import torch

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb._upstream import Interval
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders, ForecastSampler
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.datasets.reference_features import recording_features, reference_window, window_features
from neurobridge_tb.engine.references import Reference, divide
from neurobridge_tb.engine.strangers import GAINS, SimulatedStrangers
from neurobridge_tb.errors import InputError


@pytest.fixture
def simulated(binned_root):
    dataset = BinnedRecordings(root=binned_root)
    torch.manual_seed(0)
    model = NeuroHorizonModel(
        modality="spike_counts", history=0.5, horizon=0.4, bin_size=0.05, unit_identity="features", dim_identity=8,
        encoder={"dim": 16, "depth": 1, "dim_head": 8, "dim_population": 8},
    )  # fmt: skip
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    features = {r: recording_features(dataset.get_recording(r), intervals[r]) for r in dataset.recording_ids}
    model.fit_units(dataset, intervals, features)
    whole = {r: Reference(x, reference_window(intervals[r], 60.0)) for r, x in features.items()}
    sampler = ForecastSampler(intervals, windows="continuous", n_past=10, n_future=8, bin_size=0.05, shuffle=True)
    return SimulatedStrangers(model, dataset, sampler, whole, seed=0), dataset


def test_windows_come_after_the_reference_that_identifies_units(simulated):
    strangers, dataset = simulated
    before = strangers.model.unit_stats.weight.clone()
    length = len(strangers.sampler)
    references = set()
    for epoch in range(6):
        strangers.begin(epoch)
        assert not torch.equal(strangers.model.unit_stats.weight, before)
        windows = list(strangers.sampler)
        assert len(windows) == len(strangers.sampler) == length // 2
        for recording_id in dataset.recording_ids:
            recording, train = dataset.get_recording(recording_id), dataset.get_sampling_intervals("train")
            earliest = min(w.start for w in windows if w.recording_id == recording_id)
            index = strangers.model.unit_stats.tokenizer(strangers.unit_ids[recording_id])
            known = strangers.model.identity.features.weight[index].numpy()
            ends = [r.later.start[0] for r in strangers.references[recording_id] if np.array_equal(r.features, known)]
            assert len(ends) == 1 and ends[0] <= earliest + 1e-9
            early, _ = divide(train[recording_id], ends[0] - train[recording_id].start[0])
            np.testing.assert_array_equal(window_features(recording, early), known)
            references.add((recording_id, ends[0]))
    assert len(references) > 4
    strangers.end()
    torch.testing.assert_close(strangers.model.unit_stats.weight, before)


def test_each_reference_has_factors_of_its_own(simulated):
    strangers, dataset = simulated
    config = ForecastConfig(windows="continuous", stride=4)
    modulation = strangers.model.modulation.rows
    loaders = ForecastLoaders(config, dataset, strangers.model)
    strangers.fit_modulation(loaders, loaders.of_split("valid"))
    assert float(strangers.model.modulation_gain) in GAINS and strangers.model.modulation.response.any()
    whole = modulation.weight.clone()
    index = modulation.tokenizer([u for ids in strangers.unit_ids.values() for u in ids])
    assert whole[index].abs().sum(1).min() > 0 and not whole[0].any()
    drawn = []
    for epoch in range(3):
        strangers.begin(epoch)
        drawn.append(modulation.weight.clone())
    assert not all(torch.equal(drawn[0], rows) for rows in (*drawn[1:], whole))
    strangers.end()
    assert torch.equal(modulation.weight, whole)


def test_what_is_drawn_depends_on_the_seed_and_the_epoch_alone(simulated):
    strangers, _ = simulated
    drawn = []
    for epoch in (3, 1, 2, 4, 5, 3):
        strangers.begin(epoch)
        drawn.append(strangers.model.unit_stats.weight.clone())
    assert torch.equal(drawn[0], drawn[-1]) and not all(torch.equal(drawn[0], other) for other in drawn)


def test_a_reference_shorter_than_a_second_is_refused(simulated):
    _, dataset = simulated
    with pytest.raises(InputError, match=r"at least 1 s(.|\n)*0.4 s"):
        window_features(
            dataset.get_recording(dataset.recording_ids[0]), Interval(start=np.array([0.0]), end=np.array([0.4]))
        )
