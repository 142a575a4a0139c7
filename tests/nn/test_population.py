"""The population term is a sum over the units kept, whichever way it is computed."""

import pytest
import torch

from neurobridge_tb.nn.population import PopulationEmbedding
from neurobridge_tb.nn.unit_rows import batch_rows

N_STEPS, N_BINS, STEP = 3, 6, 0.1


@pytest.fixture
def population():
    torch.manual_seed(0)
    layer = PopulationEmbedding(dim=5, dim_population=7, num_latents_per_step=2, latent_step=STEP)
    for table in (layer.value_rows, layer.presence_rows):
        table.initialize_vocab([f"unit{i}" for i in range(30)])
    return layer.double()


def plain(layer, values, keep, times, units):
    out = torch.zeros(len(values), N_STEPS, 2, 5, dtype=torch.float64)
    for item in range(len(values)):
        for step in range(N_STEPS):
            bins = [
                t for t in range(values.shape[1]) if int(times[item, t] / STEP + 1e-6) == step and keep[item, t].any()
            ]
            vector = torch.zeros(7, dtype=torch.float64)
            for t in bins:
                kept = keep[item, t]
                rows = units[item][kept]
                total = values[item, t][kept] @ layer.value_rows(rows) + layer.presence_rows(rows).sum(0)
                vector += total / kept.sum().sqrt() / len(bins) ** 0.5
            out[item, step] = torch.einsum("p,jpd->jd", vector, layer.to_latents)
    return out.flatten(1, 2)


def grid(n_items=3, n_units=6):
    torch.manual_seed(1)
    times = torch.arange(N_BINS, dtype=torch.float64) * N_STEPS * STEP / N_BINS
    return {
        "values": torch.randn(n_items, N_BINS, n_units, dtype=torch.float64),
        "keep": torch.rand(n_items, N_BINS, n_units) > 0.5,
        "timestamps": times.expand(n_items, -1),
    }, torch.stack([1 + torch.randperm(30)[:n_units] for _ in range(n_items)])


@pytest.mark.parametrize("n_units", [4, 12])  # 31 rows are more, or fewer, than four times as many
@pytest.mark.parametrize("whole_table", [True, False])
def test_grid_is_the_plain_sum(population, n_units, whole_table):
    inputs, units = grid(n_units=n_units)
    rows, index = batch_rows(units, population.value_rows)
    if whole_table:
        rows, index = torch.arange(31), units
    torch.testing.assert_close(rows[index], units)
    actual = population.forward_grid(**inputs, rows=rows, index=index, n_steps=N_STEPS)
    torch.testing.assert_close(actual, plain(population, *inputs.values(), units))


@pytest.mark.parametrize("n_events", [1, 9])
def test_events_are_the_plain_sum(population, n_events):
    torch.manual_seed(2)
    times = torch.rand(2, n_events, dtype=torch.float64) * N_STEPS * STEP
    units, mask = torch.randint(1, 31, (2, n_events)), torch.rand(2, n_events) > 0.2
    actual = population.forward_events(times, mask, torch.arange(31), units, N_STEPS)
    # One event is a grid of one unit and bin.
    for item in range(2):
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        each = [
            plain(population, one, mask[item, i].view(1, 1, 1), times[item, i].view(1, 1), units[item, i].view(1, 1))
            for i in range(n_events)
        ]
        steps = (times[item] / STEP + 1e-6).long()[mask[item]]
        share = torch.bincount(steps, minlength=N_STEPS).clamp_min(1).sqrt().repeat_interleave(2)
        torch.testing.assert_close(actual[item], torch.stack(each).sum(0)[0] / share[:, None])


def test_rows_of_a_batch_are_the_whole_table_or_those_it_needs(population):
    units = torch.tensor([[3, 1], [2, 3]])
    rows, index = batch_rows(units, population.value_rows)
    assert len(rows) == 4 and torch.equal(rows[index], units)
    units = units.repeat(1, 10)
    rows, index = batch_rows(units, population.value_rows)
    assert len(rows) == 31 and torch.equal(rows[index], units)
