"""The modality registry: ours stand in it, users can add theirs, and no name is taken twice."""

import pytest
import torch

from neurobridge_tb import MODALITY_REGISTRY, DataType, get_modality_by_id, register_modality
from neurobridge_tb.errors import InputError
from neurobridge_tb.registry_ext import CrossEntropyLoss, InfoNCELoss, MSELoss, PoissonNLLLoss

OURS = {
    "mua": 1,
    "spike_counts": 1,
    "image_embedding": 768,
    "image_id": 22248,
    "natural_scenes": 119,
    "running_speed": 1,
    "wheel_velocity": 1,
    "hand_velocity_2d": 2,
}


@pytest.mark.parametrize(("name", "dim"), OURS.items())
def test_ours_are_registered_and_found_by_id(name, dim):
    spec = MODALITY_REGISTRY[name]
    assert spec.dim == dim
    assert get_modality_by_id(spec.id) == name
    assert "." in spec.timestamp_key and "." in spec.value_key


def test_ids_are_unique():
    ids = [spec.id for spec in MODALITY_REGISTRY.values()]
    assert len(set(ids)) == len(ids)


def test_a_users_own_modality_and_the_error_for_a_taken_name():
    settings = dict(
        dim=3,
        type=DataType.CONTINUOUS,
        timestamp_key="lick.timestamps",
        value_key="lick.force",
        loss_fn=MSELoss(),
    )
    new_id = register_modality("lick_force_3d", **settings)
    try:
        assert MODALITY_REGISTRY["lick_force_3d"].id == new_id
        with pytest.raises(ValueError, match=r"registered already.*lick\.force.*stands"):
            register_modality("lick_force_3d", **settings)
    finally:
        del MODALITY_REGISTRY["lick_force_3d"]


def test_unknown_id():
    with pytest.raises(KeyError, match="No modality"):
        get_modality_by_id(10_000)


def test_losses_equal_their_definitions():
    torch.manual_seed(0)
    x, y, w = torch.randn(5, 2), torch.randn(5, 2), torch.rand(5)
    torch.testing.assert_close(MSELoss()(x, y), ((x - y) ** 2).mean())
    torch.testing.assert_close(MSELoss()(x, y, w), (w * ((x - y) ** 2).mean(1)).sum() / w.sum())
    counts = torch.tensor([[0.0, 2.0], [1.0, 3.0]])
    log_rates = torch.tensor([[0.1, 0.5], [-1.0, 1.0]])
    torch.testing.assert_close(PoissonNLLLoss()(log_rates, counts), (log_rates.exp() - counts * log_rates).mean())
    labels = torch.tensor([1, 0, 1, 1, 0])
    torch.testing.assert_close(CrossEntropyLoss()(x, labels), -x.log_softmax(1)[torch.arange(5), labels].mean())
    a = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T / 0.07
    expected = -(a.log_softmax(1).diagonal() + a.log_softmax(0).diagonal()).mean() / 2
    torch.testing.assert_close(InfoNCELoss()(x, y), expected)


def test_info_nce_of_one_pair_is_refused():
    with pytest.raises(InputError, match="batch of two"):
        InfoNCELoss()(torch.randn(1, 2), torch.randn(1, 2))
