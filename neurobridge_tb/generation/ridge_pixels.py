"""A linear read-out of a low-resolution picture: a baseline, and the start of img2img."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import RidgePath
from neurobridge_tb.generation.base import check_embeddings

PENALTIES = tuple(10.0**k for k in range(0, 8))
_AT_ONCE = 512  # pictures that are float32 in memory


class RidgePixels:
    """``pixels = features @ weight + bias`` at a low resolution, enlarged bicubically.

    Args:
        weight: ``(F, 3 * resolution**2)``; pixels in [0, 1], channels first.
        bias: ``(3 * resolution**2,)``.
        image_size: Side of the pictures that come out.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, image_size: int):
        self.weight, self.bias, self.image_size = weight.float(), bias.float(), image_size
        self.resolution = round((weight.shape[1] / 3) ** 0.5)

    @classmethod
    def fit(
        cls,
        features: Tensor,
        images: Tensor,
        *,
        resolution: int = 16,
        image_size: int | None = None,
        penalties: Sequence[float] = PENALTIES,
    ) -> "RidgePixels":
        """Fit by ridge regression; leave-one-out cross-validation chooses the penalty.

        Args:
            features: ``(n, F)``, e.g. neural activity averaged over repeats, or embeddings.
            images: ``(n, 3, H, W)``, uint8.
            resolution: Side of the fitted picture in pixels.
            image_size: Side of the pictures that come out; default: that of ``images``.
            penalties: Ridge penalties to choose from.

        Raises:
            InputError: Another number of pictures than features, or fewer than two.
        """
        if len(features) != len(images) or len(features) < 2 or features.ndim != 2:
            raise InputError(
                expected="features (n, F) and as many pictures, at least two",
                found=f"features {tuple(features.shape)} and pictures {tuple(images.shape)}",
                fix="Give one row of features for each training picture.",
            )
        features = check_embeddings(features, features.shape[1])
        small = torch.cat([_shrink(some, resolution) for some in images.split(_AT_ONCE)])
        path = RidgePath.fit(features, features[:1], standardize=False)
        weights, bias = path.leave_one_out(small.flatten(1).numpy(), penalties=penalties).on_raw_inputs()
        return cls(torch.from_numpy(weights), torch.from_numpy(bias), image_size=image_size or images.shape[-1])

    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
    ) -> Tensor:
        """Read pictures out of features ``(B, F)``; samples are equal, the seed has no effect.

        Returns:
            uint8 ``(B, S, 3, image_size, image_size)``.
        """
        small = check_embeddings(embedding, len(self.weight)) @ self.weight + self.bias
        size = (self.image_size, self.image_size)
        pictures = small.unflatten(1, (3, self.resolution, self.resolution))
        pictures = F.interpolate(pictures, size=size, mode="bicubic")
        pictures = (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
        return pictures[:, None].expand(-1, num_samples, -1, -1, -1).clone()


def _shrink(images: Tensor, resolution: int) -> Tensor:
    return F.interpolate(images.float() / 255, size=(resolution, resolution), mode="bicubic", antialias=True)
