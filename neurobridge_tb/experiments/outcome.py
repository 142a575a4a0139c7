"""How a job of an experiment ended, in its folder; and running one, at most one at a time and never twice."""

import json
import os
import shlex
import socket
import time
import traceback
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neurobridge_tb import __version__
from neurobridge_tb.engine.run_lock import go_on_unlocked
from neurobridge_tb.errors import InputError, NeuroBridgeError
from neurobridge_tb.experiments.job import Job
from neurobridge_tb.files import write_json
from neurobridge_tb.progress import say

_FILE, _STARTS = "outcome.json", "starts.txt"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        done: Whether it was done.
        error: What went wrong otherwise.
        seconds: How long it took, of the last start.
        version: Of NeuroBridge.
        settings: Those of the job.
    """

    done: bool
    error: str
    seconds: float
    version: str
    settings: dict[str, Any]


def outcome_of(folder: Path) -> Outcome | None:
    """How the job of a folder ended; None if it did not start, or was cut.

    Raises:
        InputError: What stands there is of another version.
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    try:
        return Outcome(**json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise InputError(
            expected=f"{_FILE} of NeuroBridge {__version__} in {folder}",
            found=f"another ({error})",
            fix="Move the folder away: the job is then run again.",
        ) from error


def forget_outcome(folder: Path) -> None:
    """Let the job of a folder count as cut, so that it is run again."""
    (folder / _FILE).unlink(missing_ok=True)


def starts_of(folder: Path) -> int:
    """How often the job of a folder was started."""
    file = folder / _STARTS
    return len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0


def run_job(job: Job, jobs: Path, threads: int | None = None) -> None:
    """Run a job in its folder, unless it is done; an error is written down there, not raised.

    Another process that runs it already is waited for.

    Args:
        job: Those that it needs are done.
        jobs: Folder of all jobs.
        threads: Of PyTorch. Default: as many as it takes itself.
    """
    folder = jobs / job.key
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        ended = outcome_of(folder)
        if ended is not None and ended.done:
            return
        with (folder / _STARTS).open("a", encoding="utf-8") as starts:
            starts.write(f"{datetime.now(UTC).isoformat()} process {os.getpid()} on {socket.gethostname()}\n")
        forget_outcome(folder)
        began, error = time.monotonic(), ""
        with (folder / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                _call(job, jobs, threads)
            except NeuroBridgeError as refused:
                error = str(refused)
                print(f"Error: {error}")
            except Exception as failed:
                error = f"{type(failed).__name__}: {failed}"
                traceback.print_exc()
        ended = Outcome(not error, error, time.monotonic() - began, __version__, job.settings)
        write_json(folder / _FILE, asdict(ended))


def _alone(folder: Path) -> AbstractContextManager:
    """Hold the folder of a job; another process that does is waited for."""
    lock = FileLock(folder / ".job.lock")
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        say(f"Another process runs {folder.name}: waiting for it")
        return lock.acquire()
    except (OSError, NotImplementedError) as error:
        go_on_unlocked(folder, error)
        return nullcontext()


def _call(job: Job, jobs: Path, threads: int | None) -> None:
    import torch

    from neurobridge_tb.configs.catalog import JOBS
    from neurobridge_tb.engine.config import settle

    if threads:
        torch.set_num_threads(threads)
    settings = job.settings_in(jobs)
    config: Any = settle(JOBS[job.name], None, settings)
    config.command = shlex.join(["neurobridge", job.name.replace("_", "-"), *map("=".join, _texts(settings))])
    getattr(import_module(f"neurobridge_tb.jobs.{job.name}"), job.name)(config)


def _texts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values as they are typed."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    return [(name, text(value)) for name, value in settings.items()]
