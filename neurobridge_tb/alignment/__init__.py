"""Image encoders, their embeddings on disk, and the losses that bring neural activity to them."""

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import DEFAULT_ENCODER, ImageEncoder, load_image_encoder
from neurobridge_tb.alignment.losses import Temperature, info_nce, regression_loss

__all__ = [
    "DEFAULT_ENCODER",
    "EmbeddingCache",
    "ImageEncoder",
    "Temperature",
    "info_nce",
    "load_image_encoder",
    "regression_loss",
]
