"""The interface of all picture generators, and how they are found by name."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from neurobridge_tb.alignment.source import describe_source, same_source
from neurobridge_tb.errors import InputError


class ImageGenerator(Protocol):
    """Anything that turns embeddings (or, for a linear read-out, features) into pictures."""

    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
    ) -> Tensor:
        """Draw pictures; what one item gets never depends on its batch mates.

        Args:
            embedding: ``(B, E)``, on any device.
            num_samples: Pictures S an embedding.
            seed: Same seed, same pictures.
            init_images: Low-level guesses ``(B, 3, h, w)``, uint8; backends without a use for them
                leave them aside.

        Returns:
            uint8 ``(B, S, 3, H, W)`` on the CPU.
        """
        ...


_generators: dict[str, str | Callable[..., ImageGenerator]] = {
    "ip_adapter": "neurobridge_tb.generation.ip_adapter:IpAdapter.load",
    "nearest": "neurobridge_tb.generation.nearest:NearestImage",
    "ridge_pixels": "neurobridge_tb.generation.ridge_pixels:RidgePixels",
    "sd_adapter": "neurobridge_tb.generation.sd_adapter:SdAdapter.load",
    "flow": "neurobridge_tb.generation.flow:FlowDecoder.load",
    "stable_unclip": "neurobridge_tb.generation.stable_unclip:StableUnclip",
}


def generator_names() -> list[str]:
    """Names that :func:`load_generator` knows."""
    return sorted(_generators)


def register_generator(name: str, factory: Callable[..., ImageGenerator]) -> None:
    """Add a generator under a name.

    Raises:
        InputError: The name is taken.
    """
    if name in _generators:
        raise InputError(
            expected="a generator name that is not taken",
            found=f"{name!r}, which stands for {_generators[name]}",
            fix="Register it under another name.",
        )
    _generators[name] = factory


def load_generator(name: str, **options: Any) -> ImageGenerator:
    """Make a generator by name.

    Args:
        name: ``"nearest"``, ``"ridge_pixels"``, ``"flow"``, ``"stable_unclip"``, ``"sd_adapter"``,
            ``"ip_adapter"`` or a registered name.
        **options: Go to ``NearestImage(...)``, ``RidgePixels(...)``, ``FlowDecoder.load(...)``,
            ``StableUnclip(...)``, ``SdAdapter.load(...)``, ``IpAdapter.load(...)`` or the registered factory.

    Raises:
        InputError: No generator of that name, or options that it does not have.
    """
    if name not in _generators:
        raise InputError(
            expected=f"one of the generators {', '.join(generator_names())}",
            found=repr(name),
            fix="Choose one of these, or register yours with register_generator().",
        )
    factory: Any = _generators[name]
    if isinstance(factory, str):
        module, _, attributes = factory.partition(":")
        factory = import_module(module)
        for attribute in attributes.split("."):
            factory = getattr(factory, attribute)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise InputError(
            expected=f"options of the generator {name}: {', '.join(inspect.signature(factory).parameters)}",
            found=f"{', '.join(options) or 'none'} ({error})",
            fix=f"Correct the options below `{name}`.",
        ) from error
    return factory(**options)


def check_embeddings(embedding: Tensor, dim: int) -> Tensor:
    """Embeddings in float32 on the CPU, from where batches of them go to a device.

    Args:
        embedding: ``(B, dim)``, on any device.
        dim: What the generator takes.

    Raises:
        InputError: Another shape, no item, or values that are not finite.
    """
    embedding = embedding.float().cpu()
    if embedding.ndim != 2 or embedding.shape[1] != dim or not len(embedding):
        raise InputError(
            expected=f"embeddings of shape (items, {dim}), at least one item",
            found=f"shape {tuple(embedding.shape)}",
            fix="Give the embeddings (or features) that this generator was made for.",
        )
    if not torch.isfinite(embedding).all():
        rows = (~torch.isfinite(embedding).all(1)).nonzero().flatten().tolist()
        raise InputError(
            expected="finite embeddings",
            found=f"NaN or infinity in items {rows[:10]}",
            fix="Leave these items out, or look for missing activity upstream.",
        )
    return embedding


def check_init_images(init_images: Tensor, items: int) -> None:
    """Refuse anything but uint8 ``(items, 3, h, w)``."""
    shape = tuple(init_images.shape)
    if init_images.dtype != torch.uint8 or len(shape) != 4 or shape[:2] != (items, 3):
        raise InputError(
            expected=f"uint8 init images of shape ({items}, 3, height, width), one an item",
            found=f"{init_images.dtype} of shape {shape}",
            fix="Give one 8-bit RGB picture for each embedding.",
        )


def check_source(place: str, stored: tuple[str | None, str | None], used: tuple[str | None, str | None]) -> None:
    """Refuse a model made from another encoder's embeddings.

    Args:
        place: Where the model lies, for the message.
        stored: Encoder name and preprocessing hash of the model; None where it does not say.
        used: Encoder name and preprocessing hash in use; None leaves one unchecked.
    """
    if not same_source(stored, used):
        raise InputError(
            expected=f"embeddings of {describe_source(*stored)}, on which {place} was trained",
            found=f"those of {describe_source(used[0] or stored[0], used[1] or stored[1])}",
            fix="Use that encoder with that image size, or train a generator on yours.",
        )


def check_pictures(values: Tensor) -> Tensor:
    """Decoded pictures as they are, if all values are finite.

    Raises:
        InputError: NaN or infinity, which an overflow of half precision leaves.
    """
    if not torch.isfinite(values).all():
        raise InputError(
            expected="finite pixel values",
            found=f"NaN or infinity in {values.dtype}",
            fix="Draw in float32 or bfloat16: float16 overflows in some autoencoders.",
        )
    return values
