"""The downloader of all pipelines here; ``sync.py`` copies it into each, as upstream runs a pipeline from one file."""

import errno
import hashlib
import os
import re
import time
from contextlib import contextmanager

import requests
from filelock import FileLock, Timeout


class RawFileError(ValueError):
    """A raw file, an option, or a place to write to, that cannot be used."""

    def __init__(self, *, expected, found, fix):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")


# ---- copied from here on ----
RETRY_WAITS_S = (1, 2, 4, 8, 16)
ADVICE = {  # about a sound file that cannot be opened
    errno.EAGAIN: "It is open for writing elsewhere: close it there.",
    errno.EACCES: "You may not read it: check the permissions of the file and of its folder.",
    errno.EMFILE: "Too many files are open: raise the limit with `ulimit -n 4096`.",
    errno.ENOLCK: "The file system gives no locks: set HDF5_USE_FILE_LOCKING=FALSE.",
    errno.EIO: "The disk or the network reported a fault: try again.",
    errno.ESTALE: "The network file system lost it: try again.",
}


def unopened(path, error, *, expected, fix):
    """The error for a file that cannot be opened; ``fix`` is for one that is itself at fault."""
    advice = ADVICE.get(error.errno)
    if "already open for" in str(error):  # HDF5's mark of a writer
        advice = "It is open for writing elsewhere, or its writer was stopped: close it there, or `h5clear -s` a copy."
    state = "cannot be opened" if advice else "is damaged or truncated"
    found = f"{path.stat().st_size:,} bytes of a file that {state} ({error})"
    return RawFileError(expected=expected, found=found, fix=advice or fix)


@contextmanager
def locked(path, report):
    """Only one process at a time makes ``path``. A process that dies frees its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"Waiting for another process that makes {path.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def put_in_place(part, path):
    """Rename a file, once all of it is on the disk: a cut of power leaves the old content or the new one."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def written_aside(path, room=None):
    """A path beside ``path``, whose file takes its place when the body has ended without an error.

    ``room`` is how much it needs, for messages; by default its name.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield part
        put_in_place(part, path)
    except (
        OSError,
        RuntimeError,
    ) as error:  # HDF5 raises the second where it cannot close the file
        raise RawFileError(
            expected=f"room for {room or path.name} in {path.parent}",
            found=f"that writing failed ({error})",
            fix="Free some space, or choose another folder, and run again.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


class Incomplete(Exception):
    """The connection ended, or the server failed, before the answer was whole."""


def patiently(attempt, what, progress=lambda: 0):
    """Call ``attempt`` until it succeeds, with growing waits.

    Cut connections, timeouts and server errors are tried again. The waits start anew
    with each try after which ``progress()`` has grown.
    """
    furthest, waits = progress(), iter(RETRY_WAITS_S)
    while True:
        try:
            return attempt()
        except (requests.RequestException, Incomplete) as error:
            trouble = error
        got = progress()
        if got > furthest:
            furthest, waits = got, iter(RETRY_WAITS_S)
        wait = next(waits, None)
        if wait is None:
            raise RawFileError(
                expected=f"the whole of {what}",
                found=f"{got:,} bytes after {len(RETRY_WAITS_S) + 1} tries without "
                f"progress; last: {trouble}",
                fix="Check the network and run again: the download goes on from where "
                "it stopped. Or copy the files to their place by hand.",
            ) from trouble
        time.sleep(wait)


def check_status(reply, url):
    if reply.status_code >= 500 or reply.status_code in (408, 429):
        raise Incomplete(f"HTTP status {reply.status_code}")
    if reply.status_code not in (200, 206):
        raise RawFileError(
            expected=f"a file at {url}",
            found=f"HTTP status {reply.status_code} ({reply.reason})",
            fix="Check the item's name, or copy the files to their place by hand.",
        )


def download_file(url, path, report, check=lambda path: None):
    """Fetch a file into ``path``, continuing an earlier try that was cut.

    ``<path>.part`` grows, beside ``<path>.part.version``, by which the server names the
    content (ETag, or the date of the last change). A part is continued only where the
    server still has that version; a part without a version is fetched anew, as nothing
    tells whether the rest would belong to it.

    Args:
        url: Address.
        path: Where the whole file goes.
        report: Called with a line of progress.
        check: Called with the whole part file; raises RawFileError where it is not what
            was asked for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        patiently(lambda: fetch(url, part, report), url, lambda: bytes_of(part))
    except OSError as error:
        raise RawFileError(
            expected=f"room for {path.name} in {path.parent}",
            found=f"that writing failed ({error})",
            fix=f"Free some space and run again: the download goes on from {part}.",
        ) from error
    try:
        check(part)
    except RawFileError:
        discard(part)
        raise
    put_in_place(part, path)
    discard(part)


def version_file(part):
    return part.with_name(f"{part.name}.version")


def bytes_of(path):
    return path.stat().st_size if path.exists() else 0


def discard(part):
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def version_of(reply):
    """What the server names the content by; "" where it does not."""
    tag = reply.headers.get("ETag", "")
    weak = tag.startswith("W/")  # equal for contents that differ in their bytes
    return reply.headers.get("Last-Modified", "") if weak or not tag else tag


def fetch(url, part, report):
    """One try: append to ``part`` what it lacks.

    Raises:
        Incomplete, requests.RequestException: Trying again may help.
    """
    record = version_file(part)
    known = record.read_text(encoding="ascii") if record.exists() else ""
    if not known:
        discard(part)
    have = bytes_of(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    with requests.get(url, headers=headers, stream=True, timeout=(15, 60)) as reply:
        if reply.status_code == 416:  # nothing after these bytes: whole, or too long
            whole = reply.headers.get("Content-Range", "").endswith(f"/{have}")
            if whole and version_of(reply) in ("", known):
                return
            discard(part)
            raise Incomplete("the part file did not fit the file on the server")
        check_status(reply, url)
        version = version_of(reply)
        resumed = reply.status_code == 206
        sent = reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if resumed and not (sent and version in ("", known)):
            discard(part)
            raise Incomplete("the server sent other bytes than those asked for")
        have = have if resumed else 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        shown = None
        with open(part, "ab" if resumed else "wb") as file:
            if not resumed:
                record.write_text(version, encoding="ascii")
            for block in reply.iter_content(1 << 16):
                file.write(block)
                have += len(block)
                percent = f"{100 * have // total} %" if total else f"{have >> 20} MB"
                if percent != shown:
                    report(f"DOWNLOADING {part.stem} {percent}")
                    shown = percent
    if total is not None and have != total:
        raise Incomplete(f"got {have:,} of {total:,} bytes")
    check_md5(reply, part)


def check_md5(reply, part):
    """Amazon S3 names a file that was uploaded in one piece by its MD5 sum."""
    tag = reply.headers.get("ETag", "").strip('"')
    if reply.headers.get("Server") != "AmazonS3" or not re.fullmatch(
        "[0-9a-f]{32}", tag
    ):
        return
    if "kms" in reply.headers.get("x-amz-server-side-encryption", ""):
        return  # named otherwise
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != tag:
        discard(part)
        raise Incomplete(f"the bytes have the MD5 sum {found}, the server's {tag}")


# ---- to here ----
