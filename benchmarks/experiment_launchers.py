"""How much sooner does an experiment end with more workers? Eight equal jobs on one Ray worker and on two.

    python benchmarks/experiment_launchers.py --work launchers

Each job is a short pretraining of the tiny model on simulated counts, with a seed of its own and one thread. Both
numbers of workers run all eight anew, cluster start and imports included. ``<work>/experiment_launchers.json`` holds
the times.
"""

import json
import time
from pathlib import Path

import click
import numpy as np

from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.experiments.experiment import run_experiment, settle_experiment
from neurobridge_tb.experiments.recipe import read_recipe
from neurobridge_tb.files import write_json

RECIPE = """
question: How long do eight equal jobs take?
settings: {root: "???", epochs: "???"}
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
steps:
  pretrain: {dataset: binned, root: "${root}", model: tiny, max_epochs: "${epochs}", device: cpu, seed: "${seed}"}
table: {measures: [model]}
"""
BIN, SECONDS, UNITS = 0.05, 200, 32


def simulate(root: Path) -> None:
    """Counts of units that share slow signals."""
    rng = np.random.default_rng(0)
    signals = np.sin(np.arange(int(SECONDS / BIN))[:, None] * BIN * 2 * np.pi / np.array([0.9, 1.7, 3.1]))
    counts = rng.poisson(np.exp(signals @ rng.normal(0, 0.8, (3, UNITS)))).astype(np.uint8)
    splits = {"train": ([0.0], [160.0]), "valid": ([160.0], [180.0]), "test": ([180.0], [200.0])}
    data = build_recording(
        brainset_id="benchmark", session_id="session", subject_id="subject", simulated=True, splits=splits,
        units={"id": [f"u{i}" for i in range(UNITS)]}, counts=(counts, BIN),
    )  # fmt: skip
    save_recording(data, root / "session.h5")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("launchers"), show_default=True)
@click.option("--epochs", type=int, default=10, show_default=True)
def run(work: Path, epochs: int) -> None:
    """Time both, and print the ratio."""
    work.mkdir(parents=True, exist_ok=True)
    simulate(work / "recordings")
    (work / "eight.yaml").write_text(RECIPE, encoding="utf-8")
    recipe, seconds = read_recipe(str(work / "eight.yaml")), {}
    for workers in (1, 2):
        arguments = {"root": str(work / "recordings"), "epochs": epochs, "workspace": str(work / f"workers{workers}")}
        plan, launcher = settle_experiment(recipe, arguments | {"launcher": "ray", "launcher.workers": workers}, "")
        began = time.monotonic()
        states = run_experiment(plan, launcher)
        seconds[workers] = time.monotonic() - began
        if set(states.values()) != {"done"}:
            raise click.ClickException(f"not all jobs were done: {states}")
    found = {"seconds by workers": seconds, "ratio": seconds[2] / seconds[1], "epochs": epochs}
    write_json(work / "experiment_launchers.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    run()
