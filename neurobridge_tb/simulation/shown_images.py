"""Choosing stimuli from a folder of photos, and loading them as the virtual animal sees them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from neurobridge_tb.datasets.image_binding import (
    IMAGE_SUFFIXES,
    ImageBinding,
    find_images,
    is_binding,
)
from neurobridge_tb.datasets.stimuli import StimulusImages, opened_image
from neurobridge_tb.errors import InputError


def class_photos(images: str | Path, binding: str | Path) -> Path:
    """Where the photos of ``images`` have ids with a class, as TVSD's have: ``images`` itself, unless it is flat.

    Where all photos lie in the folder itself, each is a class of its own: ``cat.jpg`` gets the id ``cat/cat.jpg``, and
    ``binding`` is written, to be named in place of the folder in all commands.

    Args:
        images: Folder of photos, or a binding.
        binding: JSON file to write.
    """
    images = Path(images)
    flat = _photos_in(images) if images.is_dir() else []
    if not flat or any(child.is_dir() and child.name[0] != "." and _photos_in(child) for child in images.iterdir()):
        return images
    ImageBinding(images, {f"{Path(name).stem}/{name}": name for name in flat}, [], {}).save(binding)
    return Path(binding)


def choose_photos(
    images: str | Path, *, n_concepts: int, images_per_concept: int, n_test: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Draw a stimulus set from a folder of class folders, or from a binding, whose ids begin with the class.

    At most ``n_concepts`` class folders are used. ``n_test`` classes give one test image each; of the rest,
    up to ``n_concepts * images_per_concept`` become training images, spread evenly over classes.

    Returns:
        Sorted image ids (``class/file``) of training and of test images.

    Raises:
        InputError: No such folder, no images in it, fewer classes than test images, or nothing left to train on.
    """
    classes = _photos_by_class(Path(images))
    budget = n_concepts * images_per_concept
    if len(classes) > n_concepts and any(len(photos) > 1 for photos in classes.values()):
        kept = rng.choice(sorted(classes), n_concepts, replace=False)
        classes = {name: classes[name] for name in sorted(kept.tolist())}
    if n_test > len(classes):
        raise InputError(
            expected=f"photos of at least {n_test} classes, one test image each",
            found=f"{len(classes)} classes in {images}",
            fix="Give a folder with more class folders; in Python, n_test may be lower.",
        )
    tested = set(np.linspace(0, len(classes) - 1, n_test).round().astype(int).tolist())
    test: list[str] = []
    turns: list[tuple[int, str]] = []
    for k, photos in enumerate(classes.values()):
        shuffled = [photos[i] for i in rng.permutation(len(photos))]
        if k in tested:
            test.append(shuffled.pop())
        turns += enumerate(shuffled)
    if not turns:
        raise InputError(
            expected="more photos than test images",
            found=f"{len(test)} photos in {images}",
            fix="Give more photos; in Python, n_test may be lower.",
        )
    turns.sort()
    return sorted(photo for _, photo in turns[:budget]), sorted(test)


def load_images(
    images: str | Path,
    image_ids: Sequence[str],
    size: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Load images as squares: central crop, resized; uint8 RGB, shape (n, size, size, 3).

    Raises:
        InputError: A file is missing or is not an image.
    """
    out = np.empty((len(image_ids), size, size, 3), dtype=np.uint8)
    paths = StimulusImages(images, image_ids)
    for k, image_id in enumerate(image_ids):
        with opened_image(paths.path(image_id)) as image:
            out[k] = np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS))
        if progress is not None:
            progress(k + 1, len(image_ids))
    return out


def _photos_by_class(images: Path) -> dict[str, list[str]]:
    """Sorted image ids by class."""
    classes: dict[str, list[str]] = {}
    if is_binding(images):
        for image_id in find_images(images):
            classes.setdefault(image_id.partition("/")[0], []).append(image_id)
        return classes
    if not images.is_dir():
        raise InputError(
            expected="a folder of images", found=f"no folder at {images}", fix="Check the path of the images."
        )
    for child in sorted(child for child in images.iterdir() if child.is_dir() and child.name[0] != "."):
        photos = _photos_in(child)
        if photos:
            classes[child.name] = [f"{child.name}/{photo}" for photo in photos]
    if not classes:
        flat = len(_photos_in(images))
        raise InputError(
            expected=f"class folders with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {images}",
            found=f"{flat} images in no class folder" if flat else "none",
            fix="Give a folder with images, or leave the folder out to have images drawn. "
            "For a flat folder, `neurobridge simulate --images` makes a binding (class_photos).",
        )
    return classes


def _photos_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
