"""Features of several layers as a short code: whitened principal components."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class TargetCodes(nn.Module):
    """The leading principal components of layers side by side, each layer with a total variance of one.

    Codes have mean 0 and deviation 1 on the images that they were fitted to.

    Args:
        layers: Width of each layer, in order; D in all.
        components: Number K of components.
    """

    mean: Tensor
    projection: Tensor
    variance: Tensor

    def __init__(self, layers: Mapping[str, int], components: int):
        super().__init__()
        self.layers = dict(layers)
        width = sum(self.layers.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.zeros(width, components))
        self.register_buffer("variance", torch.ones(components))  # of each component, all layers being 1 each

    @classmethod
    def fit(cls, features: Tensor, layers: Mapping[str, int], components: int) -> "TargetCodes":
        """Fit to the features of training images.

        Args:
            features: ``(n, D)``.
            layers: As for the class.
            components: At most so many; fewer where ``features`` have fewer.
        """
        components = min(components, len(features) - 1, features.shape[1])
        codes = cls(layers, components)
        codes.mean.copy_(features.mean(0))
        centred = features - codes.mean
        scale = torch.cat(
            [part.square().sum(1).mean().sqrt().clamp_min(1e-12).expand(part.shape[1])
             for part in centred.split(list(codes.layers.values()), 1)]
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _, singular, axes = torch.svd_lowrank(centred / scale, min(components + 32, *features.shape), niter=4)
        variance = (singular[:components] ** 2 / len(features)).clamp_min(1e-12)
        codes.variance.copy_(variance)
        codes.projection.copy_(axes[:, :components] / variance.sqrt() / scale[:, None])
        return codes

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(n, D)`` to codes ``(n, K)``."""
        return (features - self.mean) @ self.projection
