"""Pictures from embeddings, behind one small interface."""

from neurobridge_tb.generation.base import (
    ImageGenerator,
    generator_names,
    load_generator,
    register_generator,
)
from neurobridge_tb.generation.nearest import NearestImage
from neurobridge_tb.generation.ridge_pixels import RidgePixels
from neurobridge_tb.generation.small_diffusion import SmallDiffusion

__all__ = [
    "ImageGenerator",
    "NearestImage",
    "RidgePixels",
    "SmallDiffusion",
    "generator_names",
    "load_generator",
    "register_generator",
]
