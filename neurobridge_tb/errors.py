"""Errors that say what was expected, what was found and what to do."""

import errno
import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import overload


class NeuroBridgeError(Exception):
    """Base of all errors that NeuroBridge raises on purpose; the command prints them without a traceback."""


def printable(text: str) -> str:
    """Text from a file as it may stand in a terminal: control characters, which could move its cursor, are spelled."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """A sentence with the names nearest to a misspelt one; "" where none is near."""
    near = get_close_matches(name, list(names), n=most)
    return f"Did you mean {' or '.join(near)}?" if near else ""


class InputError(NeuroBridgeError, ValueError):
    """Bad input: a file, folder, checkpoint, array or setting that cannot be used.

    Args:
        expected: What was expected, e.g. ``"variable 'train_MUA' of shape (images, channels)"``.
        found: What was found instead, with its place, e.g. ``"shape (22248,) in /data/x.mat"``.
        fix: What the user can do about it, as a whole sentence.
        text: All of the message, in place of these: of an error in another process, as a loader's worker hands it on
            (below its traceback) or as pickle does.
    """

    @overload
    def __init__(self, /, *, expected: str, found: str, fix: str) -> None: ...
    @overload
    def __init__(self, text: str, /) -> None: ...
    def __init__(self, text: str = "", /, *, expected: str = "", found: str = "", fix: str = ""):
        own = printable(f"Expected {expected}.\nFound {found.removesuffix('.')}.\n{fix}")
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].rstrip() or own)
        self.expected, self.found, self.fix = expected, found, fix


_REMEDIES = {
    errno.EACCES: "You may not read it: check the permissions of the file and of its folder.",
    errno.EAGAIN: "It is open for writing elsewhere, e.g. in a notebook: close it there.",
    errno.EWOULDBLOCK: "It is open for writing elsewhere, e.g. in a notebook: close it there.",
    errno.EMFILE: "Too many files are open: raise the limit with `ulimit -n 4096`, or name fewer recordings.",
    errno.ENFILE: "Too many files are open on this machine: close some, or name fewer recordings.",
    errno.ENOLCK: "The file system gives no locks: set HDF5_USE_FILE_LOCKING=FALSE, or copy the file to a local disk.",
    errno.EIO: "The disk or the network reported a fault: try again, or copy the file to another disk.",
    errno.ESTALE: "The network file system lost it: try again.",
    errno.ENOSPC: "The disk is full: free some space, and run the same command again to go on.",
    errno.EDQUOT: "Your quota is used up: free some space, and run the same command again to go on.",
    errno.EROFS: "It can only be read there: name another folder.",
}


_MARKED = (
    "It is open for writing elsewhere, or the program that wrote it was stopped: close it there, or clear the mark in "
    "a copy with `h5clear -s COPY`."
)


def remedy(error: BaseException, otherwise: str) -> str:
    """What a user can do about a file that could not be opened.

    A sound file may be locked, forbidden, or one too many: only where the file itself is at fault does ``otherwise``
    apply, which may advise to make it again.

    Args:
        error: What was raised.
        otherwise: The advice where the system reports nothing else.
    """
    if "already open for" in str(error):  # HDF5's mark of a writer, of which the system knows nothing
        return _MARKED
    return _REMEDIES.get(getattr(error, "errno", None) or 0, otherwise)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the computer or on a graphics card."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


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
            f"Install it with: pip install 'neurobridge-tb[{extra}]', or in a clone: pip install '.[{extra}]'"
        ) from error
