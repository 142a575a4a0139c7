"""Are hidden V1 units filled in better than in closed form? Single trials of Hénaff, Bai et al. (Nat. Commun. 2021).

    python benchmarks/masked_henaff.py henaff_v1 --work henaff_masked

Two data sets: the five populations as they were recorded (13 to 53 units that share their noise), and a
pseudo-population of all 168 units, whose trials join the k-th showings of an image to the populations (what they share
is the image). Images are split by seed, 296 for training, 44 for validation, 100 for the test; a window is one trial.
Units are hidden at random. The table holds the mean squared error of hidden units on test trials, in their standard
deviations: the mean over seeds (lowest to highest), and the model's less each baseline's, with its 95 % interval over
windows.
"""

import json
import sys
from pathlib import Path
from statistics import mean

import click
import numpy as np

from neurobridge_tb.jobs.pretrain import pretrain

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from align_henaff_v1 import WINDOW, deal, read, save_trials

BASELINES = {
    "ridge": "ridge from the units kept",
    "factor analysis": "factor analysis",
    "training mean": "training mean",
}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("henaff_masked"), show_default=True)
@click.option("--seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True, help="Of splits and trainings.")
@click.option("--epochs", default=4, show_default=True)
def run(folder: Path, work: Path, seeds: tuple[int, ...], epochs: int) -> None:
    """Train what is not trained yet, and print a Markdown table. FOLDER holds the *_image_sequences.mat files."""
    populations = read(folder)
    ids = populations.pop("ids")
    sets = {
        "five populations": populations,
        "pseudo-population": {"all": np.concatenate([*populations.values()], axis=1)},
    }
    print(f"| | model | {' | '.join(BASELINES)} | less ridge, each seed | less factor analysis, each seed |")
    print("| --- " * (len(BASELINES) + 4) + "|")
    for name, parts in sets.items():
        rows = []
        for seed in seeds:
            here = work / f"{name.replace(' ', '_')}_{seed}"
            for population, counts in parts.items():
                if not (here / "processed" / f"{population}.h5").exists():
                    splits = deal(ids, by_movie=False, seed=seed)
                    save_trials(counts, ids, splits, population, here / "processed" / f"{population}.h5", len(counts))
            if not (here / "run" / "metrics.json").exists():
                pretrain(
                    dataset="binned", root=str(here / "processed"), windows="trial", model="laptop", modality="mua",
                    sequence_length=WINDOW, latent_step=WINDOW, run_dir=str(here / "run"), seed=seed, max_epochs=epochs,
                    **{"masking.temporal": 0, "optimizer.lr": 1e-3, "optimizer.factor_lr": 0},
                )  # fmt: skip
            found = json.loads((here / "run" / "metrics.json").read_text(encoding="utf-8"))["rows"]
            rows.append(next(row for row in found if row["scheme"] == "neuron"))
        errors = [[row["model"] for row in rows], *([row["baselines"][b] for row in rows] for b in BASELINES.values())]
        cells = [f"{mean(each):.4f} ({min(each):.4f}-{max(each):.4f})" for each in errors]
        for baseline in ("ridge", "factor analysis"):
            gains = [row["model less baseline"][BASELINES[baseline]] for row in rows]
            cells.append(", ".join(f"{g['value']:+.4f} ({g['low']:+.4f} to {g['high']:+.4f})" for g in gains))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run()
