"""Augmentations of responses: by hand, and what they must not touch."""

import pytest
import torch

from neurobridge_tb.data import augment


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    keep = torch.rand(16, 3, 5) < 0.8
    keep[:, 0, 0] = True
    return {"input_values": torch.randn(16, 3, 5), "input_mask": keep, "other": torch.ones(16)}


@pytest.mark.parametrize(
    "change",
    [
        lambda x: augment.hide_units(x, 0.5),
        lambda x: augment.add_noise(x, torch.ones(16, 5), 0.3),
        lambda x: augment.shift_time(x, 2),
        lambda x: augment.average_repeats(x, ["a", "b"] * 8)[0],
    ],
)
def test_inputs_stay_as_they_were_and_no_window_is_hidden(inputs, change):
    before = {name: x.clone() for name, x in inputs.items()}
    for _ in range(20):
        changed = change(inputs)
        assert changed["input_mask"].flatten(1).any(1).all()
        assert all(torch.equal(inputs[name], x) for name, x in before.items())
        assert changed["other"] is inputs["other"]
        assert not torch.equal(
            changed["input_values"] * changed["input_mask"], before["input_values"] * before["input_mask"]
        )


def test_units_are_hidden_whole_and_at_most_the_share_asked_for():
    inputs = {"input_values": torch.zeros(200, 3, 400), "input_mask": torch.ones(200, 3, 400, dtype=torch.bool)}
    keep = augment.hide_units(inputs, 0.4)["input_mask"]
    assert (keep == keep[:, :1]).all()
    hidden = 1 - keep[:, 0].float().mean(1)
    assert hidden.max() < 0.4 + 0.1 and abs(hidden.mean() - 0.2) < 0.03


def test_noise_is_in_each_units_deviations():
    big = {"input_values": torch.zeros(16, 500, 5), "input_mask": torch.ones(16, 500, 5, dtype=torch.bool)}
    deviations = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0]).expand(16, 5)
    noisy = augment.add_noise(big, deviations, 0.1)["input_values"]
    torch.testing.assert_close(noisy.std((0, 1)), 0.1 * deviations[0], rtol=0.05, atol=0)


def test_shifted_windows_hold_the_same_values_elsewhere():
    values = torch.arange(1.0, 6)[None, :, None].expand(64, 5, 2)
    inputs = {"input_values": values, "input_mask": torch.ones(64, 5, 2, dtype=torch.bool)}
    shifted = augment.shift_time(inputs, 2)
    seen = torch.where(shifted["input_mask"], shifted["input_values"], 0.0)[:, :, 0]
    allowed = {(1, 2, 3, 4, 5), (0, 1, 2, 3, 4), (0, 0, 1, 2, 3), (2, 3, 4, 5, 0), (3, 4, 5, 0, 0)}
    assert {tuple(row) for row in seen.int().tolist()} == allowed


def test_repeats_are_averaged_over_what_exists_and_images_are_not_mixed():
    values = torch.tensor([1.0, 3.0, 100.0])[:, None, None].expand(3, 1, 2)
    keep = torch.tensor([[[True, True]], [[True, False]], [[True, True]]])
    seen = set()
    for _ in range(60):
        out, shares = augment.average_repeats({"input_values": values, "input_mask": keep}, ["a", "a", "b"])
        assert shares.sum(1).tolist() == [1.0, 1.0, 1.0] and shares[2].tolist() == [0.0, 0.0, 1.0]
        assert out["input_values"][2].tolist() == [[100.0, 100.0]]
        assert out["input_values"][0, 0, 1] == 1.0  # the other repeat lacks this unit
        seen.add(out["input_values"][0, 0, 0].item())
    assert seen == {1.0, 2.0}
