"""The linear read-out of responses: against its definition, and its invariances."""

import pytest
import torch

from neurobridge_tb.nn.response_readout import ResponseReadout

STEPS, UNITS, DIM = 2, 5, 3


@pytest.fixture
def readout():
    torch.manual_seed(0)
    readout = ResponseReadout(dim_out=DIM, num_steps=STEPS, latent_step=0.1)
    readout.initialize_vocab([f"u{i}" for i in range(UNITS)])
    torch.nn.init.normal_(readout.unit_rows.weight)
    torch.nn.init.normal_(readout.mean_rows.weight)
    torch.nn.init.normal_(readout.bias)
    return readout


@pytest.fixture
def window():
    torch.manual_seed(1)
    times = torch.tensor([0.0, 0.05, 0.1, 0.15]).expand(7, 4)
    return torch.randn(7, 4, UNITS), torch.rand(7, 4, UNITS) < 0.7, times, torch.arange(1, UNITS + 1).expand(7, UNITS)


def test_it_is_the_sum_over_units_and_steps_of_centred_mean_times_weight(readout, window):
    values, keep, times, units = window
    weight = readout.unit_rows.weight.view(-1, STEPS, DIM)
    expected = readout.bias.expand(7, DIM).clone()
    for b in range(7):
        for step in range(STEPS):
            for n in range(UNITS):
                cells = [values[b, t, n] for t in (2 * step, 2 * step + 1) if keep[b, t, n]]
                if cells:
                    mean = readout.mean_rows.weight[units[b, n], step]
                    expected[b] += (torch.stack(cells).mean() - mean) * weight[units[b, n], step]
    torch.testing.assert_close(readout(*window), expected, rtol=1e-4, atol=1e-5)


def test_order_of_units_and_padding_do_not_matter(readout, window):
    values, keep, times, units = window
    order = torch.tensor([3, 0, 4, 1, 2])
    here = readout(*window)
    torch.testing.assert_close(readout(values[..., order], keep[..., order], times, units[:, order]), here)
    padded = (
        torch.nn.functional.pad(values, (0, 2), value=9.0),
        torch.nn.functional.pad(keep, (0, 2)),
        times,
        torch.nn.functional.pad(units, (0, 2)),
    )
    torch.testing.assert_close(readout(*padded), here)


def test_it_starts_at_zero_and_new_units_too(window):
    readout = ResponseReadout(dim_out=DIM, num_steps=STEPS, latent_step=0.1)
    readout.initialize_vocab([f"u{i}" for i in range(UNITS)])
    assert not readout(*window).any()
    readout.unit_rows.extend_vocab(["new"])
    assert not readout.unit_rows.weight[-1].any()
