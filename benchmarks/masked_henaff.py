"""Are hidden V1 units filled in better than in closed form? Single trials of Hénaff, Bai et al. (Nat. Commun. 2021).

    python benchmarks/masked_henaff.py henaff_v1 --work henaff_masked

A pseudo-population of all 168 units: its trials join the k-th showings of an image to five populations that were
recorded one after the other, so what they share across populations is the image. Images are split by seed, 296 for
training, 44 for validation, 100 for the test; a window is one trial.
Units are hidden at random. The table holds the mean squared error of hidden units on test trials, in their standard
deviations, and the model's less each baseline's, with its 95 % interval over windows.
"""

import json
import sys
from pathlib import Path

import click
import numpy as np

from neurobridge_tb.jobs.pretrain import pretrain

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from align_henaff_v1 import WINDOW, deal, read, save_trials

BASELINES = ("ridge from the units kept", "factor analysis", "training mean")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("henaff_masked"), show_default=True)
@click.option("--seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True, help="Of splits and trainings.")
@click.option("--epochs", default=4, show_default=True)
def run(folder: Path, work: Path, seeds: tuple[int, ...], epochs: int) -> None:
    """Train what is not trained yet, and print a Markdown table. FOLDER holds the *_image_sequences.mat files."""
    populations = read(folder)
    ids = populations.pop("ids")
    counts = np.concatenate([*populations.values()], axis=1)
    rows = []
    for seed in seeds:
        here = work / str(seed)
        if not (here / "processed" / "all.h5").exists():
            splits = deal(ids, by_movie=False, seed=seed)
            save_trials(counts, ids, splits, "all", here / "processed" / "all.h5", len(counts))
        if not (here / "run" / "metrics.json").exists():
            pretrain(
                dataset="binned", root=str(here / "processed"), windows="trial", model="laptop", modality="mua",
                sequence_length=WINDOW, latent_step=WINDOW, run_dir=str(here / "run"), seed=seed, max_epochs=epochs,
                **{"masking.temporal": 0, "optimizer.lr": 1e-3, "optimizer.factor_lr": 0},
            )  # fmt: skip
        found = json.loads((here / "run" / "metrics.json").read_text(encoding="utf-8"))["rows"]
        rows.append(next(row for row in found if row["scheme"] == "neuron"))
    print("| seed | model | " + " | ".join(f"{b} | less it" for b in BASELINES) + " |")
    print("| --- " * (2 + 2 * len(BASELINES)) + "|")
    for seed, row in zip(seeds, rows, strict=True):
        cells = []
        for name in BASELINES:
            gain = row["model less baseline"][name]
            cells += [f"{row['baselines'][name]:.4f}"]
            cells += [f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"]
        print(f"| {seed} | {row['model']:.4f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run()
