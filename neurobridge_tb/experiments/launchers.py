"""Where jobs run: in this process, in worker processes, on a Ray cluster, or through Slurm."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError, require
from neurobridge_tb.experiments.run import Task

Submit = Callable[..., Task]  # a function and its arguments


@dataclass
class LauncherConfig:
    """How jobs are run.

    Attributes:
        name: One of ``LAUNCHERS``.
        workers: Jobs at a time. Default: as many as there are processors for; with submitit_slurm no limit.
        cpus: Processors, and threads, of a job.
        gpus: GPUs of a job.
        memory_gb: Memory of a job; None: not asked for.
        minutes: Time of a job, for submitit.
        address: Of a Ray cluster, e.g. ``auto``; None: one of its own on this machine.
        slurm: Further parameters of submitit's executor, e.g. ``{"slurm_partition": "gpu"}``.

    Raises:
        InputError: There is no such launcher, or a number is too small.
    """

    name: str = "basic"
    workers: int | None = None
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    minutes: int = 240
    address: str | None = None
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in LAUNCHERS:
            raise InputError(expected=f"launcher={'|'.join(LAUNCHERS)}", found=self.name, fix="Choose one of these.")
        for name, least in (("workers", 1), ("cpus", 1), ("gpus", 0), ("memory_gb", 0), ("minutes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(
                    expected=f"launcher.{name} of {least} or more", found=f"{value}", fix=f"Correct launcher.{name}."
                )

    @property
    def at_once(self) -> int | None:
        """Jobs at a time; None: no limit."""
        if self.name == "basic":
            return 1
        if self.workers is None and (self.name == "submitit_slurm" or self.address):
            return None
        return self.workers or max(1, (os.cpu_count() or 1) // self.cpus)


def launch(config: LauncherConfig, logs: Path) -> AbstractContextManager[Submit]:
    """Within it, functions can be handed in; at the end, workers of this machine are stopped.

    Args:
        config: Which launcher, and what a job gets.
        logs: Folder for the launcher's own files.

    Raises:
        InputError: It does not work on this machine.
        MissingExtraError: It is not installed.
    """
    return LAUNCHERS[config.name](config, logs)


@contextmanager
def _basic(config: LauncherConfig, logs: Path) -> Iterator[Submit]:
    def submit(function: Callable[..., None], *arguments: Any) -> Task:
        task: Future[None] = Future()
        function(*arguments)
        task.set_result(None)
        return task

    yield submit


@contextmanager
def _joblib(config: LauncherConfig, logs: Path) -> Iterator[Submit]:
    loky = require("joblib.externals.loky", extra="launchers")

    def submit(function: Callable[..., None], *arguments: Any) -> Task:
        return executor().submit(function, *arguments)

    def executor() -> Any:  # a new one where a worker was killed
        return loky.get_reusable_executor(max_workers=config.at_once, timeout=None)

    try:
        yield submit
    finally:
        executor().shutdown(wait=True, kill_workers=True)


@contextmanager
def _ray(config: LauncherConfig, logs: Path) -> Iterator[Submit]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job without GPUs is left as it is
    ray = require("ray", extra="launchers")
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": (config.at_once or 1) * config.cpus}
    ray.init(address=config.address or "local", log_to_driver=False, **({} if config.address else own))
    resources: dict[str, Any] = {"num_cpus": config.cpus, "num_gpus": config.gpus}
    if config.memory_gb:
        resources["memory"] = int(config.memory_gb * 1e9)

    def submit(function: Callable[..., None], *arguments: Any) -> Task:
        remote = ray.remote(max_retries=0, **resources)(function)  # the driver hands a lost job in again itself
        return remote.remote(*arguments).future()

    try:
        yield submit
    finally:
        ray.shutdown()


@contextmanager
def _submitit(config: LauncherConfig, logs: Path) -> Iterator[Submit]:
    submitit = require("submitit", extra="launchers")
    if config.name == "submitit_slurm" and not shutil.which("srun"):
        raise InputError(
            expected="a machine of a Slurm cluster, with srun, for launcher=submitit_slurm",
            found="no srun on the PATH",
            fix="Run it on a login node, or take launcher=submitit_local.",
        )
    executor = submitit.AutoExecutor(folder=logs / "%j", cluster=config.name.removeprefix("submitit_"))
    executor.update_parameters(
        name="neurobridge",
        timeout_min=config.minutes,
        cpus_per_task=config.cpus,
        gpus_per_node=config.gpus,
        **({"mem_gb": config.memory_gb} if config.memory_gb else {}),
        **config.slurm,
    )

    def submit(function: Callable[..., None], *arguments: Any) -> Task:
        return executor.submit(_Resumed(function), *arguments)

    yield submit


class _Resumed:
    """A function that Slurm may preempt or end at its time limit: it is queued again, and goes on where it was."""

    def __init__(self, function: Callable[..., None]):
        self.function = function

    def __call__(self, *arguments: Any) -> None:
        self.function(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues instead."""
        submitit = require("submitit", extra="launchers")
        return submitit.helpers.DelayedSubmission(self, *arguments)


LAUNCHERS: dict[str, Callable[[LauncherConfig, Path], AbstractContextManager[Submit]]] = {
    "basic": _basic,
    "joblib": _joblib,
    "ray": _ray,
    "submitit_local": _submitit,
    "submitit_slurm": _submitit,
}
