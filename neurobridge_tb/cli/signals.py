"""A job that is told to stop says so, ends with a code of its own, and can be run again to go on."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from neurobridge_tb.processes import is_first_process

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
_OF_USERS = ("SIGUSR1", "SIGUSR2")  # under Slurm, Lightning takes them for a request to queue the job anew
_PATIENCE_S = 20.0  # for the way out, on which a library may wait, or catch what leads there; Slurm kills after 30
_PATIENCE_IN_LIBRARY_S = 5.0  # in which Python's handlers are not called


@contextmanager
def end_with_a_sentence() -> Iterator[None]:
    """Signals that stop a process end it with exit code 128 + signal and a sentence on what to do.

    Signals that whoever started it has it ignore, as `nohup` does with SIGHUP, are ignored as before.
    The workers and further processes of a job end without the sentence, which stands once. The first process passes
    the signal on to those that Lightning started to share its training.

    A process that was stopped ends where this context does, after the functions of ``atexit``: to take Python down
    costs seconds, and what libraries left may wait for each other for ever.
    """
    owner = os.getpid()
    names = [*_STOPPING, *(() if "SLURM_JOB_ID" in os.environ else _OF_USERS)]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks some
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    stopping, stopped_by = threading.Event(), []

    def announce(number: int) -> None:
        stopped_by.append(number)
        stopping.set()
        if os.getpid() == owner and is_first_process():
            sentence = f"\nStopped by {signal.Signals(number).name}. Run the same command again to go on.\n"
            with suppress(OSError):  # closed, or its reader has gone
                os.write(2, sentence.encode())  # print would wait for what is interrupted, which may be a print
            for process in _sharing():
                with suppress(psutil.Error):  # it has just ended
                    process.send_signal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        if not stopping.is_set():  # the way out is not stopped once more
            announce(number)
            sys.exit(128 + number)

    def end_a_wait(number: int) -> None:
        if number not in numbers:
            return
        if stopping.wait(_PATIENCE_IN_LIBRARY_S):
            time.sleep(_PATIENCE_S)
        else:
            announce(number)
        os._exit(128 + stopped_by[0])

    for number in numbers:
        signal.signal(number, stop)
    if os.name == "posix":
        _tell_at_once(end_a_wait)
    try:
        yield
    finally:
        if stopping.is_set() and os.getpid() == owner:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # closed, or its reader has gone
                    stream.flush()
            os._exit(128 + stopped_by[0])


def _tell_at_once(told: Callable[[int], None]) -> None:
    """Call a function with each signal, in a thread of this process alone: what its workers get is their own.

    Python's own handlers wait for the main thread, which may itself wait in a library for minutes, e.g. for another
    process of a training.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wake(handle: int) -> None:
        if threading.current_thread() is threading.main_thread():  # no other one may
            signal.set_wakeup_fd(handle, warn_on_full_buffer=False)

    wake(writer)
    os.register_at_fork(before=lambda: wake(-1), after_in_parent=lambda: wake(writer))

    def watch() -> None:
        while number := os.read(reader, 1):
            told(number[0])

    threading.Thread(target=watch, daemon=True).start()


def _sharing() -> list[psutil.Process]:
    """Processes that share a training with this one, as Lightning starts them; not the workers of loaders."""
    found = []
    for process in psutil.Process().children():
        try:
            if int(process.environ().get("LOCAL_RANK", 0)):
                found.append(process)
        except (psutil.Error, ValueError):
            continue
    return found
