"""Image encoders, their embeddings on disk, and the losses that bring neural activity to them."""

from .cache import EmbeddingCache as EmbeddingCache
from .encoders import DEFAULT_ENCODER as DEFAULT_ENCODER
from .encoders import ImageEncoder as ImageEncoder
from .encoders import load_image_encoder as load_image_encoder
from .losses import Temperature as Temperature
from .losses import info_nce as info_nce
from .losses import regression_loss as regression_loss
