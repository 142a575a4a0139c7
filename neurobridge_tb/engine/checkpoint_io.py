"""Checkpoints that survive whatever happens while they are written, and are checked before they are trusted."""

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from neurobridge_tb.errors import first_line
from neurobridge_tb.files import write_aside

_log = logging.getLogger(__name__)


class SafeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, synced, then renamed; the one before is kept as ``<name>.previous``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        with write_aside(path) as part:
            save_whole(checkpoint, part)
            if path.exists():
                _keep(path)


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose best score goes on where its folder was moved or renamed."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(self.dirpath or ".")

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            state_dict
            | {name: moved(state_dict.get(name, "")) for name in paths}
            | {
                "dirpath": self.dirpath,
                "best_k_models": {moved(path): score for path, score in state_dict.get("best_k_models", {}).items()},
            }
        )


def save_whole(content: Any, path: Path) -> None:
    """``torch.save``, which of a full disk says nothing but that its own positions are wrong.

    Raises:
        OSError: What the system said while the file was written.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _keep(path: Path) -> None:
    """Keep a checkpoint as the one before, without a moment in which it has lost its own name."""
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)  # of a process that was killed
    try:
        os.link(path, link)
    except OSError:  # the file system has no hard links
        os.replace(path, previous(path))
    else:
        os.replace(link, previous(path))
        link.unlink(missing_ok=True)  # it stays where both were one file before


def previous(path: Path) -> Path:
    """Where the checkpoint is kept that stood at ``path`` before."""
    return path.with_name(f"{path.name}.previous")


def latest_readable(path: Path) -> Path | None:
    """The checkpoint at ``path``, or the one before if it is damaged or missing; None where neither can be read.

    A damaged one is named in a warning.
    """
    for candidate in (path, previous(path)):
        if candidate.exists():
            if fault := find_fault(candidate):
                _log.warning("The checkpoint %s cannot be used: %s.", candidate, fault)
            else:
                return candidate
    return None


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None: every record must have the checksum (CRC-32) noted with it, and
    PyTorch must be able to read it."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if not damaged:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # its reader is stricter than zipfile
    except Exception as error:  # of a damaged directory zipfile reads nonsense, and raises whatever comes of it
        return f"it is damaged or cut off ({first_line(error)})"
    return f"its record {damaged} is damaged" if damaged else None
