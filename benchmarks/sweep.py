"""Does any number of any job end in a traceback? Each is set to values that do not fit, one at a time. Run with --help.

A setting that is refused at once costs nothing; with the others the job runs, through its first batches to its end:
with all of them, or with a random sample.
"""

import random
import re
import resource
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from fuzz import outcome_of
from small_workspace import JOBS, make_workspace, settings

VALUES = ["-1", "0", "nan", "1e30", "one"]
_READ = ["dataset.root={w}/binned/first", "pretrained={w}/model", "windows=trial"]
_MORE = {
    "decode": [*_READ, "target=hand.velocity"],
    "score": [*_READ, "tasks=[co_smoothing,forward,few_shot]", "held_out=4", "shots=[4]"],
}
_SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
_MEMORY, _SECONDS = 8 << 30, 40


def arguments_of(job: str, workspace: Path, run: Path) -> list[str]:
    """Settings with which a job is done in a second or two."""
    if job in _MORE:
        return [*(text.format(w=workspace) for text in _MORE[job]), f"run_dir={run}", "device=cpu"]
    short = _SHORT if job not in ("embed", "train-decoder") else []
    kept = [a for a in settings(job, workspace, run) if not a.startswith(("trainer.max_epochs", "steps", "ema"))]
    return [*kept, *short, *(["steps=2"] if job in ("finetune", "train-decoder") else [])]


def numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted names of all settings that are numbers, and whether they are lists of numbers."""
    for field in fields(config):
        value, kind = getattr(config, field.name), str(field.type)
        if is_dataclass(value):
            yield from numbers(value, f"{prefix}{field.name}.")
        elif re.search(r"\b(int|float)\b", kind) or field.name in ("devices", "limit_train_batches"):
            yield f"{prefix}{field.name}", "list" in kind


def sweep(job: str, workspace: Path, runs: int, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Each case, in random order: what became of it, and the traceback that it ended in ("" for none).

    Cases are ``refused`` at once or by the job, ``done`` to the end, or end in ``tracebacks``; after so many runs, the
    others are ``not run``.
    """
    from neurobridge_tb.engine.config import compose_config
    from neurobridge_tb.errors import lacks_memory

    module = job.replace("-", "_")
    do = getattr(import_module(f"neurobridge_tb.jobs.{module}"), module)
    run = workspace / "swept"
    usual = arguments_of(job, workspace, run)
    cases = [(*number, value) for number in numbers(compose_config(module, usual)) for value in VALUES]
    for name, is_list, value in rng.sample(cases, len(cases)):
        setting, result = f"{name}=[{value}]" if is_list else f"{name}={value}", "refused"

        def call(setting: str = setting, name: str = name) -> None:
            nonlocal result, runs
            config = compose_config(module, [*(a for a in usual if a.partition("=")[0] != name), setting])
            if not runs:
                result = "not run"
                return
            runs -= 1
            try:
                with within(_SECONDS):
                    do(config)
                result = "done"
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):  # of which the command says so
                    raise

        trace = outcome_of(call) or ""
        yield f"{job} {setting}", "tracebacks" if trace else result, trace
        for path in workspace.glob("swept*"):
            shutil.rmtree(path)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise an error after so many seconds of processor time."""

    def stop(*_: Any) -> None:
        raise RuntimeError(f"it went on for {seconds} s")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@click.command(context_settings={"show_default": True})
@click.option("--job", "jobs", multiple=True, default=[*JOBS, *_MORE])
@click.option("--runs", default=-1, help="Cases of each job that are run, drawn at random; -1: all that can be.")
@click.option("--seed", default=0)
def main(jobs: tuple[str, ...], runs: int, seed: int) -> None:
    """Print each case that is done or ends in a traceback, and how many there were of each kind."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_workspace(workspace)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))  # what asks for more gets an error, and harms nobody
        for job in jobs:
            for case, result, trace in sweep(job, workspace, runs, random.Random(seed)):
                counts[result] += 1
                if trace:
                    print(case, *trace.splitlines()[-7:], sep="\n  ", flush=True)
                elif result == "done":
                    print(f"{case}: done", flush=True)
            print(f"after {job}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
