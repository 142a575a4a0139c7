"""What `brainsets prepare allen_visual_coding_neuropixels_2019` costs: seconds and memory.

A simulated NWB file of a full session is made, and prepared with the default filter and with every unit kept. Each
measurement has a process of its own; memory is the largest resident set of that process.

    python benchmarks/allen_pipeline.py                                           # 1,500 units, 30 M spikes
    python benchmarks/allen_pipeline.py --session 1500 30 --session 2779 131      # and a large published session's size

Writes benchmarks/results/allen_pipeline.md.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import h5py

ROOT = Path(__file__).parents[1]
BRAINSET = "allen_visual_coding_neuropixels_2019"
PIPELINE = ROOT / "brainsets_pipelines" / BRAINSET / "pipeline.py"
KEEP_ALL = ["--all-units"]
SECONDS = 9600.0  # of a published session


def measured(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (GB) of a process that runs ``code``."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss * 1024 / 1e9


def prepare(workspace: Path, *options: str) -> tuple[float, float]:
    folders = [f"--raw-dir={workspace / 'raw'}", f"--processed-dir={workspace / 'processed'}"]
    code = "from torch_brain.pipeline.runner import run; run()"
    return measured(code, str(PIPELINE), *folders, "--single=1", "--reprocess", *options)


def kept(workspace: Path) -> str:
    with h5py.File(workspace / "processed" / BRAINSET / "1.h5") as file:
        return f"{len(file['units/id']):,} | {len(file['spikes/timestamps']) / 1e6:.1f}"


def section(units: int, spikes: float) -> list[str]:
    """Measurements of one session, as lines of Markdown."""
    simulation = (
        "import sys; from neurobridge_tb.simulation.allen_nwb import simulate_allen_session as simulate; "
        "simulate(sys.argv[1], n_units=int(sys.argv[2]), seconds=float(sys.argv[3]), rate=float(sys.argv[4]))"
    )
    rate = 1e6 * spikes / units / SECONDS
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        made = measured(simulation, folder, str(units), str(SECONDS), str(rate))
        path = next(workspace.rglob("*.nwb"))
        with h5py.File(path) as file:
            found = f"{len(file['units/spike_times']) / 1e6:.1f} M spikes of {len(file['units/id']):,} units"
        reading = measured(f"import h5py; print(h5py.File({str(path)!r})['units/spike_times'][:].sum())")
        rows = [f"| simulating the file | | | {made[0]:.0f} | {made[1]:.2f} |"]
        rows.append(f"| reading all spike times with plain h5py | | | {reading[0]:.1f} | {reading[1]:.2f} |")
        for name, options in (("prepare, default filter", []), ("prepare, every unit kept", KEEP_ALL)):
            seconds, memory = prepare(workspace, *options)
            rows.append(f"| {name} | {kept(workspace)} | {seconds:.1f} | {memory:.2f} |")
        size = path.stat().st_size / 1e9
    head = "| what | units kept | spikes kept (M) | seconds | peak memory (GB) |"
    return [f"{found}, {SECONDS:,.0f} s, {size:.2f} GB:", "", head, "| --- | --- | --- | --- | --- |", *rows, ""]


@click.command()
@click.option("--session", "sessions", type=(int, float), multiple=True, default=[(1500, 30.0)], show_default=True)
def main(sessions: list[tuple[int, float]]) -> None:
    """Measure and write the table. A SESSION is a number of units and of millions of spikes; give several if wanted."""
    seconds, memory = measured("import torch_brain.pipeline.runner, torch_brain.data, h5py, requests")
    command = " ".join(["python benchmarks/allen_pipeline.py", *(f"--session {u} {s:g}" for u, s in sessions)])
    text = [
        "# Allen pipeline",
        "",
        f"**Simulated** sessions. `{command}`",
        "",
        *(line for units, spikes in sessions for line in section(units, spikes)),
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}. Memory is the largest "
        f"resident set of the process; the interpreter with its imports takes {memory:.2f} GB and {seconds:.1f} s of "
        f"each row. The file was in the system's cache; one run, load average {os.getloadavg()[2]:.0f} at its end.",
        "",
    ]
    out = ROOT / "benchmarks" / "results" / "allen_pipeline.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(text), encoding="utf-8")
    click.echo("\n".join(text))


if __name__ == "__main__":
    main()
