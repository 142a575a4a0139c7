"""How far a job is: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Show = Callable[[str, float, float], None]
LINE_SECONDS = 30.0  # between lines


def tracked(items: Iterable[T], what: str) -> Iterator[T]:
    """Go through ``items`` and show how far that is.

    Args:
        items: What is worked on.
        what: Names the work, e.g. ``"Embedding images"``.
    """
    total = len(items) if isinstance(items, Sized) else 0
    with progress_bars() as show:
        for done, item in enumerate(items, start=1):
            yield item
            show(what, done, total or done)


def say(text: str) -> None:
    """Print what begins now."""
    print(f"{text} …", flush=True)


@contextmanager
def progress_bars() -> Iterator[Show]:
    """Progress of one stage after the other; yields ``show(stage, done, total)``.

    After a colon, a stage says how it is doing. Where there is no terminal, a line is printed every half minute.
    """
    if not sys.stdout.isatty():
        yield _lines()
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns) as bar:
        tasks = {}

        def show(stage: str, done: float, total: float) -> None:
            name = stage.partition(":")[0]
            if name not in tasks:
                tasks[name] = bar.add_task(stage, total=total)
            bar.update(tasks[name], completed=done, total=total, description=stage)

        yield show


def duration(seconds: float) -> str:
    """A length of time in words, e.g. ``"3 min"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _lines() -> Show:
    began: dict[str, tuple[float, float]] = {}
    last = time.monotonic()

    def show(stage: str, done: float, total: float) -> None:
        nonlocal last
        now, name = time.monotonic(), stage.partition(":")[0]
        begin, done_before = began.setdefault(name, (now, done))
        if now - last > LINE_SECONDS and done:
            line = f"{stage}, {done / total:.0%}"
            if done > done_before:  # a resumed stage does not begin at 0
                line += f", {duration((now - begin) / (done - done_before) * (total - done))} left"
            print(line, flush=True)
            last = now

    return show
