"""One run a folder: a second one is refused by name."""

import errno
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from neurobridge_tb.errors import InputError
from neurobridge_tb.processes import is_first_process
from neurobridge_tb.progress import say

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_held: dict[Path, FileLock] = {}  # by this process, until it ends


def lock_run(folder: Path) -> None:
    """Hold the lock of a run folder, which is made, until this process ends; further processes of one run need none.

    On a file system without locks it says so, and goes on.

    Raises:
        InputError: Another run holds it; the message names its process.
    """
    if not is_first_process():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / ".run.lock"
    lock = _held.setdefault(path, FileLock(path))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        owner = folder / ".run.lock.owner"
        raise InputError(
            expected=f"no other run in {folder}",
            found=owner.read_text(encoding="utf-8") if owner.exists() else "one that holds its lock",
            fix="Wait for it to end, stop it, or set run_dir=<another folder>.",
        ) from error
    except (OSError, NotImplementedError) as error:
        go_on_unlocked(folder, error)
    (folder / ".run.lock.owner").write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")


def go_on_unlocked(folder: Path, error: OSError | NotImplementedError) -> None:
    """Say that the file system of a folder has no locks.

    Raises:
        OSError: The error says something else.
    """
    if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
        raise error
    say(f"The file system of {folder} has no locks ({error}): do not start a second run there")
