"""A job that is told to stop says so, ends with a code of its own, and can be run again to go on."""

import os
import signal
import sys
from types import FrameType

import click

from neurobridge_tb.processes import is_first_process

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
_OF_USERS = ("SIGUSR1", "SIGUSR2")  # under Slurm, Lightning takes them for a request to queue the job anew


def end_with_a_sentence() -> None:
    """From now on, signals that stop a process end it with exit code 128 + signal and a sentence on what to do.

    The workers and further processes of a job end without the sentence, which stands once.
    """
    owner = os.getpid()
    names = [*_STOPPING, *(() if "SLURM_JOB_ID" in os.environ else _OF_USERS)]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks some

    def stop(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)  # the way out is not stopped once more
        if os.getpid() == owner and is_first_process():
            name = signal.Signals(number).name
            click.echo(f"\nStopped by {name}. Run the same command again to go on.", err=True)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
