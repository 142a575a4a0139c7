"""What several commands share: kinds of paths, and progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
IMAGES = click.Path(path_type=Path)  # a folder, or a binding made by `neurobridge images`


@contextmanager
def progress_bars() -> Iterator[Callable[[str, float, float], None]]:
    """Progress bars, one a stage; yields ``show(stage, done, total)``. After a colon, a stage says how it is doing."""
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
