"""Folders of trained decoders: written whole, and only ever in the place of another one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurobridge_tb.files import check_folder, write_folder
from neurobridge_tb.hub import CARD

_FILES = ("config.json", "model.safetensors", "ip_adapter.safetensors", "loss.csv", CARD)


@contextmanager
def write_decoder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder to write a decoder into; on success it takes the place of ``folder``.

    Raises:
        InputError: See :func:`check_decoder_folder`.
    """
    with write_folder(folder, _FILES, is_ours=_is_ours) as part:
        yield part


def check_decoder_folder(folder: str | Path) -> None:
    """Refuse a folder to which no decoder can be saved without losing what is there. Call it before training.

    Raises:
        InputError: The folder holds anything but a decoder of NeuroBridge, or is the working directory.
    """
    check_folder(folder, _FILES, is_ours=_is_ours)


def _is_ours(folder: Path) -> bool:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"].startswith("neurobridge ")
