"""Kill every job at random moments, run it again, and compare with a run that was not killed. Run with --help.

Each job runs on small simulated recordings. The moments are spread over the time that the job takes, so that some fall
into its start, its epochs, its checkpoints and its end.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from small_workspace import JOBS, figures, largest_difference, make_workspace, settings

_TOLERANCE = 1e-6


def command_of(job: str, workspace: Path, run: Path) -> list[str]:
    """What is typed."""
    if job == "demo":
        return [sys.executable, "-m", "neurobridge_tb.cli", "demo", str(run), "--tiny"]
    if job == "brainsets prepare tvsd":
        program = str(Path(sys.executable).parent / "brainsets")
        places = ["--raw-dir", str(workspace / "raw"), "--processed-dir", str(run)]
        return [program, "prepare", "tvsd", "--single", "monkeyF_norm", *places]
    return [sys.executable, "-m", "neurobridge_tb.cli", job, *settings(job, workspace, run)]


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


def run_once(command: list[str], stop: tuple[signal.Signals, float] | None) -> int:
    """Exit code of a command that gets a signal after so many seconds, if it has not ended by then."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=None if stop is None else stop[1])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, stop[0])  # a job that is killed takes its stages and workers along
        output, _ = process.communicate()
    if stop is None and process.returncode:
        raise click.ClickException(f"{' '.join(command)}\n{output[-2000:]}")
    return process.returncode


def try_job(job: str, workspace: Path, moments: int, rng: np.random.Generator) -> str:
    """A row of the table: how often it was killed, with what exit codes, and how the figures differ."""
    began = time.monotonic()
    run_once(command_of(job, workspace, workspace / f"{job} whole"), None)
    seconds, whole = time.monotonic() - began, outcome(job, workspace / f"{job} whole")
    worst, killed, codes, alike = 0.0, 0, set(), 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        for k in range(moments):
            run = workspace / f"{job} {number.name} {k}"
            command = command_of(job, workspace, run)
            code = run_once(command, (number, float(rng.uniform(0.05, 1.0) * seconds)))
            killed += code != 0
            codes.add(code)
            if code:
                run_once(command, None)
            difference = largest_difference(whole, outcome(job, run))
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
    from neurobridge_tb.simulation import simulate_tvsd

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
