"""Do two processes train as one does? Every training job, on small simulated recordings. Run with --help."""

import subprocess
import sys
import tempfile
from pathlib import Path

import click
from small_workspace import figures, largest_difference, make_workspace, settings

_TRAININGS = ("pretrain", "adapt", "adapt, gradual", "align", "finetune", "forecast")


def run(job: str, workspace: Path, out: Path, processes: int) -> dict[str, float]:
    """Figures of a job in a process or several, whose batches add up to 16."""
    name, _, mode = job.partition(", ")
    arguments = settings(name, workspace, out, batch_size=16 // processes)
    arguments += [f"mode={mode}"] * bool(mode)
    if processes > 1:
        arguments += [f"trainer.devices={processes}", "trainer.strategy=ddp"]
    command = [sys.executable, "-m", "neurobridge_tb.cli", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return figures(out)


@click.command(context_settings={"show_default": True})
@click.option("--job", "jobs", type=click.Choice(_TRAININGS), multiple=True, default=_TRAININGS)
def main(jobs: tuple[str, ...]) -> None:
    """Print the largest difference between any figure of one process with batches of 16 and of two with 8 each."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_workspace(workspace)
        print("| job | figures | largest difference |\n| --- | --- | --- |")
        for job in jobs:
            one, two = (run(job, workspace, workspace / f"{job} {n}", n) for n in (1, 2))
            print(f"| {job} | {len(one)} | {largest_difference(one, two):.1e} |", flush=True)


if __name__ == "__main__":
    main()
