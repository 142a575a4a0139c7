"""Unit dropout hides a share of the units, and never all."""

import torch

from neurobridge_tb.nn.unit_dropout import draw_shown_units


def test_a_share_is_hidden_that_differs_from_window_to_window():
    present = torch.ones(2000, 50, dtype=torch.bool)
    shown = draw_shown_units(present, 0.4, generator=torch.Generator().manual_seed(0))
    shares = 1 - shown.float().mean(1)
    assert abs(shares.mean().item() - 0.2) < 0.01 and shares.std() > 0.1  # uniform from 0 to 0.4
    assert draw_shown_units(present, 0.0).all()


def test_at_least_one_unit_that_there_is_stays():
    present = torch.zeros(500, 6, dtype=torch.bool)
    present[:, 2:4] = True
    shown = draw_shown_units(present, 1.0)
    assert (shown <= present).all() and shown.any(1).all()
    assert not draw_shown_units(torch.zeros(3, 4, dtype=torch.bool), 1.0).any()
