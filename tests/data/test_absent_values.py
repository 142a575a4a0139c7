"""Stretches without a value: windows that lie in them are left out before training, in every kind of job."""

import pickle
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, Interval, collate
from neurobridge_tb.configs.parts import LoaderConfig
from neurobridge_tb.data.activity import Activity, sampling_intervals
from neurobridge_tb.data.masked_windows import masked_loaders
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import MaskedTokenizer

SIZES = dict(sequence_length=1.0, latent_step=0.25, dim=16, depth=1, dim_head=8)
SCHEMES = dict.fromkeys(("temporal", "causal", "neuron", "random"), 1.0)


def make(root, gaps, n_units=5):
    """60 s of an envelope; ``gaps`` are stretches, in bins of 50 ms, without any value."""
    rng = np.random.default_rng(0)
    envelope = rng.normal(size=(1200, n_units)).astype(np.float32)
    for first, last in gaps:
        envelope[first:last] = np.nan
    data = build_recording(
        brainset_id="test",
        session_id="blanked",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(n_units)]},
        mua=(envelope, 0.05),
        splits={"train": ([0.0], [40.0]), "valid": ([40.0], [60.0])},
        simulated=True,
    )
    save_recording(data, root / "blanked.h5")
    dataset = BinnedRecordings(root=root)
    model = NeuroBridgeModel(modality="mua", **SIZES)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model, dataset


def settings(windows):
    return SimpleNamespace(windows=windows, masking=SCHEMES, seed=0, loader=LoaderConfig(batch_size=4))


def test_no_window_is_drawn_where_an_artefact_was_blanked(tmp_path):
    model, dataset = make(tmp_path, [(200, 230), (400, 416), (850, 872)])  # 1.5 s, 0.8 s, 1.1 s
    train = sampling_intervals(model, dataset, "train", windows="continuous")["blanked"]
    np.testing.assert_allclose(np.stack([train.start, train.end]), [[0, 11.5], [10, 40]])
    train, valid = masked_loaders(settings("continuous"), dataset, model)
    for epoch in range(20):
        train.dataset.transform.set_epoch(epoch)
        for batch in train:
            assert batch["model_inputs"]["input_mask"].flatten(1).any(1).all()
    assert all(batch["model_inputs"]["input_mask"].any() for loader in valid.values() for batch in loader)


def test_a_gap_at_the_ends_and_none_at_all(tmp_path):
    model, dataset = make(tmp_path, [(0, 40), (770, 800)])
    activity = Activity(model, dataset)["blanked"]
    cut = activity.with_values(Interval(start=np.array([0.0]), end=np.array([40.0])), whole=False)
    np.testing.assert_allclose([*cut.start, *cut.end], [2.0, 38.5])
    sound = Interval(start=np.array([3.0, 20.0]), end=np.array([19.0, 37.0]))
    assert activity.with_values(sound, whole=False) is sound and activity.with_values(sound, whole=True) is sound
    trials = Interval(start=np.array([0.0, 1.5, 3.0]), end=np.array([1.0, 2.5, 4.0]))
    assert activity.with_values(trials, whole=True).start.tolist() == [1.5, 3.0]
    windows = activity.standardized(sound, most_bins=100)
    assert [x.shape for x in windows] == [(20, 5)] * 5  # spread evenly


def test_nothing_but_gaps_is_an_error(tmp_path):
    model, dataset = make(tmp_path, [(800, 1200)])
    with pytest.raises(InputError, match="NaN throughout"):
        sampling_intervals(model, dataset, "valid", windows="continuous")


def test_a_mask_never_hides_the_only_values(tmp_path):
    model, dataset = make(tmp_path, [(21, 40)])  # the window from 1 s on has values in one bin of 20
    window = dataset[DatasetIndex("blanked", 1.0, 2.0)]
    for seed in range(30):
        tokenizer = MaskedTokenizer(model, SCHEMES, seed=seed)
        assert tokenizer(window)["model_inputs"]["input_mask"].obj.any()
        np.testing.assert_array_equal(tokenizer.draw(window).keep, tokenizer.draw(window).keep)


def test_a_loader_can_be_sent_to_another_process(tmp_path):
    """As spawned and forked-by-a-server workers get it: they open their own files."""
    model, dataset = make(tmp_path, [])
    _, valid = masked_loaders(settings("continuous"), dataset, model)
    loader = valid["neuron"]
    index = next(iter(loader.sampler))
    here = loader.dataset[index]["model_inputs"]["input_values"].obj
    there = pickle.loads(pickle.dumps(loader.dataset))[index]["model_inputs"]["input_values"].obj
    assert torch.equal(here, there)
    spawned = DataLoader(loader.dataset, 4, False, loader.sampler, None, 1, collate, multiprocessing_context="spawn")
    assert torch.equal(next(iter(spawned))["model_inputs"]["input_values"][0], here)


def test_a_recording_that_was_binned_anew_is_refused_with_both_widths(tmp_path):
    model, _ = make(tmp_path, [])
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "wider").mkdir()
    with h5py.File(shutil.copy(tmp_path / "blanked.h5", tmp_path / "wider"), "r+") as file:
        values = file["mua/value"][::2]
        del file["mua/value"]
        file["mua/value"] = values
        file["mua"].attrs["sampling_rate"] = 10.0
    wider, loaded = BinnedRecordings(root=tmp_path / "wider"), NeuroBridgeModel.load_pretrained(tmp_path / "model")
    for read in (
        lambda: loaded.tokenize(wider[DatasetIndex("blanked", 0.0, 1.0)]),
        lambda: sampling_intervals(loaded, wider, "train", windows="continuous"),
    ):
        with pytest.raises(InputError, match="bins of 0.05 s in recording blanked[\\s\\S]*bins of 0.1 s"):
            read()
