"""Codes of the images that were seen, read from a recording's responses."""

import torch
from torch import Tensor

from neurobridge_tb.arrays import mean_of_present
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
    means = [mean_of_present(responses.values, axis=1) for responses in (train, test, averaged)]
    readout = EncodingReadout.fit(means[0], codes, variance, repeats=(means[1], test.image_ids) if repeated else None)
    presentations = len(test.image_ids) / len(averaged.image_ids)
    mean, information = readout.posterior(means[2], presentations=presentations)
    classes = ClassPrior.fit(codes, train.concepts)
    if classes is not None:
        mean, information = classes.update(mean, information)
    return torch.from_numpy(mean).float(), torch.from_numpy(information).float()
