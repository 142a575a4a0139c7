"""Retrieval: hand-computed ranks, exact ties, invariances, intervals."""

import numpy as np
import pytest
import torch

from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.retrieval import (
    bootstrap_interval,
    chance,
    cosine_similarity,
    permutation_test,
    retrieval_rows,
    split_half_row,
    topk_hits,
)


def test_cosine_matches_torch_and_ignores_scale():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(9, 7))
    expected = torch.nn.functional.cosine_similarity(torch.tensor(a)[:, None], torch.tensor(b)[None], dim=-1)
    np.testing.assert_allclose(cosine_similarity(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(cosine_similarity(torch.tensor(a) * 3, torch.tensor(b) * 0.1), expected, atol=1e-12)


def test_zero_vector_is_like_nothing():
    assert not cosine_similarity(np.zeros((1, 3)), np.eye(3)).any()


def test_hits_by_hand():
    similarity = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.1, 0.8, 0.7]])  # ranks of the true one: 1, 2, 2
    np.testing.assert_array_equal(topk_hits(similarity, 1), [1, 0, 0])
    np.testing.assert_array_equal(topk_hits(similarity, 2), [1, 1, 1])


def test_ties_are_exact_expectations():
    similarity = np.array([[0.5, 0.5, 0.5, 0.9]] * 4)
    # candidate 0 ties with two others behind one better: top-1 impossible, top-2 one in three, top-3 two in three
    assert [topk_hits(similarity, k)[0] for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("constant", ["queries", "candidates"])
def test_model_that_answers_alike_scores_chance(constant):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 8))
    predicted = np.repeat(rng.normal(size=(1, 8)), 20, axis=0)
    rows = retrieval_rows(predicted, images, model="constant", resamples=10)
    row = rows[0 if constant == "queries" else 1]
    assert row["top1"]["value"] == pytest.approx(1 / 20)
    assert row["top5"]["value"] == pytest.approx(5 / 20)


def test_order_of_images_does_not_matter():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(30, 6))
    predicted = images + rng.normal(size=images.shape)
    order = rng.permutation(30)
    here = retrieval_rows(predicted, images, model="m", resamples=10)
    there = retrieval_rows(predicted[order], images[order], model="m", resamples=10)
    assert [r[k]["value"] for r in here for k in ("top1", "top5")] == pytest.approx(
        [r[k]["value"] for r in there for k in ("top1", "top5")]
    )


def test_directions_differ_and_perfect_is_one():
    images = np.eye(4)
    assert retrieval_rows(images, images, model="m", ks=(1,))[0]["top1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    hub = np.array([[1.0, 0.9], [0.2, 1.0], [1.0, 0.8]])  # to images and back are not the same question
    forward, backward = retrieval_rows(hub, np.array([[1, 0], [0, 1], [1, 1.0]]), model="m", ks=(1,))
    assert (forward["direction"], backward["direction"]) == ("neural to image", "image to neural")
    assert (forward["top1"]["value"], backward["top1"]["value"]) == pytest.approx((2 / 3, 1 / 3))


def test_single_trials_are_scored_repeat_by_repeat():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(12, 5))
    trials = images + rng.normal(size=(4, 12, 5))
    rows = retrieval_rows(trials, images, model="m", resamples=10)
    each = [retrieval_rows(trial, images, model="m", resamples=10) for trial in trials]
    for direction in (0, 1):
        assert rows[direction]["trials"] == "single trial"
        mean = np.mean([row[direction]["top1"]["value"] for row in each])
        assert rows[direction]["top1"]["value"] == pytest.approx(mean)


def test_bootstrap_interval_is_seeded_and_close_to_the_binomial():
    hits = np.r_[np.ones(60), np.zeros(40)]
    low, high = bootstrap_interval(hits, seed=1)
    assert (low, high) == bootstrap_interval(hits, seed=1)
    assert low == pytest.approx(0.6 - 1.96 * np.sqrt(0.24 / 100), abs=0.02)
    assert high == pytest.approx(0.6 + 1.96 * np.sqrt(0.24 / 100), abs=0.02)


def test_split_half_is_one_without_noise_and_near_chance_without_signal():
    rng = np.random.default_rng(4)
    signal = rng.normal(size=(1, 25, 10))
    clean = split_half_row(np.repeat(signal, 6, 0), ks=(1,), splits=3, resamples=10)
    noise = split_half_row(rng.normal(size=(6, 25, 10)), ks=(1, 5), splits=10, resamples=10)
    assert clean["top1"]["value"] == 1.0
    assert noise["top5"]["value"] < 0.4
    with_gap = np.repeat(signal, 6, 0)
    with_gap[0, 0, 0] = with_gap[:, :, 1] = np.nan  # a lost trial and a dead channel
    assert split_half_row(with_gap, ks=(1,), splits=3, resamples=10)["top1"]["value"] == 1.0


def test_chance():
    assert chance(100) == {"top1": 0.01, "top5": 0.05}


@pytest.mark.parametrize(
    ("queries", "candidates", "named"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), r"\(3, 4\) and \(3, 5\)"),
        (np.full((3, 4), np.nan), np.ones((3, 4)), "NaN"),
    ],
)
def test_bad_embeddings_are_refused(queries, candidates, named):
    with pytest.raises(InputError, match=named):
        cosine_similarity(queries, candidates)


def test_bad_matrix_and_k_are_refused():
    with pytest.raises(InputError, match="k=4"):
        topk_hits(np.eye(3), 4)
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        topk_hits(np.ones((2, 3)), 1)
    with pytest.raises(InputError, match="two repeats"):
        split_half_row(np.ones((1, 5, 5)))


def test_permutation_test_by_hand():
    """Perfect retrieval of three images: of their six orders, one is the truth."""
    p = permutation_test(np.eye(3), permutations=6000)
    assert p == pytest.approx(1 / 6, abs=0.02)
    assert permutation_test(np.eye(8), permutations=999) == pytest.approx(0.001, abs=0.002)


def test_permutation_test_of_a_model_that_knows_nothing_is_uniform():
    rng = np.random.default_rng(0)
    p = [permutation_test(rng.normal(size=(4, 15, 15)), 5, permutations=100, seed=i) for i in range(150)]
    assert abs(np.mean(p) - 0.5) < 0.1 and np.mean(np.array(p) < 0.1) < 0.2


def test_rows_hold_p_where_it_is_computed():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 6))
    rows = retrieval_rows(images, images, model="perfect", resamples=10, permutations=99)
    assert [row["p"] for row in rows] == [0.01, 0.01]
    assert "p" not in retrieval_rows(images, images, model="perfect", resamples=10)[0]
