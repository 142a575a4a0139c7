"""Windows are the same whichever way worker processes are started."""

import multiprocessing

import pytest
import torch
from torch.utils._pytree import tree_leaves

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.configs.presets import MODELS
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.masking import MaskedTokenizer


def samples(binned_root, start_method):
    dataset = BinnedRecordings(binned_root)
    model = NeuroBridgeModel(modality="spike_counts", sequence_length=1.0, latent_step=0.5, **MODELS["tiny"])
    model.init_vocabs(dataset)
    transform = MaskedTokenizer(model, {"temporal": 1.0, "neuron": 1.0}, seed=3)
    loader = window_loader(
        dataset, transform, dataset.get_sampling_intervals("train"), windows="continuous", window_length=1.0,
        batch_size=16, shuffle=True, seed=3, num_workers=2 if start_method else 0,
    )  # fmt: skip
    loader.multiprocessing_context = start_method
    return list(loader)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_spawned_workers_give_the_samples_of_forked_ones_and_of_none(binned_root):
    none, forked, spawned = (samples(binned_root, method) for method in (None, "fork", "spawn"))
    assert len(none) == len(forked) == len(spawned) > 3
    for batches in zip(none, forked, spawned, strict=True):
        first, *others = map(tree_leaves, batches)
        for leaves in others:
            for a, b in zip(first, leaves, strict=True):
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
