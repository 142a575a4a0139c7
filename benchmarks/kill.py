"""Kill every job at random moments, run it again, and compare with a run that was not killed. Run with --help.

Each command runs on small simulated recordings, in a fork of a process that has loaded the libraries; so do the stages
of the demo, which are smaller than those of `--tiny`, and the pipelines, as `brainsets prepare` calls them. Where two
processes share a training, the second is started as Lightning does it. The moments are spread over the processor time
that the job takes (of two processes: the first), whatever else the machine does, so that they fall into its start, its
epochs, its checkpoints and its end.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import click
import numpy as np
import psutil
from small_workspace import JOBS, figures, largest_difference, make_workspace, settings

_TOLERANCE = 1e-6
_PATIENCE_S = 10.0
_LOADED = ("pretrain", "adapt", "align", "finetune", "forecast", "train_decoder", "embed", "evaluate", "reconstruct")
_DEMO, _TWO = "demo", "pretrain, two processes"
_PIPELINES = {  # brainset and item
    "prepare TVSD, norm": ("tvsd", "monkeyF_norm"),
    "prepare TVSD, trials": ("tvsd", "monkeyF_trials"),
    "prepare Allen": ("allen_visual_coding_neuropixels_2019", "1"),
    "prepare IBL": ("ibl_brain_wide_map_2025", "simulatedlab_SIM_000_2025-01-01_001"),
}
_DEMO_SIZES = {
    "simulate": ["--concepts", "16", "--per-concept", "4", "--repeats", "4"],
    "embed": ["layers=[blocks.4@1x1]"],
    "align": ["readout.dim_hidden=16", "stage1.epochs=1", "stage2.epochs=1"],
    "evaluate": ["resamples=20", "permutations=20"],
    "reconstruct": ["backends=[nearest, ridge_pixels]", "judge.image_size=32", "num_samples=1"],
}


def command_of(job: str, workspace: Path, run: Path) -> list[str]:
    """What a job is typed as."""
    if job == _DEMO:
        return ["neurobridge", "demo", str(run), "--tiny"]
    if job == _TWO:
        shared = ["trainer.devices=2", "trainer.strategy=ddp"]
        return ["neurobridge", "pretrain", *settings("pretrain", workspace, run, batch_size=8), *shared]
    if job in _PIPELINES:
        brainset, item = _PIPELINES[job]
        places = ["--raw-dir", str(workspace / "raw"), "--processed-dir", str(run)]
        return ["brainsets", "prepare", brainset, "--single", item, *places]
    return ["neurobridge", job, *settings(job, workspace, run)]


def become(command: list[str]) -> NoReturn:
    """Be a command, in a fork, to its end."""
    try:
        if Path(command[0]).name == "brainsets":
            from torch_brain.pipeline import runner

            pipeline = Path(__file__).parents[1] / "brainsets_pipelines" / command[2] / "pipeline.py"
            sys.argv = ["runner", str(pipeline), *command[3:]]
            runner.run()
        else:
            from neurobridge_tb.cli.main import run

            sys.modules["__main__"].__spec__ = find_spec(
                "neurobridge_tb.cli.__main__"
            )  # as which a second process runs
            sys.argv = command
            run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def start(job: str, workspace: Path, run: Path) -> psutil.Process:
    """Start a job in a process group of its own. What it prints goes to a file beside the run."""
    if process := os.fork():
        return psutil.Process(process)
    os.setpgid(0, 0)  # a job that is killed takes its stages and workers along
    output = os.open(_log(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    become(command_of(job, workspace, run))


class Stage:
    """A stage of the demo: a fork in place of a `subprocess.Popen`."""

    def __init__(self, command: list[str], env: dict[str, str]):
        if not (process := os.fork()):
            become(command)
        self.pid = process

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def shorten() -> None:
    """Load what the jobs need, once for all forks, and let the demo and the decoder's training be short."""
    for name in (
        "cli.main",
        "cli.demo_stages",
        "engine.run_folder",
        "report.page",
        *(f"jobs.{job}" for job in _LOADED),
    ):
        import_module(f"neurobridge_tb.{name}")
    for name in ("timm", "torch_brain.pipeline.runner"):
        import_module(name)
    from neurobridge_tb import simulation
    from neurobridge_tb.cli import demo_stages
    from neurobridge_tb.jobs import train_decoder

    simulation.simulate_tvsd = partial(simulation.simulate_tvsd, n_test=12)  # type: ignore[attr-defined]
    train_decoder.train_flow = partial(train_decoder.train_flow, checkpoint_every=3, log_every=1)  # usually 500 and 50
    demo_stages._TINY_SIZES |= _DEMO_SIZES
    demo_stages._NEUROBRIDGE = ["neurobridge"]
    demo_stages.subprocess = SimpleNamespace(Popen=Stage)  # type: ignore[assignment]


def make_raw(workspace: Path) -> None:
    """Raw files of small sessions, as the pipelines look for them."""
    from neurobridge_tb.simulation import simulate_allen_session, simulate_ibl_sessions, simulate_tvsd

    simulate_tvsd(workspace, n_concepts=12, images_per_concept=4, n_repeats=4, trials=True)
    simulate_allen_session(workspace, n_units=30, seconds=300.0)
    simulate_ibl_sessions(workspace, seconds=120.0)


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


@dataclass
class End:
    """How a run ended: its exit code, processor seconds, whether a signal was sent before it ended, and how many of its
    processes went on for more than ten seconds."""

    code: int
    seconds: float
    sent: bool
    left: int


