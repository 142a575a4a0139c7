"""The residual's gain: kept where the residual helps in validation, 0 where it does harm."""

import pytest
import torch
from torch import nn

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.engine.forecast_fits import fit_residual_gain


class _Constant(nn.Module):
    def of_units(self, units, drift):
        return units

    def forward(self, states, units, own, of_units):
        return torch.full((*own.shape[:3],), 2.0)


@pytest.fixture
def model_and_batch(binned_root):
    dataset = BinnedRecordings(root=binned_root)
    torch.manual_seed(0)
    model = NeuroHorizonModel(
        modality="spike_counts", history=0.5, horizon=0.4, bin_size=0.05,
        encoder={"dim": 16, "depth": 1, "dim_head": 8, "dim_population": 8},
    )  # fmt: skip
    model.init_vocabs(dataset)
    model.fit_units(dataset, dataset.get_sampling_intervals("train"))
    window = dataset[DatasetIndex(dataset.recording_ids[0], 1.0, 1.9)]
    return model.eval(), collate([model.tokenize_with_targets(window)])


def test_it_is_chosen_for_each_quarter_of_the_future(model_and_batch):
    model, batch = model_and_batch
    model.head = _Constant()
    start = model.start(**batch["model_inputs"]).detach()
    right = torch.tensor([2.0, 2.0, 0.0, 0.0, 1.0, 1.0, -1.0, -1.0])[:, None]
    batch["target_values"] = (start + right).exp()
    fit_residual_gain(model, [batch])
    assert model.residual_gain.tolist() == [1.0, 0.0, 0.5, 0.0]
    torch.testing.assert_close(model.generate(**batch["model_inputs"]), start + right.clamp_min(0))
    longer = model.generate(**batch["model_inputs"], horizon=0.6)  # like the last bins
    torch.testing.assert_close(longer[:, 8:], start[:, -1:].expand(-1, 4, -1))


def test_the_least_gain_within_a_standard_error_is_taken(model_and_batch):
    model, batch = model_and_batch
    model.head = _Constant()
    start = model.start(**batch["model_inputs"]).detach()
    unsure = [batch | {"target_values": (start + right).exp()} for right in (2.0, -2.0, 0.0, 2.0)]
    fit_residual_gain(model, unsure)
    assert model.residual_gain.tolist() == [0.0] * 4
    model.residual_gain.fill_(1.0)
    fit_residual_gain(model, [batch | {"target_values": (start + right).exp()} for right in (1.9, 2.0, 2.1)])
    assert model.residual_gain.tolist() == [1.0] * 4


def test_models_from_before_load_and_forecast_what_they_did(model_and_batch):
    model, batch = model_and_batch
    for name in ("own", "from_own"):
        weight = getattr(model.head, name).weight
        nn.init.normal_(weight, 0, 0.1)
        weight.data[:, -1] = 0
    before = model.generate(**batch["model_inputs"])
    state = model.state_dict()
    del state["residual_gain"]
    state |= {k: state[k][:, :-1] for k in ("head.own.weight", "head.from_own.weight")}
    model.residual_gain.zero_()
    model.load_state_dict(state)
    torch.testing.assert_close(model.generate(**batch["model_inputs"]), before)
