"""Codes of the images that were seen, read from a recording's responses."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb.data.responses import Responses
from neurobridge_tb.estimators.class_prior import ClassPrior
from neurobridge_tb.estimators.encoding_readout import EncodingReadout


def read_codes(train: Responses, codes: Tensor, variance: Tensor, test: Responses) -> tuple[Tensor, Tensor]:
    """Read the codes of each test image from the average of its presentations.

    Responses are averaged over the bins of their window first. How presentations of one test image differ tells what
    averaging removes; which image it is does not enter. Classes of the training images sharpen what was read, where
    there are several images a class.

    Args:
        train: Presentations to fit to.
        codes: ``(n, K)``, those of their images.
        variance: ``(K,)``, see :class:`EncodingReadout`.
        test: Single presentations of the images to read.

    Returns:
        Posterior means ``(images, K)``, images in sorted order, and the information ``(K, K)``.
    """
    averaged = test.averaged()
    repeated = len(test.image_ids) > len(averaged.image_ids)
    readout = EncodingReadout.fit(
        _over_time(train), codes, variance, repeats=(_over_time(test), test.image_ids) if repeated else None
    )
    presentations = len(test.image_ids) / len(averaged.image_ids)
    mean, information = readout.posterior(_over_time(averaged), presentations=presentations)
    classes = ClassPrior.fit(codes, train.concepts)
    if classes is not None:
        mean, information = classes.update(mean, information)
    return torch.from_numpy(mean).float(), torch.from_numpy(information).float()


def _over_time(responses: Responses) -> NDArray[np.float64]:
    """Mean over bins ``(n, N)``; NaN where a unit has no value in any bin."""
    present = ~np.isnan(responses.values)
    total, count = np.nan_to_num(responses.values).sum(1, dtype=np.float64), present.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
