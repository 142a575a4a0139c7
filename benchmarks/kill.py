"""Kill every job at random moments, run it again, and compare with a run that was not killed. Run with --help.

Each job runs on small simulated recordings, in a fork of a process that has loaded the libraries: the moments are
spread over the time that the job itself takes, so that they fall into its start, its epochs, its checkpoints and its
end. The pipeline and the demo start further programs, and run as they are typed.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click
import numpy as np
from small_workspace import JOBS, figures, largest_difference, make_workspace, settings

_TOLERANCE = 1e-6


def start(job: str, workspace: Path, run: Path) -> int:
    """Start a job in a process group of its own; returns its process. What it prints goes to a file beside the run."""
    command: list[str] = []
    if job == "demo":
        command = [sys.executable, "-m", "neurobridge_tb.cli", "demo", str(run), "--tiny"]
    elif job == "brainsets prepare tvsd":
        program = str(Path(sys.executable).parent / "brainsets")
        places = ["--raw-dir", str(workspace / "raw"), "--processed-dir", str(run)]
        command = [program, "prepare", "tvsd", "--single", "monkeyF_norm", *places]
    process = os.fork()
    if process:
        return process
    os.setsid()  # a job that is killed takes its stages and workers along
    output = os.open(_log(run), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if command:
        os.execv(command[0], command)
    from neurobridge_tb.cli.main import run as neurobridge

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
    if job == "brainsets prepare tvsd":
        return {"bytes of values": float(np.abs(_values(run / "tvsd" / "monkeyF_norm.h5")).sum())}
    if job == "demo":
        return figures(run) | {"retrieval": float((run / "runs/evaluate/retrieval.json").exists())}
    return figures(run)


def _values(path: Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.nan_to_num(file["mua/value"][:])


def run_once(job: str, workspace: Path, run: Path, stop: tuple[signal.Signals, float] | None) -> int:
    """Exit code of a job that gets a signal after so many seconds, if it has not ended by then."""
    process, until = start(job, workspace, run), None if stop is None else time.monotonic() + stop[1]
    while not (ended := os.waitpid(process, 0 if until is None else os.WNOHANG))[0]:
        if stop is not None and until is not None and time.monotonic() > until:
            os.killpg(process, stop[0])
            until = None
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    if stop is None and code:
        raise click.ClickException(f"{job} ended with {code}:\n{_log(run).read_text()[-2000:]}")
    return code


def try_job(job: str, workspace: Path, moments: int, rng: np.random.Generator) -> str:
    """A row of the table: how often it was killed, with what exit codes, and how the figures differ."""
    began = time.monotonic()
    run_once(job, workspace, workspace / f"{job} whole", None)
    seconds, whole = time.monotonic() - began, outcome(job, workspace / f"{job} whole")
    worst, killed, codes, alike = 0.0, 0, set(), 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        for k in range(moments):
            run = workspace / f"{job} {number.name} {k}"
            code = run_once(job, workspace, run, (number, float(rng.uniform(0.02, 1.0) * seconds)))
            killed += code != 0
            codes.add(code)
            if code:
                run_once(job, workspace, run, None)
            difference = largest_difference(whole, outcome(job, run))
            if difference > _TOLERANCE:
                print(f"{run.name}: {difference:.1e}", file=sys.stderr, flush=True)
            worst, alike = max(worst, difference), alike + (difference <= _TOLERANCE)
    expected = {0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
    odd = f", also ended with {sorted(codes - expected)}" if codes - expected else ""
    return f"| {job} | {seconds:.0f} s | {killed} of {2 * moments} | {alike} of {2 * moments}{odd} | {worst:.1e} |"


@click.command(context_settings={"show_default": True})
@click.option("--job", "jobs", multiple=True, default=[*JOBS, "brainsets prepare tvsd", "demo"])
@click.option("--moments", default=20, help="Moments for each of SIGKILL and SIGTERM.")
@click.option("--seed", default=0)
def main(jobs: tuple[str, ...], moments: int, seed: int) -> None:
    """Print a row a job: how often it was killed, and in how many runs the figures equal those of the whole run."""
    import neurobridge_tb.engine.run_folder  # noqa: F401  lightning and pandas, for all forks
    from neurobridge_tb.simulation import simulate_tvsd

    os.environ |= {"PYTHONWARNINGS": "ignore", "GLIBC_TUNABLES": ""}  # a fork cannot start anew with a bounded heap
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_workspace(workspace)
        if "brainsets prepare tvsd" in jobs:
            simulate_tvsd(workspace / "simulated", n_concepts=12, images_per_concept=4, n_repeats=2, seed=seed)
            (workspace / "simulated" / "raw").rename(workspace / "raw")
        print("| job | whole run | killed | equal figures | largest difference |\n| --- | --- | --- | --- | --- |")
        for job in jobs:
            print(try_job(job, workspace, moments, np.random.default_rng(seed)), flush=True)


if __name__ == "__main__":
    main()
