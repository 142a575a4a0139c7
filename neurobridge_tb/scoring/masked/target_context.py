"""What must be known to read scores of reconstructions: how near training images come, and what of the target is read.

After Shirakawa et al. (arXiv:2405.10078): a test image whose twin was trained on, or a target of which few dimensions
are predicted, explains scores that are no reconstruction.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurobridge_tb.metrics.image_metrics import pixcorr


def predictability(predicted: Tensor, truth: Tensor, layers: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """How well each dimension of the target is predicted over the test images, in quantiles of each layer.

    Args:
        predicted: (n, E) regression outputs.
        truth: (n, E) embeddings of the images that were seen.
        layers: Width of each layer, adding up to E.

    Returns:
        For each layer ``dimensions``, the ``10 %``, ``50 %`` and ``90 %`` quantiles of the Pearson correlation between
        predicted and true values of a dimension, and ``R2``, the share of the layer's variance that is explained.
        Dimensions without variance are left out.
    """
    found = {}
    widths = list(layers.values())
    for name, made, true in zip(layers, predicted.split(widths, 1), truth.split(widths, 1), strict=True):
        made, true = made.double(), true.double()
        varies = (true.std(0) > 1e-6) & (made.std(0) > 1e-6)
        a, b = (x[:, varies] - x[:, varies].mean(0) for x in (made, true))
        correlation = ((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).numpy()
        total = ((true - true.mean(0)) ** 2).sum()
        quantiles = np.quantile(correlation, [0.1, 0.5, 0.9]) if len(correlation) else np.full(3, np.nan)
        found[name] = {
            "dimensions": int(varies.sum()),
            **{f"{q} %": float(v) for q, v in zip((10, 50, 90), quantiles, strict=True)},
            "R2": float(1 - ((true - made) ** 2).sum() / total),
        }
    return found


def nearest_training_images(
    truth: Tensor, train: Tensor, seen: np.ndarray, train_images: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """How near the nearest training image is to each test image, by the target.

    Args:
        truth: (n, E) embeddings of the test images as retrieval compares them, unit norm.
        train: (m, E) those of the training images.
        seen: uint8 (n, H, W, 3) test images.
        train_images: uint8 (m, H, W, 3).

    Returns:
        ``cosine`` and ``PixCorr`` with the nearest training image, each with ``least``, ``median`` and ``largest`` over
        the test images; and the cosines (n,).
    """
    cosine, index = torch.cat([part @ train.T for part in truth.split(64)]).max(1)
    pixels = pixcorr(seen, train_images[index.numpy()])
    scores = {"cosine": cosine.numpy(), "PixCorr": pixels}
    summary = {
        name: {"least": float(v.min()), "median": float(np.median(v)), "largest": float(v.max())}
        for name, v in scores.items()
    }
    return summary, cosine.numpy()
