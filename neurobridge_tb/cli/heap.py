"""Keep the memory of long trainings on a CPU bounded, where the C library would let it grow."""

import os
import sys

_TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"


def restart_with_bounded_heap() -> None:
    """Start this process anew with glibc's small-chunk caches off, once; elsewhere, do nothing.

    PyTorch allocates aligned memory. Before glibc 2.39, remainders of aligned requests stay in these caches and split
    the heap, which grows by megabytes a training step though hardly more is in use (glibc bug 30723). The caches can
    be switched off at the start of a process only. Whoever sets ``GLIBC_TUNABLES`` has decided otherwise.
    """
    if "GLIBC_TUNABLES" not in os.environ and _has_growing_heap():
        os.environ["GLIBC_TUNABLES"] = _TUNABLES
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (this very command)


def _has_growing_heap() -> bool:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (AttributeError, OSError, ValueError):  # not Linux, or another C library
        return False
    return name == "glibc" and tuple(map(int, version.split("."))) < (2, 39)
