"""One model of MUA and counts: each recording is read, predicted and scored as what it holds."""

import numpy as np
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import MaskedTokenizer

BIN = {"mua": 0.1, "counts": 0.05}
TINY = dict(dim=32, depth=1, dim_head=16, num_factors=16, sequence_length=1.0, latent_step=0.25)


def recording(folder, session, kind, n_units, unit_prefix, seed=0):
    rng = np.random.default_rng(seed)
    n_bins = round(20 / BIN[kind])
    values = (
        rng.normal(3, 2, (n_bins, n_units)) if kind == "mua" else rng.poisson(1.5, (n_bins, n_units)).astype(np.uint8)
    )
    data = build_recording(
        brainset_id="test",
        session_id=session,
        subject_id="subject",
        units={"id": [f"{unit_prefix}{i}" for i in range(n_units)]},
        splits={"train": ([0.0], [15.0]), "valid": ([15.0], [20.0])},
        **{kind: (values, BIN[kind])},
    )
    save_recording(data, folder / f"{session}.h5")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    recording(folder, "envelope", "mua", 7, "m")
    recording(folder, "sorted", "counts", 5, "c", seed=1)
    return BinnedRecordings(root=folder)


def make(dataset, modality, **settings):
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality=modality, **(TINY | settings))
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model.eval()


def alone(mixed, modality):
    """A model of one modality with the weights of the mixed one."""
    model = NeuroBridgeModel(modality=modality, **TINY)
    model.load_state_dict(mixed.state_dict())
    return model.eval()


def batch_of(dataset, model, picked=range(5)):
    masked = MaskedTokenizer(model, {"neuron": 1.0, "temporal": 1.0})
    windows = [("envelope", 2.0), ("sorted", 3.0), ("envelope", 7.0), ("sorted", 12.0), ("sorted", 6.0)]
    return collate([masked(dataset[DatasetIndex(n, start, start + 1.0)]) for n, start in (windows[i] for i in picked)])


@torch.no_grad()
def test_a_mixed_batch_is_answered_and_scored_as_the_two_models_alone_would(dataset):
    mixed = make(dataset, ["mua", "spike_counts"])
    batch = batch_of(dataset, mixed)
    losses = mixed.masked_losses(mixed(**batch["model_inputs"]), batch)
    assert batch["model_inputs"]["modality_index"].tolist() == [0, 1, 0, 1, 1]
    expected = {}
    for modality, picked in (("mua", [0, 2]), ("spike_counts", [1, 3, 4])):
        model = alone(mixed, modality)
        part = batch_of(dataset, model, picked)
        assert "modality_index" not in part["model_inputs"]
        output = model(**part["model_inputs"])
        loss = model.masked_loss(output, part)
        expected[modality] = loss, int(part["model_inputs"]["output_mask"].sum())
        of_mixed = mixed(**batch["model_inputs"])[picked][:, : output.shape[1], : output.shape[2]]
        torch.testing.assert_close(of_mixed, output, rtol=1e-4, atol=1e-5)
    for modality, (loss, cells) in expected.items():
        torch.testing.assert_close(losses[modality][0], loss, rtol=1e-4, atol=1e-5)
        assert losses[modality][1] == cells
    total = sum(loss * n for loss, n in expected.values()) / sum(n for _, n in expected.values())
    torch.testing.assert_close(mixed.masked_loss(mixed(**batch["model_inputs"]), batch), total, rtol=1e-4, atol=1e-5)


def test_the_losses_are_poisson_of_counts_and_squared_error_of_standardised_values(dataset):
    mixed = make(dataset, ["mua", "spike_counts"])
    batch = batch_of(dataset, mixed)
    output = torch.randn_like(batch["target_values"])
    losses = mixed.masked_losses(output, batch)
    target_mask = batch["model_inputs"]["output_mask"]
    squared, poisson = [], []
    for i, session in enumerate(batch["session_id"]):
        predicted, target = output[i][target_mask[i]], batch["target_values"][i][target_mask[i]]
        if session == "sorted":
            poisson.append(predicted.exp() - target * predicted)
        else:
            units = batch["model_inputs"]["output_unit_index"][i].expand(target_mask[i].shape)[target_mask[i]]
            mean, std = mixed.unit_stats.weight[units].unbind(-1)
            squared.append((predicted - (target - mean) / std) ** 2)
    torch.testing.assert_close(losses["mua"][0], torch.cat(squared).mean())
    torch.testing.assert_close(losses["spike_counts"][0], torch.cat(poisson).mean())


def test_a_batch_of_one_modality_trains_every_parameter(dataset):
    """So processes of a distributed run may draw different modalities."""
    mixed = make(dataset, ["mua", "spike_counts"]).train()
    for picked in ([0, 2], [1, 3]):
        mixed.zero_grad()
        batch = batch_of(dataset, mixed, picked)
        mixed.masked_loss(mixed(**batch["model_inputs"]), batch).backward()
        assert not [n for n, p in mixed.named_parameters() if p.requires_grad and p.grad is None]


def test_a_mixed_model_is_saved_and_loaded(dataset, tmp_path):
    mixed = make(dataset, ("mua", "spike_counts"))
    loaded = NeuroBridgeModel.load_pretrained(mixed.save_pretrained(tmp_path / "model"))
    assert loaded.modalities == ("mua", "spike_counts") and loaded.config == mixed.config


@pytest.mark.parametrize("modality", [["mua", "spikes"], "lfp", [], ["mua", "mua"]])
def test_modalities_that_cannot_be_read_together_are_refused(modality):
    with pytest.raises(InputError, match="prepare their counts in bins"):
        NeuroBridgeModel(modality=modality, **TINY)


def test_units_of_two_modalities_are_refused(tmp_path):
    recording(tmp_path, "envelope", "mua", 3, "same")
    recording(tmp_path, "sorted", "counts", 3, "same")
    with pytest.raises(InputError, match="unit 'same0' in recordings of mua and, in sorted, of spike_counts"):
        make(BinnedRecordings(root=tmp_path), ["mua", "spike_counts"])


def test_what_a_mixed_model_answers_in_must_be_asked_of_a_window(dataset):
    mixed = make(dataset, ["mua", "spike_counts"])
    with pytest.raises(InputError, match="modality_of"):
        _ = mixed.predicts_log_rates
    assert mixed.modality_of(dataset.get_recording("sorted")) == "spike_counts"


def test_statistics_of_a_unit_in_several_recordings_are_pooled(tmp_path):
    for number in range(2):
        recording(tmp_path, f"day{number}", "mua", 3, "u", seed=number)
    dataset = BinnedRecordings(root=tmp_path)
    model = make(dataset, "mua")
    values = np.concatenate([dataset.get_recording(r).mua.value[:150] for r in dataset.recording_ids])
    mean, std = model.unit_stats(torch.tensor(model.unit_stats.tokenizer(["u0", "u1", "u2"]))).T
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, values.std(0), rtol=1e-5)