def run_once(job: str, workspace: Path, run: Path, number: signal.Signals | None = None, at: float = 0.0) -> End:
    """Run a job; after ``at`` seconds of processor time it gets a signal, if it has not ended by then.

    SIGTERM goes to the process that was started alone, as `kill` sends it; SIGKILL to all that belong to it.
    """
    process, seconds, sent = start(job, workspace, run), 0.0, False
    while not (ended := os.waitpid(process.pid, os.WNOHANG))[0]:
        seconds = max(seconds, _processor_seconds(process, alone=job != _DEMO))
        if number is not None and not sent and seconds > at:
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
            sent = True
        time.sleep(0.03 if job == _DEMO else 0.005)
    code = os.waitstatus_to_exitcode(ended[1])
    left = psutil.wait_procs(_group(process.pid), timeout=_PATIENCE_S)[1]
    if number is None and code:
        raise click.ClickException(f"{job} ended with {code}:\n{_log(run).read_text()[-2000:]}")
    if left:
        psutil.wait_procs(left)
    return End(code, seconds, sent, len(left))


def _processor_seconds(process: psutil.Process, *, alone: bool) -> float:
    """What a process has used up, and, unless it counts alone, those that it started."""
    try:
        if alone:
            return sum(process.cpu_times()[:2])
        return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))
    except psutil.Error:  # one has just ended: the next look counts it
        return 0.0


def _group(group: int) -> list[psutil.Process]:
    """Processes that are left of a process group."""

    def is_member(process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == group
        except OSError:
            return False

    return [process for process in psutil.process_iter() if is_member(process)]


@dataclass
class Tally:
    """What became of the runs of a job that were sent a signal.

    Attributes:
        whole: Processor seconds of a run that was not killed, the shorter one of two.
        sent, stopped, alike: Runs that were sent a signal, that it ended, and whose figures are those of the whole run.
        worst: Largest difference of a figure, also between the two whole runs.
        again: Processor seconds of the second runs of those that were stopped.
        odd: Exit codes that are none of a signal's, processes that went on, and tracebacks.
    """

    whole: float
    sent: int = 0
    stopped: int = 0
    alike: int = 0
    worst: float = 0.0
    again: list[float] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def row(self, job: str) -> str:
        """A row of the table."""
        again = f"{np.mean(self.again):.1f} s" if self.again else ""
        odd = f" ({'; '.join(sorted(set(self.odd)))})" if self.odd else ""
        counts = f"{self.stopped} of {self.sent}{odd} | {self.alike} of {self.sent}"
        return f"| {job} | {self.whole:.1f} s | {counts} | {again} | {self.worst:.1e} |"


def try_job(job: str, workspace: Path, moments: int, rng: np.random.Generator) -> Tally:
    """Kill a job at random moments and run it again."""
    first, second = (run_once(job, workspace, workspace / f"{job} whole {k}").seconds for k in (1, 2))
    whole, expected = min(first, second), figures(workspace / f"{job} whole 1")  # the first one may read more
    tally = Tally(whole, worst=largest_difference(expected, figures(workspace / f"{job} whole 2")))
    for number in (signal.SIGKILL, signal.SIGTERM):
        for k in range(moments):
            run = workspace / f"{job} {number.name} {k}"
            end = run_once(job, workspace, run, number, float(rng.uniform(0.02, 0.98) * whole))
            if end.code:
                tally.again.append(run_once(job, workspace, run).seconds)
            difference = largest_difference(expected, figures(run))
            tally.sent += end.sent
            tally.stopped += end.sent and end.code != 0
            tally.alike += end.sent and difference <= _TOLERANCE
            tally.worst = max(tally.worst, difference)
            if end.code not in (0, -number, 128 + number):
                tally.odd.append(f"ended with {end.code}")
            if end.left:
                tally.odd.append(f"{end.left} processes went on")
            if "Traceback" in _log(run).read_text():
                tally.odd.append("traceback")
            if difference > _TOLERANCE or "Traceback" in _log(run).read_text():
                print(f"{run.name}: {difference:.1e}\n{_log(run).read_text()[-3000:]}", file=sys.stderr, flush=True)
            print(f"{run.name}: ended with {end.code}, difference {difference:.1e}", file=sys.stderr, flush=True)
            shutil.rmtree(run, ignore_errors=True)
    return tally


@click.command(context_settings={"show_default": True})
@click.option("--job", "jobs", multiple=True, default=[*JOBS, _TWO, *_PIPELINES, _DEMO])
@click.option("--moments", default=20, help="Moments for each of SIGKILL and SIGTERM.")
@click.option("--seed", default=0)
def main(jobs: tuple[str, ...], moments: int, seed: int) -> None:
    """Print a row a job.

    Its columns: processor seconds of a whole run; how many runs that were sent a signal were ended by it; in how many
    the figures, after a second run, equal those of a whole run; the mean processor seconds of second runs; the
    largest difference of a figure.
    """
    shorten()
    os.environ |= {"PYTHONWARNINGS": "ignore", "GLIBC_TUNABLES": ""}  # a fork cannot start anew with a bounded heap
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        if set(jobs) - {_DEMO, *_PIPELINES}:
            make_workspace(workspace)
        if set(_PIPELINES) & set(jobs):
            make_raw(workspace)
        print("| job | whole run | stopped | equal figures | second runs | largest difference |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for job in jobs:
            print(try_job(job, workspace, moments, np.random.default_rng(seed)).row(job), flush=True)


if __name__ == "__main__":
    main()
