"""The rate filter: by hand, what it follows, and gradients."""

import torch

from neurobridge_tb.estimators.smoothed_rate import SmoothedRate, Windows
from neurobridge_tb.nn.forecasting.rate_filter import RECENT, RateFilter


def parts():
    torch.manual_seed(0)
    mean = torch.rand(1, 1, 3) + 0.1
    recent = torch.rand(2, len(RECENT), 3) * 40, torch.rand(2, len(RECENT), 3) * 100
    past, present = torch.poisson(torch.full((2, 4, 3), 0.8)), torch.rand(2, 4, 3) > 0.2
    return mean, recent, past, present


def test_it_is_the_posterior_mean_of_a_posterior_mean():
    mean, (spikes, bins), past, present = parts()
    rates = RateFilter(n_past=4, n_future=2, bin_size=0.05)
    drifted = rates.drifted_mean(mean, spikes, bins)
    k, a, s, w = (torch.nn.functional.softplus(p) for p in (rates.prior, rates.recent, rates.strength, rates.past))
    for b, n, t in ((0, 1, 0), (1, 2, 1)):
        now = (k * mean[0, 0, n] + (a * spikes[b, :, n]).sum()) / (k + (a * bins[b, :, n]).sum())
        torch.testing.assert_close(drifted[b, 0, n], now)
        weight = w[t] * present[b, :, n]
        expected = (s[t] * now + (weight * past[b, :, n]).sum()) / (s[t] + weight.sum())
        torch.testing.assert_close(rates(drifted, past, present, 2)[b, t, n], expected.log())


def test_without_a_running_past_or_bins_it_is_the_reference():
    mean, (spikes, bins), past, present = parts()
    rates = RateFilter(n_past=4, n_future=2, bin_size=0.05)
    drifted = rates.drifted_mean(mean, 0 * spikes, 0 * bins)
    torch.testing.assert_close(drifted, mean.expand(2, -1, -1))
    torch.testing.assert_close(rates(drifted, past, 0 * present, 2).exp(), mean.expand(2, 2, 3))


def test_it_follows_a_drift_and_learns_how_fast():
    """Rates wander; the running past tells where they are. The fitted filter beats both the reference and its start."""
    torch.manual_seed(0)
    log_rate = torch.cumsum(0.1 * torch.randn(400, 8), 0)
    counts = torch.poisson(log_rate.exp())
    decay = torch.exp(-1 / torch.tensor(RECENT))  # bins of 1 s
    spikes, bins = torch.zeros(400, len(RECENT), 8), torch.zeros(400, len(RECENT), 8)
    for t in range(1, 400):
        spikes[t] = spikes[t - 1] * decay[:, None] + counts[t - 1]
        bins[t] = bins[t - 1] * decay[:, None] + 1
    mean = counts[:100].mean(0).clamp_min(0.05)[None, None].expand(300, -1, -1)
    none = torch.zeros(300, 1, 8)

    def loss(rates):
        start = rates(rates.drifted_mean(mean, spikes[100:], bins[100:]), none, none, 1)[:, 0]
        return (start.exp() - counts[100:] * start).mean()

    rates = RateFilter(n_past=1, n_future=1, bin_size=1.0)
    before = float(loss(rates).detach())
    optimizer = torch.optim.Adam(rates.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss(rates).backward()
        optimizer.step()
    constant = mean[:, 0].log()
    reference = float((constant.exp() - counts[100:] * constant).mean())
    oracle = float((log_rate[100:].exp() - counts[100:] * log_rate[100:]).mean())
    assert oracle < float(loss(rates).detach()) < before < reference


def test_it_can_be_the_smoothed_rate_drawn_to_the_recent_mean():
    mean, (spikes, bins), past, present = parts()
    rates = RateFilter(n_past=4, n_future=2, bin_size=0.05)
    rates.set_to(constant=2, prior=8.0, decay=4.0, strength=10.0)
    baseline = SmoothedRate(decay=4.0, strength=10.0, constant=2, prior=8.0)
    seen = Windows(past, present, mean[0].expand(2, -1), spikes, bins, past, present)
    expected = torch.from_numpy(baseline.predict(seen)).float()[:, None].expand(-1, 2, -1)
    found = rates(rates.drifted_mean(mean, spikes, bins), past, present, 2).exp()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)  # the other time constants keep a thousandth
