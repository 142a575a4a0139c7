"""A model is chosen where it is better beyond doubt, and hardly ever where it is not."""

import numpy as np

from neurobridge_tb.estimators.model_choice import least_loss


def losses(rng, n_rows, means):
    return {k: mean + rng.normal(size=n_rows) for k, mean in enumerate(means)}


def test_a_better_model_is_chosen_and_the_simplest_one_where_it_is_best():
    rng = np.random.default_rng(0)
    assert least_loss(losses(rng, 200, [0.0, -1.0, -0.2]), simplest=0) == 1
    assert least_loss(losses(rng, 200, [0.0, 1.0, 0.2]), simplest=0) == 0
    assert least_loss({"only": np.zeros(3)}, simplest="only") == "only"
    assert least_loss({"a": np.ones(1), "b": np.zeros(1)}, simplest="a") == "a"  # one row proves nothing


def test_models_that_are_alike_are_seldom_taken_for_better_however_many_there_are():
    rng = np.random.default_rng(1)
    for n_others in (1, 14):
        taken = [least_loss(losses(rng, 40, np.zeros(1 + n_others)), simplest=0) != 0 for _ in range(1000)]
        assert np.mean(taken) < 0.045  # 0.025 are expected at most


def test_equal_losses_leave_the_simplest():
    same = np.arange(5.0)
    assert least_loss({"a": same, "b": same.copy()}, simplest="b") == "b"
