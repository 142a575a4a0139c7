"""Choosing stimuli from a folder of photos, and loading them as the virtual animal sees them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from neurobridge_tb.datasets.stimuli import IMAGE_SUFFIXES
from neurobridge_tb.errors import InputError


def choose_photos(
    images_dir: str | Path, *, n_concepts: int, images_per_concept: int, n_test: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Draw a stimulus set from a folder of class folders, or from a flat folder (each photo its own class).

    At most ``n_concepts`` class folders are used. ``n_test`` classes give one test image each; of the rest,
    up to ``n_concepts * images_per_concept`` become training images, spread evenly over classes.

    Returns:
        Sorted image ids (paths relative to ``images_dir``, with ``/``) of training and of test images.

    Raises:
        InputError: No such folder, no images in it, fewer classes than test images, or nothing left to train on.
    """
    folder = Path(images_dir)
    classes = _photos_by_class(folder)
    budget = n_concepts * images_per_concept
    if "" in classes:
        classes = {name: [name] for name in classes[""]}
    elif len(classes) > n_concepts:
        kept = rng.choice(sorted(classes), n_concepts, replace=False)
        classes = {name: classes[name] for name in sorted(kept.tolist())}
    if n_test > len(classes):
        raise InputError(
            expected=f"photos of at least {n_test} classes, one test image each",
            found=f"{len(classes)} classes in {folder}",
            fix="Lower n_test, or give a folder with more class folders.",
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
            found=f"{len(test)} photos in {folder}",
            fix="Lower n_test, or give more photos.",
        )
    turns.sort()
    return sorted(photo for _, photo in turns[:budget]), sorted(test)


def load_images(
    images_dir: str | Path,
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
    for k, image_id in enumerate(image_ids):
        path = Path(images_dir) / image_id
        try:
            with Image.open(path) as image:
                out[k] = np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS))
        except OSError as error:
            raise InputError(
                expected="a readable image",
                found=f"{path}: {error}",
                fix="Replace or remove this file.",
            ) from error
        if progress is not None:
            progress(k + 1, len(image_ids))
    return out


def _photos_by_class(folder: Path) -> dict[str, list[str]]:
    """Sorted image ids by class folder; under ``""`` those of a flat folder."""
    if not folder.is_dir():
        raise InputError(
            expected="a folder of images", found=f"no folder at {folder}", fix="Check the path of the images."
        )
    flat, classes = _photos_in(folder), {}
    for child in sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != "."):
        photos = _photos_in(child)
        if photos:
            classes[child.name] = [f"{child.name}/{photo}" for photo in photos]
    if not classes and flat:
        classes[""] = flat
    if not classes:
        raise InputError(
            expected=f"images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {folder} or in its class folders",
            found="none",
            fix="Give a folder with images, or leave the folder out to have images drawn.",
        )
    return classes


def _photos_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
