"""Filling in: each unit is predicted without being seen, and shared activity is found."""

import numpy as np
import torch

from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.masked.filled_in import fill_in


def test_units_that_share_signals_are_filled_in_from_one_another(binned_root):
    torch.manual_seed(0)
    dataset = BinnedRecordings(binned_root, ["session0"])
    model = NeuroBridgeModel(
        modality="spike_counts", sequence_length=1.0, latent_step=0.25, num_latents_per_step=2, dim=16, depth=1,
        num_factors=8,
    )  # fmt: skip
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    start_from_factor_analysis(model, dataset, train)
    found = fill_in(model.eval(), dataset, "session0")
    assert found.recorded.shape == found.filled.shape == (10, 20, 16) and found.split == "test"
    assert np.isfinite(found.filled).all() and found.metric == "bits/spike" and found.bin_size == 0.05
    assert np.median(found.scores) > 0.05
    recording = dataset.get_recording("session0")
    np.testing.assert_array_equal(found.recorded[0], recording.spike_counts.value[1000:1020])
