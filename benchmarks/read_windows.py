"""Processor time of reading windows, of another version of the package beside this one. Run with --help."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

SCHEMES = ("temporal", "causal", "neuron", "intra_region", "inter_region", "random")
CASES = {  # units, bins, bin width, window, latent step
    "MUA, 1024 channels, 30 bins of 10 ms": ("mua", 1024, 30_000, 0.01, 0.3, 0.05),
    "counts, 192 units, 20 bins of 50 ms": ("spike_counts", 192, 60_000, 0.05, 1.0, 0.125),
}
HERE = Path(__file__).parent.parent


def simulate(case: str, folder: Path) -> None:
    """A recording of noise; the two versions read the same file."""
    from neurobridge_tb.datasets import build_recording, save_recording

    modality, n_units, n_bins, width, *_ = CASES[case]
    rng = np.random.default_rng(0)
    shape = n_bins, n_units
    activity = (
        {"mua": (rng.normal(size=shape).astype(np.float32), width)}
        if modality == "mua"
        else {"counts": (rng.poisson(0.3, shape).astype(np.uint8), width)}
    )
    recording = build_recording(
        brainset_id="benchmark",
        session_id="noise",
        subject_id="none",
        units={
            "id": [f"unit{i:04d}" for i in range(n_units)],
            "area": [f"area{3 * i // n_units}" for i in range(n_units)],
        },
        splits={"train": ([0.0], [n_bins * width])},
        simulated=True,
        **activity,
    )
    save_recording(recording, folder / "noise.h5")


def tasks(case: str, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, in the version of the package that is imported."""
    from neurobridge_tb import NeuroBridgeModel
    from neurobridge_tb.datasets import BinnedRecordings
    from neurobridge_tb.masking import MaskedTokenizer

    try:
        from neurobridge_tb.data.windows import window_loader
    except ImportError:  # before the rooms were moved
        from neurobridge_tb.training.windows import window_loader

    modality, *_, length, latent_step = CASES[case]
    dataset = BinnedRecordings(root=folder)
    intervals = dataset.get_sampling_intervals("train")
    model = NeuroBridgeModel(
        modality=modality, sequence_length=length, latent_step=latent_step, dim=16, depth=1, dim_head=8
    )
    model.init_vocabs(dataset)
    tokenizer = MaskedTokenizer(model, dict.fromkeys(SCHEMES, 1.0))
    settings = {"windows": "continuous", "window_length": length, "batch_size": 64, "shuffle": True}
    batches = iter(window_loader(dataset, tokenizer, intervals, **settings))
    return {
        "a batch of 64 masked windows": lambda: next(batches),
        "statistics of a recording": lambda: model.fit_unit_statistics(dataset, intervals),
    }


def serve(case: str, folder: Path) -> None:
    """Time each task that a line of standard input names, and print the processor time in s."""
    to_time = tasks(case, folder)
    for line in sys.stdin:
        began = time.process_time()
        to_time[line.strip()]()
        print(json.dumps(time.process_time() - began), flush=True)


def server(source: Path, case: str, folder: Path) -> subprocess.Popen:
    """A process that serves with the package in ``source``."""
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", case, "--folder", folder],
        env={"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen, task: str) -> float:
    """Processor time of a task there, in s."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(task + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--before", type=click.Path(path_type=Path, exists=True), default=HERE, help="Checkout to compare with.")
@click.option("--repeats", type=int, default=15, help="Times that each task is timed; the fastest counts.")
@click.option("--serve", "case", hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(before: Path, repeats: int, case: str | None, folder: Path | None) -> None:
    """Time tokenizing a batch and the statistics of a recording, in turn with another version of the package.

    Both run in turn, in one thread, so that other load on the machine meets both alike: trust the ratios.

    \b
    Example:
      git worktree add /tmp/before 40538b3 && python benchmarks/read_windows.py --before /tmp/before
    """
    if case and folder:
        serve(case, folder)
        return
    for name in CASES:
        with tempfile.TemporaryDirectory() as place:
            simulate(name, Path(place))
            processes = [server(source, name, Path(place)) for source in (before, HERE)]
            for task in ("a batch of 64 masked windows", "statistics of a recording"):
                timed = [[ask(process, task) for process in processes] for _ in range(repeats)]
                old, new = np.min(timed, axis=0)
                click.echo(f"{name}: {task}: {1e3 * old:.1f} ms before, {1e3 * new:.1f} ms now, ratio {new / old:.2f}")
            for process in processes:
                process.communicate()


if __name__ == "__main__":
    main()
