"""ImageAligner: from latents of neural activity to the embedding of the image that was seen."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.models.pretrained import PretrainedModel
from neurobridge_tb.nn.projector import Projector


class ImageAligner(PretrainedModel):
    """A :class:`NeuroBridgeModel` encoder, and a projector into an image encoder's space.

    Both sides are compared after subtracting the mean training embedding (``embedding_mean``): image embeddings share a
    large common part, which would drown the differences that retrieval needs.

    Args:
        encoder: Config of the :class:`NeuroBridgeModel`.
        image_encoder: Name of the image encoder whose space this is, e.g. ``"timm:tf_efficientnet_lite0"``.
        preprocessing_hash: The image encoder's preprocessing, see :mod:`neurobridge_tb.alignment.encoders`.
        dim_embedding: Width E of the image embedding.
        num_queries: Learned read-out queries. Default 8.
        dim_hidden: Hidden width of the projector. Default 1024.
        dropout: Dropout of the projector. Default 0.5.
    """

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(
        self,
        *,
        encoder: dict[str, Any],
        image_encoder: str,
        preprocessing_hash: str,
        dim_embedding: int,
        num_queries: int = 8,
        dim_hidden: int = 1024,
        dropout: float = 0.5,
    ):
        super().__init__()
        arguments = inspect.signature(ImageAligner.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        self.encoder = NeuroBridgeModel(**encoder)
        self.projector = Projector(
            dim=self.encoder.dim,
            num_latents=self.encoder.num_latents,
            num_queries=num_queries,
            dim_hidden=dim_hidden,
            dim_out=dim_embedding,
            dropout=dropout,
        )
        self.register_buffer("embedding_mean", torch.zeros(dim_embedding))
        self.register_buffer("embedding_std", torch.ones(dim_embedding))

    def fit_embedding_statistics(self, embeddings: Tensor) -> None:
        """Take mean and standard deviation of each dimension from the training images' embeddings (n, E)."""
        self.embedding_mean.copy_(embeddings.mean(0))
        self.embedding_std.copy_(embeddings.std(0).clamp_min(1e-6))

    def forward(self, **model_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of a batch of windows.

        Args:
            **model_inputs: As :meth:`NeuroBridgeModel.encode` takes them.

        Returns:
            contrastive (B, E), unit norm, to be compared with :meth:`center`-ed image embeddings by their dot product;
            regression (B, E), an estimate of the image embedding itself.
        """
        contrastive, regression = self.projector(self.encoder.encode(**model_inputs))
        return contrastive, regression * self.embedding_std + self.embedding_mean

    def center(self, embeddings: Tensor) -> Tensor:
        """Image embeddings (n, E) less the training mean, unit norm: what the contrastive output is compared with."""
        return F.normalize(embeddings - self.embedding_mean, dim=-1)
