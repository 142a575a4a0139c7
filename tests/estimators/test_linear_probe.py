"""Linear probes read what is linear, at chance where nothing is, and choose their penalty on the validation set."""

import numpy as np
import pytest
import torch

from neurobridge_tb.estimators.linear_probe import classification_probe, regression_probe


def split(x, y):
    return [(x[a:b], y[a:b]) for a, b in ((0, 300), (300, 400), (400, 600))]


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(600, 12))


def test_regression_probe_reads_velocity_but_not_noise(latents):
    rng = np.random.default_rng(1)
    velocity = latents @ rng.normal(size=(12, 1)) + 0.1 * rng.normal(size=(600, 1))
    probe = regression_probe(*split(latents, np.c_[velocity, rng.normal(size=600)]))
    assert probe.score[0] > 0.98 and abs(probe.score[1]) < 0.1
    assert probe.predicted.shape == (200, 2)


def test_regression_probe_takes_tensors_and_ignores_the_scale_of_latents(latents):
    target = latents[:, :2] ** 3
    here = regression_probe(*split(torch.tensor(latents), torch.tensor(target)))
    there = regression_probe(*split(latents * 1000 - 5, target))
    np.testing.assert_allclose(here.score, there.score, atol=1e-8)


def test_classification_probe(latents):
    labels = np.array(["left", "right", "up"])[np.argmax(latents[:, :3], axis=1)]
    probe = classification_probe(*split(latents, labels))
    assert probe.score[0] > 0.9
    assert set(probe.predicted) <= {"left", "right", "up"}
    shuffled = np.random.default_rng(2).permutation(labels)
    assert classification_probe(*split(latents, shuffled)).score[0] < 0.5
