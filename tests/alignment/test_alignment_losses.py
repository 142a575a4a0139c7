"""Contrastive and regression losses against hand-computed values."""

import math

import pytest
import torch

from neurobridge_tb.alignment.losses import Temperature, info_nce, regression_loss
from neurobridge_tb.errors import InputError


def test_two_orthogonal_pairs_by_hand():
    """Cosines are the identity, so each row is -log(e^(1/t) / (e^(1/t) + 1))."""
    neural, image = torch.eye(2) * 3, torch.eye(2) * 0.1
    expected = math.log(1 + math.exp(-1 / 0.5))
    assert info_nce(neural, image, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)


def test_the_two_directions_are_averaged_by_hand():
    neural = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    image = torch.eye(2)  # cosines [[1, 0], [1, 0]]
    rows = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    columns = math.log(2)
    loss = info_nce(neural, image, temperature=1.0).item()
    assert loss == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_presentations_of_one_image_are_positives_of_each_other_by_hand():
    neural = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = info_nce(neural, neural, temperature=1.0, image_ids=["a", "a", "b"]).item()
    a = math.log(2 * math.e + 1) - 1  # the target is half and half on two equal columns
    b = math.log(math.e + 2) - 1
    assert loss == pytest.approx((2 * a + b) / 3, rel=1e-5)


def test_repeats_as_positives_ask_for_no_separation_of_repeats():
    """A perfect match of repeats reaches the bound log m; with repeats as negatives it moves away."""
    pairs = torch.eye(4).repeat_interleave(2, 0).requires_grad_()
    ids = torch.arange(4).repeat_interleave(2)
    loss = info_nce(pairs, pairs.detach(), temperature=0.02, image_ids=ids)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, pairs)
    assert gradient.abs().max() < 1e-6


def test_order_of_the_batch_does_not_matter():
    torch.manual_seed(0)
    neural, image, ids = torch.randn(6, 5), torch.randn(6, 5), torch.tensor([0, 1, 1, 2, 3, 0])
    order = torch.randperm(6)
    one = info_nce(neural, image, temperature=0.1, image_ids=ids)
    two = info_nce(neural[order], image[order], temperature=0.1, image_ids=ids[order])
    torch.testing.assert_close(one, two)


def test_gradients_are_right_and_inputs_stay_as_they_were():
    torch.manual_seed(0)
    neural = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    image = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    ids = torch.tensor([0, 1, 1, 2])
    before = neural.detach().clone(), image.detach().clone()
    assert torch.autograd.gradcheck(lambda n, i: info_nce(n, i, temperature=0.3, image_ids=ids), (neural, image))
    assert torch.autograd.gradcheck(regression_loss, (neural, image))
    assert torch.equal(neural, before[0]) and torch.equal(image, before[1])


def test_a_batch_of_one_is_refused():
    with pytest.raises(InputError, match="batch of two"):
        info_nce(torch.ones(1, 3), torch.ones(1, 3), temperature=0.1)


def test_unlike_shapes_are_refused():
    with pytest.raises(InputError, match="projector"):
        info_nce(torch.ones(4, 3), torch.ones(4, 5), temperature=0.1)
    with pytest.raises(InputError, match="image ids"):
        info_nce(torch.ones(4, 3), torch.ones(4, 3), temperature=0.1, image_ids=["a"])


def test_temperature_starts_where_asked_stays_in_bounds_and_can_come_back():
    module = Temperature(start=0.07, low=0.01, high=0.5)
    assert module().item() == pytest.approx(0.07, rel=1e-5)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.2)
    for direction, bound in ((1, 0.01), (-1, 0.5)):
        for _ in range(100):
            optimizer.zero_grad()
            (direction * module()).backward()
            optimizer.step()
        assert 0.01 - 1e-6 <= module().item() <= 0.5 + 1e-6
        assert module().item() == pytest.approx(bound, rel=1e-5)
    with pytest.raises(InputError, match="bounds"):
        Temperature(start=2.0)


def test_regression_loss_by_hand_keeps_the_scale():
    predicted, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert regression_loss(predicted, target).item() == pytest.approx(2.5 + 1.0)
    half = regression_loss(predicted, 2 * predicted, cosine_weight=7.0).item()
    assert half == pytest.approx(0.5, abs=1e-5)  # direction right, scale wrong: only the MSE
