"""The nearest training picture: the baseline that every generator must beat."""

import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import check_embeddings


class NearestImage:
    """Return the training pictures whose embeddings have the highest cosine with the given one.

    Args:
        embeddings: Training embeddings ``(n, E)``.
        images: Their pictures ``(n, 3, H, W)``, uint8.
    """

    def __init__(self, embeddings: Tensor, images: Tensor):
        if len(embeddings) != len(images) or not len(images) or images.dtype != torch.uint8:
            raise InputError(
                expected="as many uint8 pictures (n, 3, H, W) as embeddings, at least one",
                found=f"{len(embeddings)} embeddings, {images.dtype} pictures of shape {tuple(images.shape)}",
                fix="Give the embedding of each training picture.",
            )
        self.embeddings, self.images = F.normalize(embeddings.float(), dim=1), images

    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
    ) -> Tensor:
        """The ``num_samples`` nearest pictures, nearest first; seed and init images have no effect.

        Returns:
            uint8 ``(B, S, 3, H, W)``.

        Raises:
            InputError: An embedding of another size, or more samples than training pictures.
        """
        embedding = check_embeddings(embedding, self.embeddings.shape[1])
        if num_samples > len(self.images):
            raise InputError(
                expected=f"at most {len(self.images)} samples, the number of training pictures",
                found=str(num_samples),
                fix="Lower num_samples.",
            )
        cosines = F.normalize(embedding, dim=1) @ self.embeddings.T
        return self.images[cosines.topk(num_samples, dim=1).indices]
