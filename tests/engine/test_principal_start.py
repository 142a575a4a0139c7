"""Population rows that start from principal components: what the latents then see, and what stays as it was."""

import numpy as np
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.engine.principal_start import start_from_principal_components
from neurobridge_tb.errors import InputError

SIZES = dict(sequence_length=1.0, latent_step=0.05, num_latents_per_step=1, dim=16, depth=1, dim_head=16)


def make_model(dataset, **overrides):
    torch.manual_seed(0)
    model = NeuroBridgeModel(**{"modality": "spike_counts", "dim_population": 8} | SIZES | overrides)
    model.init_vocabs(dataset)
    if not model.reads_events:
        model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model


def start(model, dataset, components=4, known=()):
    train = dataset.get_sampling_intervals("train")
    start_from_principal_components(model, dataset, train, components=components, known=set(known))
    return model.population.value_rows.weight.detach().numpy().copy()


@pytest.mark.parametrize("recording_ids", [["session0"], ["session0", "session1"]])
def test_rows_give_the_scores_of_the_first_components(binned_root, recording_ids):
    dataset = BinnedRecordings(root=binned_root, recording_ids=recording_ids)
    model = make_model(dataset)
    rows = start(model, dataset)
    for recording_id in recording_ids:
        recording = dataset.get_recording(recording_id)
        index = model.unit_emb.tokenizer(recording.units.id.astype(str).tolist())
        counts = recording.spike_counts.value[:800].astype(float)  # 40 s of training
        z = (counts - counts.mean(0)) / counts.std(0)
        scores, expected = z @ rows[index], np.linalg.svd(z, full_matrices=False)
        assert not scores[:, 4:].any()
        for k in range(4):
            assert abs(np.corrcoef(scores[:, k], expected[0][:, k])[0, 1]) > 0.999
            assert rows[index, k].sum() > 0
        powers = (scores[:, :4] ** 2).mean(0)
        np.testing.assert_allclose(powers / powers[0], (expected[1][:4] / expected[1][0]) ** 2, rtol=1e-3)


def test_known_units_and_all_other_parameters_stay(binned_root):
    dataset = BinnedRecordings(root=binned_root)
    model = make_model(dataset)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    known = [unit for unit in model.unit_emb.vocab if unit.startswith("s0/")]
    start(model, dataset, known=known)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"population.value_rows.weight"}
    index, rows = model.unit_emb.tokenizer(known), model.population.value_rows.weight
    torch.testing.assert_close(rows[index], before["population.value_rows.weight"][index], rtol=0, atol=0)


def test_more_components_than_units_leave_columns_at_zero(binned_root):
    dataset = BinnedRecordings(root=binned_root, recording_ids=["session1"])  # 11 units
    model = make_model(dataset, dim_population=32)
    rows = start(model, dataset, components=20)[model.unit_emb.tokenizer(dataset.get_unit_ids())]
    assert rows[:, :11].any(0).all() and not rows[:, 11:].any()


@pytest.mark.parametrize("overrides", [{"modality": "spikes"}, {"standardize_inputs": False}, {"dim_population": 2}])
def test_a_model_that_cannot_is_refused(binned_root, overrides):
    dataset = BinnedRecordings(root=binned_root, recording_ids=["session0"])
    with pytest.raises(InputError, match="principal_start"):
        start(make_model(dataset, **overrides), dataset)
