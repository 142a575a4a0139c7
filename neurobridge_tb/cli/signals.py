"""A job that is told to stop says so, ends with a code of its own, and can be run again to go on."""

import signal
import sys
from types import FrameType

import click

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")


def end_with_a_sentence() -> None:
    """From now on, signals that stop a process end it with exit code 128 + signal and a sentence on what to do."""
    for name in _STOPPING:
        if hasattr(signal, name):  # Windows lacks some
            signal.signal(getattr(signal, name), _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for name in _STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # the way out is not stopped once more
    click.echo(f"\nStopped by {signal.Signals(number).name}. Run the same command again to go on.", err=True)
    sys.exit(128 + number)
