"""What a forecast reads of the bins before: each unit's own recent activity."""

import torch

from neurobridge_tb.nn.forecasting.feedback import OwnHistory


def test_own_history_is_the_log_ratio_of_counts_to_what_the_mean_expects():
    torch.manual_seed(0)
    counts, mean = torch.poisson(torch.full((2, 6, 3), 1.5)), torch.rand(1, 1, 3) + 0.5
    present = torch.rand(2, 6, 3) > 0.3
    history = OwnHistory((0.1, 0.4), bin_size=0.05)
    all_at_once = history.start(counts, present, mean)
    for b, n, (c, constant) in ((0, 0, (0, 0.1)), (1, 2, (1, 0.4))):
        weight = torch.exp(-0.05 * torch.arange(5, -1, -1) / constant) * present[b, :, n]
        expected = ((1 + (weight * counts[b, :, n]).sum()) / (1 + weight.sum() * mean[0, 0, n])).log()
        torch.testing.assert_close(history.read(all_at_once)[b, n, c], expected)
    together = ((1 + all_at_once[0].sum(1)) / (1 + all_at_once[1].sum(1))).log()  # of the population
    torch.testing.assert_close(history.read(all_at_once)[..., 2:], together[:, None].expand(-1, 3, -1))
    state = history.start(counts[:, :2], present[:, :2], mean)
    for t in range(2, 6):
        state = history.step(state, counts[:, t], present[:, t], mean[:, 0])
    torch.testing.assert_close(history.read(state), history.read(all_at_once))


def test_a_unit_that_fires_at_its_mean_rate_or_is_absent_has_no_history():
    history = OwnHistory((0.2,), bin_size=0.1)
    mean = torch.tensor([[[0.1, 20.0]]])
    as_ever = history.read(history.start(mean.expand(1, 5, 2), torch.ones(1, 5, 2, dtype=torch.bool), mean))
    absent = history.read(history.start(torch.ones(1, 5, 2), torch.zeros(1, 5, 2, dtype=torch.bool), mean))
    torch.testing.assert_close(as_ever, torch.zeros(1, 2, 2))
    torch.testing.assert_close(absent, torch.zeros(1, 2, 2))
