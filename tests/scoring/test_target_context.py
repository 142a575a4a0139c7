"""What stands beside scores of reconstructions."""

import numpy as np
import pytest
import torch

from neurobridge_tb.scoring.masked.target_context import nearest_training_images, predictability


def test_each_layer_has_its_own_quantiles_and_explained_variance():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(50, 7, generator=rng)
    truth[:, 2] = 1.0  # a dimension without variance is left out
    predicted = truth.clone()
    predicted[:, 4:] = torch.randn(50, 3, generator=rng)
    found = predictability(predicted, truth, {"read": 4, "unread": 3})
    assert found["read"]["dimensions"] == 3 and found["unread"]["dimensions"] == 3
    assert found["read"]["10 %"] == pytest.approx(1) and found["read"]["R2"] == pytest.approx(1)
    own = [np.corrcoef(predicted[:, k], truth[:, k])[0, 1] for k in (4, 5, 6)]
    assert found["unread"]["50 %"] == pytest.approx(np.median(own), abs=1e-6)
    assert found["unread"]["R2"] < 0


def test_a_twin_in_training_is_found():
    rng = np.random.default_rng(0)
    train_images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    seen = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    seen[1] = train_images[4]
    train = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(6, 10))).float())
    truth = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(3, 10))).float())
    truth[1] = train[4]
    summary, cosine = nearest_training_images(truth, train, seen, train_images)
    assert cosine[1] == pytest.approx(1) and (cosine[[0, 2]] < 0.95).all()
    assert summary["cosine"]["largest"] == pytest.approx(1) and summary["PixCorr"]["largest"] == pytest.approx(1)
    assert summary["cosine"]["least"] == pytest.approx(float((truth @ train.T).max(1).values.min()))
