"""Fixed masks of the evaluation tasks."""

import numpy as np
import pytest

from neurobridge_tb.errors import InputError
from neurobridge_tb.masking.tasks import TASKS, task_masks

AREAS = np.array(["V1"] * 30 + ["CA1"] * 21 + ["root"] * 12 + [""] * 4 + ["DG"] * 3)


def test_co_smoothing_hides_the_units_that_the_reference_figures_use():
    (mask,) = task_masks("co_smoothing", 29, np.array(["M1"] * 95))
    assert np.flatnonzero(mask.target[0]).tolist() == sorted(np.random.default_rng(0).permutation(95)[:24])
    assert (mask.keep == ~mask.target).all() and mask.keep.shape == (29, 95)


def test_forward_prediction_asks_for_the_last_fifth():
    (mask,) = task_masks("forward", 10, AREAS)
    assert mask.target.sum(0).tolist() == [2] * len(AREAS)
    assert mask.target[-2:].all() and mask.keep[:-2].all() and not (mask.keep & mask.target).any()


def test_within_an_area_nothing_else_is_seen():
    masks = task_masks("intra_region", 4, AREAS)
    assert [m.scheme for m in masks] == ["intra_region/CA1", "intra_region/V1"]
    for mask in masks:
        area = mask.scheme.split("/")[1]
        assert set(AREAS[mask.keep[0]]) == set(AREAS[mask.target[0]]) == {area}
        assert not (mask.keep & mask.target).any()
        assert mask.keep[0].sum() + mask.target[0].sum() == (AREAS == area).sum()


def test_between_areas_the_whole_area_is_hidden_even_where_few_units_are_targets():
    for mask in task_masks("inter_region", 4, AREAS, max_targets=5):
        area = mask.scheme.split("/")[1]
        assert mask.target[0].sum() == 5 and set(AREAS[mask.target[0]]) == {area}
        assert (mask.keep[0] == (AREAS != area)).all()


@pytest.mark.parametrize("task", TASKS)
def test_units_are_the_same_for_windows_of_every_length(task):
    short, long = task_masks(task, 5, AREAS), task_masks(task, 9, AREAS)
    assert all((a.target.any(0) == b.target.any(0)).all() for a, b in zip(short, long, strict=True))


@pytest.mark.parametrize(
    ("task", "n_bins", "areas"),
    [("co_smoothing", 5, AREAS[:24]), ("forward", 1, AREAS), ("inter_region", 5, np.array([""] * 40)),
     ("inter_region", 5, np.array(["V1"] * 40)), ("memory", 5, AREAS)],
)  # fmt: skip
def test_impossible_tasks_say_what_they_need(task, n_bins, areas):
    with pytest.raises(InputError, match=task):
        task_masks(task, n_bins, areas)
