"""How like the seen image is the reconstructed one? PixCorr, SSIM and two-way identification.

The definitions are those of the visual decoding literature (Ozcelik and VanRullen 2023; MindEye, Scotti et al. 2023),
so that figures can stand beside published ones: images are resized to 425 px first (bilinear, antialiased).
"""

from collections.abc import Sequence

import numpy as np
import torch

from neurobridge_tb.arrays import Array, Floats, check_same_shape, to_floats, to_numpy
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.feature_networks import FeatureNetwork
from neurobridge_tb.metrics.image_arrays import resize

COMPARED_SIZE = 425  # px


def pixcorr(seen: Array, reconstructed: Array) -> Floats:
    """Pearson correlation over all pixels and colours of each pair, both resized to 425 px.

    Args:
        seen: uint8 ``(n, H, W, 3)``.
        reconstructed: uint8 ``(n, H', W', 3)``, row i belonging to seen row i.

    Returns:
        ``(n,)``; 0 where an image is of one colour value only.
    """
    _check_pairs(seen, reconstructed)

    def pixels(image: np.ndarray) -> torch.Tensor:
        """Standardised pixels of unit length; zero for a plain image, whose resized pixels differ by rounding only."""
        values = resize(image[None], COMPARED_SIZE).flatten().double()
        values -= values.mean()
        length = values.norm()
        return values / length if length > 1e-5 * len(values) ** 0.5 else torch.zeros_like(values)

    pairs = zip(to_numpy(seen), to_numpy(reconstructed), strict=True)
    return np.asarray([float(pixels(true) @ pixels(made)) for true, made in pairs])


def ssim(seen: Array, reconstructed: Array) -> Floats:
    """Structural similarity (Wang et al. 2004) of each pair: grey, 425 px, Gaussian window of sigma 1.5, range 1.

    Args:
        seen: uint8 ``(n, H, W, 3)``.
        reconstructed: uint8 ``(n, H', W', 3)``, row i belonging to seen row i.

    Returns:
        ``(n,)``, 1 for equal images.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    _check_pairs(seen, reconstructed)

    def grey(image: np.ndarray) -> np.ndarray:
        return rgb2gray(resize(image[None], COMPARED_SIZE)[0].permute(1, 2, 0).numpy())

    scores = [
        structural_similarity(
            grey(true),
            grey(made),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for true, made in zip(to_numpy(seen), to_numpy(reconstructed), strict=True)
    ]
    return np.asarray(scores, np.float64)


def two_way_scores(features_true: Array, features_pred: Array) -> Floats:
    """Two-way identification of each reconstruction.

    The share of the *other* true images whose features correlate (Pearson) less with the reconstruction's features than
    the true image's do. A tie is a failure, as in published code; features without variance correlate 0 with anything.

    Args:
        features_true: ``(n, d)`` features of the seen images, n at least 2.
        features_pred: ``(n, d)`` features of the reconstructions, in the same order.

    Returns:
        ``(n,)``, each 0 to 1, chance 0.5.
    """
    true, made = to_floats(features_true), to_floats(features_pred)
    check_same_shape("features_true", true, "features_pred", made)
    if true.ndim != 2 or len(true) < 2:
        raise InputError(
            expected="features (n, d) of at least two images",
            found=f"shape {true.shape}",
            fix="Flatten each image's features, and compare two images or more.",
        )
    correlation = _standard_rows(true) @ _standard_rows(made).T  # [true image, reconstruction]
    below = correlation < np.diagonal(correlation)
    return below.sum(0) / (len(true) - 1)


def correlation_distance(features_true: Array, features_pred: Array) -> float:
    """Mean of 1 - Pearson correlation of each pair's features ``(n, d)``; lower is better."""
    true, made = to_floats(features_true), to_floats(features_pred)
    check_same_shape("features_true", true, "features_pred", made)
    return float(1 - (_standard_rows(true) * _standard_rows(made)).sum(1).mean())


class SeenImages:
    """The images that were seen, with their features, which are extracted once however many backends are compared.

    Args:
        seen: uint8 ``(n, H, W, 3)``.
        networks: From :func:`~neurobridge_tb.metrics.feature_networks.feature_networks`.
    """

    def __init__(self, seen: Array, networks: Sequence[FeatureNetwork]):
        self.seen = to_numpy(seen)
        self._networks = [(network, network.extract and network.extract(self.seen)) for network in networks]

    def compare(self, reconstructed: Array) -> tuple[dict[str, float], dict[str, str]]:
        """One table row: every metric that can be had, and what the others need.

        Args:
            reconstructed: uint8 ``(n, H', W', 3)``, row i belonging to seen row i (one sample an image).

        Returns:
            Metrics by column ("PixCorr", "SSIM", "two-way <features>", "top-1 <features>" by a network's last features:
            the share of reconstructions that are more like their own image than like any other of the n, and
            "distance <features>"), and for each column whose network has no local weights what it needs.
        """
        _check_pairs(self.seen, reconstructed)
        metrics = {
            "PixCorr": float(pixcorr(self.seen, reconstructed).mean()),
            "SSIM": float(ssim(self.seen, reconstructed).mean()),
        }
        unavailable: dict[str, str] = {}
        for network, true in self._networks:
            if network.extract is None or true is None:
                unavailable |= dict.fromkeys(network.columns, network.needs)
                continue
            made = network.extract(to_numpy(reconstructed))
            if network.measure == "distance":
                metrics |= {column: correlation_distance(true[column], made[column]) for column in network.columns}
                continue
            if network.measure == "squared distance":
                metrics |= {c: float(((true[c] - made[c]) ** 2).sum(1).mean()) for c in network.columns}
                continue
            scores = {column: two_way_scores(true[column], made[column]) for column in network.columns}
            metrics |= {column: float(of_each.mean()) for column, of_each in scores.items()}
            last = network.columns[-1]  # among all at once: above every other image
            metrics[last.replace("two-way", "top-1")] = float((scores[last] == 1).mean())
        return metrics, unavailable


def _check_pairs(seen: Array, reconstructed: Array) -> None:
    if len(seen) != len(reconstructed) or len(seen) == 0:
        raise InputError(
            expected="as many reconstructed as seen images, at least one",
            found=f"{len(reconstructed)} reconstructed, {len(seen)} seen",
            fix="Pass one reconstruction for each seen image, in the same order.",
        )


def _standard_rows(rows: Floats) -> Floats:
    """Centred rows of unit length (zero where a row is constant), so that dot products are Pearson correlations."""
    centred = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = norm <= 1e-9 * np.abs(rows).max(1, keepdims=True)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, norm))
