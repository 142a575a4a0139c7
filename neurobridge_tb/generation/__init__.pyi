"""Pictures from embeddings, behind one small interface."""

from .base import ImageGenerator as ImageGenerator
from .base import generator_names as generator_names
from .base import load_generator as load_generator
from .base import register_generator as register_generator
from .flow import FlowDecoder as FlowDecoder
from .nearest import NearestImage as NearestImage
from .ridge_pixels import RidgePixels as RidgePixels
