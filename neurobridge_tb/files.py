"""Files appear whole or not at all, and only what NeuroBridge wrote is ever replaced.

What is written is made aside, synced to the disk, and then renamed in one step: a cut at any moment leaves the old
content or the new one. Parts that a killed process left are swept.
"""

import ctypes
import errno
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError, remedy

_STALE_S = 3600.0  # a part that is older than this, and whose process is gone, is left over
_HOST = socket.gethostname().replace(".", "-")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux, <linux/fs.h>
_OF_FILE_BROWSERS = {".DS_Store", "desktop.ini", "Thumbs.db"}  # which leave them in every folder that is looked into


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` at which to make a file; on success it takes the place of ``path``.

    Args:
        path: Its folder is made where there is none. An existing file is replaced.

    Raises:
        InputError: A folder is at ``path``.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            expected=f"a file, or nothing, at {path}", found="a folder", fix="Name another file, or move the folder."
        )
    with _part(path) as part:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)


@contextmanager
def write_folder(
    path: str | Path, names: Iterable[str], *, is_ours: Callable[[Path], bool], kept: Iterable[str] = ()
) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to write into; on success it takes the place of ``path``, as a whole.

    Args:
        path: See :func:`check_folder`.
        names: Names of the files that the body writes.
        is_ours: See :func:`check_folder`.
        kept: Names of files that stay as they were where the body writes none, e.g. a model card.

    Raises:
        InputError: The folder holds anything else; see :func:`check_folder`.
    """
    path = Path(path)
    check_folder(path, names, is_ours=is_ours)
    with _part(path) as part:
        part.mkdir()
        yield part
        for name in kept:
            if (path / name).is_file() and not (part / name).exists():
                shutil.copy2(path / name, part / name)
        for file in part.rglob("*"):
            _sync(file)
        _sync(part)
        _replace_folder(part, path)
        _sync(path.parent)


def check_folder(path: str | Path, names: Iterable[str], *, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a folder that cannot be replaced without losing what is not ours. Call it before anything heavy.

    Args:
        path: A new folder, an empty one, or one that holds files of these names alone.
        names: Names of the files that will be written there.
        is_ours: Whether a folder with such files is of the kind that will be written; an error says no.

    Raises:
        InputError: It is a file, the working directory or a folder around it, or it holds anything else.
    """
    path = Path(path)
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        found = "a file" if path.exists() else "a link that leads nowhere"
        raise InputError(expected=f"a folder, or nothing, at {path}", found=found, fix="Name another folder.")
    here = Path.cwd().resolve()
    if path.resolve() in (here, *here.parents):
        raise InputError(
            expected="a folder of its own to save to",
            found=f"{path}, which is the working directory or lies around it",
            fix="Name a folder in it, e.g. model.",
        )
    held = {p.name for p in path.iterdir()} - _OF_FILE_BROWSERS if path.is_dir() else set()
    others = sorted(held - set(names)) or (sorted(held) if held and not _says_yes(is_ours, path) else [])
    if others:
        raise InputError(
            expected=f"a new folder, or one that NeuroBridge wrote and that holds nothing else, at {path}",
            found=f"{len(others)} other files and folders: {', '.join(others[:4])}",
            fix=f"Name a folder of its own, e.g. {path / 'model'}; nothing was changed.",
        )


def check_replaceable(path: str | Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to replace a file that somebody else wrote. Call it before anything heavy.

    Args:
        path: The file to write.
        is_ours: Whether an existing file is of the kind that will be written; an error says no.
        what: That kind, e.g. ``"an embedding cache"``.

    Raises:
        InputError: There is a file of another kind, or a folder.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() and _says_yes(is_ours, path)):
        raise InputError(
            expected=f"{what}, or nothing, at {path}",
            found="a folder" if path.is_dir() else "another file",
            fix="Name another file; nothing was changed.",
        )


def visible(folder: str | Path, *patterns: str) -> list[Path]:
    """Files and folders of a folder that fit a pattern, sorted. Hidden ones, as macOS leaves them (``._a.h5``), do not.

    Args:
        folder: May be missing.
        patterns: As of :meth:`pathlib.Path.glob`, e.g. ``"*.h5"`` or ``"alf/*.npy"``.
    """
    found = {path for pattern in patterns for path in Path(folder).glob(pattern)}
    return sorted(path for path in found if not path.name.startswith("."))


def files_below(folder: str | Path) -> Iterator[Path]:
    """Every file below a folder, sorted in each. Links are followed, but not back to a folder that they lie in; what is
    hidden is left out."""
    for here, folders, names in os.walk(folder, followlinks=True):
        place = Path(here)
        parents = list(place.parents)[: len(place.parts) - len(Path(folder).parts)]
        if os.path.realpath(here) in map(os.path.realpath, parents):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (place / name for name in sorted(names) if not name.startswith("."))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON to ``path``, see :func:`write_aside`."""
    with write_aside(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file that :func:`write_json` wrote.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    fix = "The file is damaged, or not of NeuroBridge: delete the folder's run to start over, or restore it."
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        content, fix = f"{type(error).__name__}: {error}", remedy(error, fix)
    if not isinstance(content, dict):
        raise InputError(
            expected=f"a JSON object in {path}",
            found=content if isinstance(content, str) else f"a {type(content).__name__}",
            fix=fix,
        )
    return content


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A name of its own beside ``path``; whatever is there afterwards is removed, with what killed processes left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{path.name}.*.part"):
        if _is_stale(old):
            _remove(old)
    part = path.parent / f".{path.name}.{_HOST}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield part
    finally:
        _remove(part)


def _says_yes(is_ours: Callable[[Path], bool], path: Path) -> bool:
    try:
        return is_ours(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_stale(part: Path) -> bool:
    try:
        old = time.time() - part.stat().st_mtime > _STALE_S
        *_, host, pid, _, _ = part.name.split(".")
        return old and not (host == _HOST and pid.isdigit() and Path(f"/proc/{pid}").exists())
    except (OSError, ValueError):  # another process swept it, or it is named in another way
        return False


def _replace_folder(part: Path, path: Path) -> None:
    """Put the folder ``part`` in the place of ``path``, whose old content is left at ``part``."""
    try:
        os.rename(part, path)  # there is none, or an empty one
    except OSError:
        if not path.is_dir():
            raise
        if not _exchange(part, path):  # elsewhere than on Linux there is a moment without a folder
            old = part.with_suffix(".old.part")
            os.rename(path, old)
            os.rename(part, path)
            _remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step, where the system can (renameat2 of Linux)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def _sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk.

    Raises:
        OSError: The content cannot be stored, of which network file systems and quotas tell no earlier.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except (PermissionError, FileNotFoundError):  # a folder cannot be opened on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() and error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
