"""A job that is told to stop says so, ends with a code of its own, and can be run again to go on."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import psutil

from neurobridge_tb.processes import is_first_process

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
_OF_USERS = ("SIGUSR1", "SIGUSR2")  # under Slurm, Lightning takes them for a request to queue the job anew
_PATIENCE_S = 60.0  # for the way out: some library may have caught the exception that leads there
_PATIENCE_IN_LIBRARY_S = 5.0  # in which Python's handlers are not called


def end_with_a_sentence() -> None:
    """From now on, signals that stop a process end it with exit code 128 + signal and a sentence on what to do.

    Signals that whoever started it has it ignore, as `nohup` does with SIGHUP, are ignored as before.
    The workers and further processes of a job end without the sentence, which stands once. The first process passes
    the signal on to those that Lightning started to share its training.
    """
    owner = os.getpid()
    names = [*_STOPPING, *(() if "SLURM_JOB_ID" in os.environ else _OF_USERS)]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks some
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    stopping = threading.Event()

    def announce(number: int) -> None:
        stopping.set()
        if os.getpid() == owner and is_first_process():
            sentence = f"\nStopped by {signal.Signals(number).name}. Run the same command again to go on.\n"
            with suppress(OSError):  # closed, or its reader has gone
                os.write(2, sentence.encode())  # print would wait for what is interrupted, which may be a print
            for process in _sharing():
                with suppress(psutil.Error):  # it has just ended
                    process.send_signal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():  # the way out is not stopped once more
            return
        announce(number)
        end = threading.Timer(_PATIENCE_S, os._exit, [128 + number])
        end.daemon = True
        with suppress(RuntimeError):  # the process is ending anyway
            end.start()
        sys.exit(128 + number)

    def end_a_wait(number: int) -> None:
        if number in numbers and not stopping.wait(_PATIENCE_IN_LIBRARY_S):
            announce(number)
            os._exit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
    if os.name == "posix":
        _tell_at_once(end_a_wait)


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
