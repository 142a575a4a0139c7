"""Kill every job at random moments, run it again, and compare with a run that was not killed. Run with --help.

Each job runs on small simulated recordings, in a fork of a process that has loaded the libraries. The moments are
spread over the processor time that the job itself takes, whatever else the machine does, so that they fall into its
start, its epochs, its checkpoints and its end. The pipeline, the demo and the training by two processes start further
programs, and run as they are typed.
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
from pathlib import Path

import click
import numpy as np
import psutil
from small_workspace import JOBS, figures, largest_difference, make_workspace, settings

_TOLERANCE = 1e-6
_LOADED = ("pretrain", "adapt", "align", "finetune", "forecast", "train_decoder", "embed")
_PREPARE, _DEMO, _TWO = "brainsets prepare tvsd", "demo", "pretrain, two processes"


def command_of(job: str, workspace: Path, run: Path) -> list[str]:
    """What a job that starts further programs is typed as; [] for the others."""
    neurobridge = [sys.executable, "-m", "neurobridge_tb.cli"]
    if job == _DEMO:
        return [*neurobridge, "demo", str(run), "--tiny"]
    if job == _TWO:
        shared = ["trainer.devices=2", "trainer.strategy=ddp"]
        return [*neurobridge, "pretrain", *settings("pretrain", workspace, run, batch_size=8), *shared]
    if job == _PREPARE:
        program = str(Path(sys.executable).parent / "brainsets")
        places = ["--raw-dir", str(workspace / "raw"), "--processed-dir", str(run)]
        return [program, "prepare", "tvsd", "--single", "monkeyF_norm", *places]
    return []


def start(job: str, workspace: Path, run: Path) -> psutil.Process:
    """Start a job in a process group of its own. What it prints goes to a file beside the run."""
    command = command_of(job, workspace, run)
    if process := os.fork():
        return psutil.Process(process)
    os.setpgid(0, 0)  # a job that is killed takes its stages and workers along
    output = os.open(_log(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if command:
        os.execv(command[0], command)
    from neurobridge_tb.cli.main import run as neurobridge
    from neurobridge_tb.jobs import train_decoder

    train_decoder.train_flow = partial(train_decoder.train_flow, checkpoint_every=3, log_every=1)  # usually 500 and 50
    sys.argv = ["neurobridge", job, *settings(job, workspace, run)]
    try:
        neurobridge()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def outcome(job: str, run: Path) -> dict[str, float]:
    """The figures that a finished run has left."""
    if job == _PREPARE:
        return {"sum of values": float(np.abs(_values(run / "tvsd" / "monkeyF_norm.h5")).sum())}
    if job == _DEMO:
        return figures(run) | {"retrieval": float((run / "runs/evaluate/retrieval.json").exists())}
    return figures(run)


def _values(path: Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.nan_to_num(file["mua/value"][:])


@dataclass
class End:
    """How a run ended: its exit code, processor seconds, and whether a signal was sent before it ended."""

    code: int
    seconds: float
    sent: bool


def run_once(job: str, workspace: Path, run: Path, number: signal.Signals | None = None, at: float = 0.0) -> End:
    """Run a job; after ``at`` seconds of processor time it gets a signal, if it has not ended by then.

    SIGTERM goes to the process that was started alone, as `kill` sends it; SIGKILL to all that belong to it.
    """
    process, seconds, sent = start(job, workspace, run), 0.0, False
    alone = not command_of(job, workspace, run)
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        seconds = max(seconds, _processor_seconds(process, alone=alone))
        if number is not None and not sent and seconds > at:
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
            sent = True
        time.sleep(0.005 if alone else 0.03)
    code, used = os.waitstatus_to_exitcode(ended[1]), ended[2]
    left = _group(process.pid)
    if number is None and code:
        raise click.ClickException(f"{job} ended with {code}:\n{_log(run).read_text()[-2000:]}")
    if left:
        print(f"{run.name}: {len(left)} processes were left after {code}", file=sys.stderr, flush=True)
        psutil.wait_procs(left, timeout=60)
    return End(code, used.ru_utime + used.ru_stime, sent)


def _processor_seconds(process: psutil.Process, *, alone: bool) -> float:
    """What a process has used up, and those that it started."""
    total = 0.0
    try:
        for one in [process, *([] if alone else process.children(recursive=True))]:
            total += sum(one.cpu_times()[:4])  # user, system, and those of children that have ended
    except psutil.Error:  # one has just ended: the next look counts it
        return 0.0
    return total


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
        whole: Processor seconds of the run that was not killed.
        sent, stopped, alike: Runs that were sent a signal, that it ended, and whose figures are those of the whole run.
        worst: Largest difference of a figure.
        again: Processor seconds of the second runs of those that were stopped.
        odd: Exit codes that are none of a signal's, and tracebacks.
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
    whole = run_once(job, workspace, workspace / f"{job} whole")
    expected, tally = outcome(job, workspace / f"{job} whole"), Tally(whole.seconds)
    for number in (signal.SIGKILL, signal.SIGTERM):
        for k in range(moments):
            run = workspace / f"{job} {number.name} {k}"
            end = run_once(job, workspace, run, number, float(rng.uniform(0.02, 0.98) * whole.seconds))
            if end.code:
                tally.again.append(run_once(job, workspace, run).seconds)
            difference = largest_difference(expected, outcome(job, run))
            tally.sent += end.sent
            tally.stopped += end.sent and end.code != 0
            tally.alike += end.sent and difference <= _TOLERANCE
            tally.worst = max(tally.worst, difference)
            if end.code not in (0, -number, 128 + number):
                tally.odd.append(f"ended with {end.code}")
            if "Traceback" in _log(run).read_text():
                tally.odd.append("traceback")
            if difference > _TOLERANCE or "Traceback" in _log(run).read_text():
                print(f"{run.name}: {difference:.1e}\n{_log(run).read_text()[-3000:]}", file=sys.stderr, flush=True)
            shutil.rmtree(run, ignore_errors=True)
    return tally


@click.command(context_settings={"show_default": True})
@click.option("--job", "jobs", multiple=True, default=[*JOBS, _TWO, _PREPARE, _DEMO])
@click.option("--moments", default=20, help="Moments for each of SIGKILL and SIGTERM.")
@click.option("--seed", default=0)
def main(jobs: tuple[str, ...], moments: int, seed: int) -> None:
    """Print a row a job.

    Its columns: processor seconds of the whole run; how many runs that were sent a signal were ended by it; in how many
    the figures, after a second run, equal those of the whole run; the mean processor seconds of second runs; the
    largest difference of a figure.
    """
    for module in ("neurobridge_tb.engine.run_folder", "timm", *(f"neurobridge_tb.jobs.{name}" for name in _LOADED)):
        import_module(module)  # once, for all forks
    from neurobridge_tb.simulation import simulate_tvsd

    os.environ |= {"PYTHONWARNINGS": "ignore", "GLIBC_TUNABLES": ""}  # a fork cannot start anew with a bounded heap
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_workspace(workspace)
        if _PREPARE in jobs:
            simulate_tvsd(workspace / "simulated", n_concepts=12, images_per_concept=4, n_repeats=2, seed=seed)
            (workspace / "simulated" / "raw").rename(workspace / "raw")
        print("| job | whole run | stopped | equal figures | second runs | largest difference |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for job in jobs:
            print(try_job(job, workspace, moments, np.random.default_rng(seed)).row(job), flush=True)


if __name__ == "__main__":
    main()
