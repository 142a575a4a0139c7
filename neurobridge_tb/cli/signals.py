"""A job that is told to stop says so, ends with a code of its own, and can be run again to go on."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

import psutil

from neurobridge_tb.processes import is_first_process

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
_OF_USERS = ("SIGUSR1", "SIGUSR2")  # under Slurm, Lightning takes them for a request to queue the job anew
_PATIENCE_S = 60.0  # for the way out: some library may have caught the exception that leads there


def end_with_a_sentence() -> None:
    """From now on, signals that stop a process end it with exit code 128 + signal and a sentence on what to do.

    Signals that whoever started it has it ignore, as `nohup` does with SIGHUP, are ignored as before.
    The workers and further processes of a job end without the sentence, which stands once. The first process passes
    the signal on to those that Lightning started to share its training.
    """
    owner = os.getpid()
    names = [*_STOPPING, *(() if "SLURM_JOB_ID" in os.environ else _OF_USERS)]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks some
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:  # the way out is not stopped once more
            return
        stopping = True
        if os.getpid() == owner and is_first_process():
            sentence = f"\nStopped by {signal.Signals(number).name}. Run the same command again to go on.\n"
            with suppress(OSError):  # closed, or its reader has gone
                os.write(2, sentence.encode())  # print would wait for what is interrupted, which may be a print
            for process in _sharing():
                with suppress(psutil.Error):  # it has just ended
                    process.send_signal(number)
        end = threading.Timer(_PATIENCE_S, os._exit, [128 + number])
        end.daemon = True
        with suppress(RuntimeError):  # the process is ending anyway
            end.start()
        sys.exit(128 + number)

    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


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
