"""A prior of classes: against the posterior summed up on a grid, known and unknown classes, and too few images."""

import numpy as np
import pytest

from neurobridge_tb.estimators.class_prior import ClassPrior

LABELS = np.array(["cat", "dog", "fox"]).repeat(40)
CENTRES = np.array([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.5]])


def codes(rng):
    return CENTRES.repeat(40, 0) + rng.normal(size=(120, 2)) * [0.4, 0.6]


def test_it_is_the_posterior_mean_of_the_mixture():
    """Numerically: prior times likelihood on a fine grid of codes."""
    rng = np.random.default_rng(0)
    prior = ClassPrior.fit(codes(rng), LABELS)
    root = rng.normal(size=(2, 2))
    information = root @ root.T + 0.5 * np.eye(2)
    plain = rng.normal(size=(5, 2))
    updated, _ = prior.update(plain, information)
    axis = np.linspace(-7, 7, 281)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

    def density(mean, covariance):
        away = grid - mean
        quadratic = ((away @ np.linalg.inv(covariance)) * away).sum(1)
        return np.exp(-quadratic / 2) / np.sqrt(np.linalg.det(covariance))

    mixture = 0.5 * density(0, np.eye(2)) + sum(density(mean, prior.within) for mean in prior.means) / 6
    evidence = plain @ (np.eye(2) + information)
    for row, expected_evidence in enumerate(evidence):
        likelihood = np.exp(grid @ expected_evidence - ((grid @ information) * grid).sum(1) / 2)
        weight = mixture * likelihood
        np.testing.assert_allclose(updated[row], weight @ grid / weight.sum(), rtol=1e-4, atol=1e-5)


def test_classes_that_are_known_are_read_better_and_strangers_hardly_worse():
    rng = np.random.default_rng(0)
    prior = ClassPrior.fit(codes(rng), LABELS)
    noise = 0.8

    def errors(true):
        plain = (true + noise * rng.normal(size=true.shape)) / (1 + noise**2)
        updated, information = prior.update(plain, np.eye(2) / noise**2)
        assert np.linalg.eigvalsh(information).min() >= 0
        return ((plain - true) ** 2).mean(), ((updated - true) ** 2).mean()

    before, after = errors(CENTRES.repeat(2000, 0) + rng.normal(size=(6000, 2)) * [0.4, 0.6])
    assert after < 0.9 * before
    before, after = errors(rng.normal(size=(6000, 2)))
    assert after < 1.1 * before


def test_one_class_of_everything_changes_little():
    values = np.random.default_rng(0).normal(size=(4000, 3))
    prior = ClassPrior.fit(values, np.full(4000, ""))
    plain = np.random.default_rng(1).normal(size=(20, 3))
    updated, information = prior.update(plain, 2 * np.eye(3))
    np.testing.assert_allclose(updated, plain, atol=0.1)
    np.testing.assert_allclose(information, 2 * np.eye(3), atol=0.15)


@pytest.mark.parametrize("labels", [np.arange(120).astype(str), np.arange(119).astype(str).tolist() + ["0"]])
def test_without_several_images_a_class_there_is_no_prior(labels):
    assert ClassPrior.fit(codes(np.random.default_rng(0)), np.array(labels)) is None
