"""Pictures inside a page."""

import io
from base64 import b64encode
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from markupsafe import Markup

_SHOWN_SIZE = 256  # px; larger pictures are shrunk for the page


def picture(image: np.ndarray) -> "Markup":
    """An image ``(H, W, 3)`` uint8 as a ``data:`` address, JPEG without colour subsampling, at most 256 px wide."""
    from markupsafe import Markup
    from PIL import Image

    shown = Image.fromarray(image)
    shown.thumbnail((_SHOWN_SIZE, _SHOWN_SIZE))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=94, subsampling=0)
    return Markup("data:image/jpeg;base64," + b64encode(stream.getvalue()).decode())  # noqa: S704 (base64)
