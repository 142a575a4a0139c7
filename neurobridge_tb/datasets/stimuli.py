"""The images that were shown, loaded as the model's side of the pair expects them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from neurobridge_tb.datasets.image_binding import RASTER_FORMATS, find_images, image_paths
from neurobridge_tb.errors import InputError


class StimulusImages:
    """Image files named by ids like ``aardvark/aardvark_01b.jpg``.

    Args:
        images: Folder that holds ``<images>/<image_id>``, or a binding made by ``neurobridge images``, see
            :mod:`neurobridge_tb.datasets.image_binding`.
        image_ids: The ids that will be loaded; repeated ids count once.

    Raises:
        InputError: No such folder, no image in it, an id or link that leads out of it, or files that are missing
            (named).
    """

    def __init__(self, images: str | Path, image_ids: Sequence[str]):
        self._images, self._fingerprints = images, dict[Path, str]()
        self.ids: list[str] = list(dict.fromkeys(str(i) for i in image_ids))
        self._paths = image_paths(images, self.ids)
        missing = [image_id for image_id in self.ids if image_id not in self._paths]
        if missing or not self.ids:
            find_images(images)  # raises where there is no image at all
            named = f"{len(missing)} of {len(self.ids)} missing: {', '.join(missing[:5])}"
            raise InputError(
                expected=f"an image file for each of {len(self.ids)} image ids in {images}",
                found=(named + (" …" if len(missing) > 5 else "")) if self.ids else "no image ids",
                fix="Name your copy of the stimuli, e.g. THINGS' folder of concepts (aardvark/aardvark_01b.jpg). "
                "Where ids are not paths, make a binding: neurobridge images FOLDER RECORDING --out images.json",
            )

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, image_id: str) -> Path:
        """File of an image.

        Raises:
            InputError: The id is not one of those that were bound.
        """
        if image_id not in self._paths:
            raise InputError(
                expected=f"one of the {len(self.ids)} image ids bound at the start",
                found=repr(image_id),
                fix="Name all image ids when making StimulusImages.",
            )
        return self._paths[image_id]

    def fingerprints(self, ids: Sequence[str] | None = None) -> set[str]:
        """What tells files of different contents apart, whatever they are called.

        Args:
            ids: Image ids. Default: all.
        """
        return {self._fingerprint(str(image_id)) for image_id in (self.ids if ids is None else ids)}

    def without(self, fingerprints: set[str]) -> "StimulusImages":
        """The images whose files have other contents than those, whatever they are called."""
        left = StimulusImages(self._images, [i for i in self.ids if self._fingerprint(i) not in fingerprints])
        left._fingerprints = self._fingerprints
        return left

    def _fingerprint(self, image_id: str) -> str:
        """Of a file that is read once."""
        path = self.path(image_id)
        if path not in self._fingerprints:
            self._fingerprints[path] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return self._fingerprints[path]

    def load(self, ids: Sequence[str], size: int | None = None) -> Tensor:
        """Decode images to RGB.

        Gray, palette, CMYK and 16-bit files are converted, transparency is laid on white, and a camera's rotation
        tag is obeyed.

        Args:
            ids: n image ids.
            size: Height and width in pixels: the largest centred square, resized (bicubic, antialiased). Default: as
                stored, which needs images of one size.

        Returns:
            (n, 3, H, W) uint8.

        Raises:
            InputError: A damaged file, or images of several sizes where ``size`` is not given.
        """
        if not len(ids):
            raise InputError(expected="at least one image id", found="none", fix="Check how the ids were chosen.")
        arrays = [_decode(self.path(str(image_id)), size) for image_id in ids]
        shapes = {array.shape[:2] for array in arrays}
        if len(shapes) > 1:
            raise InputError(
                expected="images of one size",
                found=", ".join(f"{w} x {h}" for h, w in sorted(shapes)[:5]),
                fix="Give a size, to which all are cropped and resized.",
            )
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """An image file, open while it is decoded.

    Raises:
        InputError: It is damaged, or of no raster format that is read.
    """
    try:
        with Image.open(path, formats=RASTER_FORMATS) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            expected=f"a whole image file at {path}",
            found=f"{path.stat().st_size:,} bytes that cannot be decoded ({error})",
            fix="Copy the file again, or convert it to an 8-bit PNG or JPEG.",
        ) from error


def _decode(path: Path, size: int | None) -> np.ndarray:
    with opened_image(path) as image:
        rgb = _to_rgb(ImageOps.exif_transpose(image))
    if size is not None:
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose white is unknown: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, gray
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of {values.min()} to {values.max()}, beyond 16 bits: convert it to 8 or 16 bits")
        values = np.where(values == image.info.get("transparency"), 65535, values)
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
