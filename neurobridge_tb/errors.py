"""Errors that say what was expected, what was found and what to do."""

import importlib
from types import ModuleType


class NeuroBridgeError(Exception):
    """Base of all errors that NeuroBridge raises on purpose; the command prints them without a traceback."""


class InputError(NeuroBridgeError, ValueError):
    """Bad input: a file, folder, checkpoint, array or setting that cannot be used.

    Args:
        expected: What was expected, e.g. ``"variable 'train_MUA' of shape (images, channels)"``.
        found: What was found instead, with its place, e.g. ``"shape (22248,) in /data/x.mat"``.
        fix: What the user can do about it, as a whole sentence.
    """

    def __init__(self, *, expected: str, found: str, fix: str):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")
        self.expected, self.found, self.fix = expected, found, fix


class MissingExtraError(NeuroBridgeError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Module name, e.g. ``"diffusers"``.
        extra: The extra of ``neurobridge-tb`` that brings it, e.g. ``"vision"``.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtraError(
            f"This needs the package '{module.split('.')[0]}', which is not installed.\n"
            f"Install it with: pip install 'neurobridge-tb[{extra}]'"
        ) from error
