"""The calibrated virtual monkey: commands from photos to retrieval, and a table of what came out.

    python benchmarks/virtual_monkey.py photos --work vm                # three animals, everything
    python benchmarks/virtual_monkey.py photos --work vm --seeds 0      # one animal

``photos`` holds a folder a class, 22,348 photos or more in all for TVSD's size. Every animal is simulated, prepared and
pretrained, and then aligned on 1 %, 10 % and all of the training pairs:

- *pretrained*: from what pretraining learnt of all training responses without their images: weights, and factors;
- *random*: from random weights and nothing else.

What is done already is not done again. Writes ``<work>/virtual_monkey.md``, with the difference that pretraining makes
on the very same queries; all of it is simulated.
"""

import json
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import click
import numpy as np
from few_pairs import hits

from neurobridge_tb.metrics.retrieval import bootstrap_interval

ENCODERS = {"pretrained": ["optimizer.lr=3e-3", "trainer.max_epochs=1"],
            "random": ["optimizer.lr=0", "trainer.max_epochs=1", "+trainer.limit_train_batches=1",
                       "factor_start=false"],
            }  # fmt: skip
EPOCHS = {"0.01": 20, "0.1": 6, "1.0": 1}  # of alignment


def commands(photos: Path, work: Path, seed: int, difficulty: float, noise: float) -> dict[Path, list[str]]:
    """The commands of one animal, by the file that each leaves behind."""
    animal, embeddings = work / f"animal{seed}", work / "embeddings.h5"
    data = [f"dataset.root={animal}/processed", f"seed={seed}"]
    quiet = "trainer.enable_progress_bar=false"
    made = {
        embeddings: ["neurobridge", "embed", str(photos), "--out", str(embeddings), "--image-size", "128"],
        animal / "raw/tvsd/monkeyF/THINGS_normMUA.mat": ["neurobridge", "simulate", str(animal)]
        + ["--images", str(photos), "--concepts", "1854", "--seed", str(seed)]
        + ["--difficulty", str(difficulty), "--noise", str(noise)],
        animal / "processed/tvsd/monkeyF_norm.h5": ["brainsets", "prepare", "tvsd", "--single", "monkeyF_norm"]
        + ["--raw-dir", f"{animal}/raw", "--processed-dir", f"{animal}/processed"],
    }
    for encoder, options in ENCODERS.items():
        run = animal / "runs" / encoder
        made[run / "metrics.json"] = ["neurobridge", "pretrain", *data, "model=laptop"]
        made[run / "metrics.json"] += [f"run_dir={run}", *options, quiet]
    for encoder, share in product(ENCODERS, EPOCHS):
        aligned, evaluated = animal / "runs" / f"align_{encoder}_{share}", _evaluated(work, seed, encoder, share)
        common = [*data, f"embeddings={embeddings}", f"train_share={share}"]
        made[aligned / "metrics.json"] = [
            "neurobridge", "align", *common, f"pretrained={animal}/runs/{encoder}/model", f"run_dir={aligned}",
            f"stage1.epochs={EPOCHS[share]}", "stage2.epochs=0", quiet,
        ]  # fmt: skip
        made[evaluated / "retrieval.json"] = [
            "neurobridge", "evaluate", *common, f"aligned={aligned}", f"run_dir={evaluated}",
        ]  # fmt: skip
    return made


def _evaluated(work: Path, seed: int, encoder: str, share: str) -> Path:
    return work / f"animal{seed}" / "runs" / f"evaluate_{encoder}_{share}"


def table(work: Path, seeds: list[int]) -> list[str]:
    """Markdown: for each share of the pairs and each row, top-1 of every animal, and the mean with its interval.

    Animals see other test images, so half-widths of intervals add in quadrature.
    """
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for seed, encoder, share in product(seeds, ENCODERS, EPOCHS):
        path = _evaluated(work, seed, encoder, share) / "retrieval.json"
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            ours = row["model"].startswith("NeuroBridge")
            if row["direction"] == "neural to image" and (ours or encoder == "pretrained"):  # baselines once
                name = f"{row['model']}, {encoder}" if ours else row["model"]
                found.setdefault((share, row["trials"], name), []).append(row["top1"])
    lines = ["| training pairs | queries | decoder | top-1 of each animal | mean |", "| --- | --- | --- | --- | --- |"]
    for (share, trials, name), scores in sorted(found.items(), key=lambda item: item[0][:2]):
        each = "; ".join(f"{s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}]" for s in scores)
        mean = sum(s["value"] for s in scores) / len(scores)
        half = math.hypot(*((s["high"] - s["low"]) / 2 for s in scores)) / len(scores)
        lines.append(
            f"| {100 * float(share):g} % | {trials} | {name} | {each} "
            f"| {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}] |"
        )
    return lines


def _hits(animal: Path, encoder: str, share: str) -> dict[str, np.ndarray]:
    return hits(
        str(animal / "processed"), str(animal.parent / "embeddings.h5"), animal / "runs" / f"align_{encoder}_{share}"
    )


def differences(work: Path, seeds: list[int]) -> list[str]:
    """Markdown: top-1 of the pretrained less that of the random encoder, image by image, over all animals."""
    lines = ["| training pairs | queries | pretrained less random | of each animal |", "| --- | --- | --- | --- |"]
    for share in EPOCHS:
        both = [[_hits(work / f"animal{seed}", encoder, share) for encoder in ENCODERS] for seed in seeds]
        for trials in ("repeat average", "single trial"):
            gain = [pretrained[trials] - random[trials] for pretrained, random in both]
            low, high = bootstrap_interval(np.concatenate(gain))
            each = ", ".join(f"{g.mean():+.3f}" for g in gain)
            mean = np.concatenate(gain).mean()
            lines.append(f"| {100 * float(share):g} % | {trials} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] | {each} |")
    return lines


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("vm"), show_default=True)
@click.option("--seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True, help="One animal each.")
@click.option("--difficulty", default=1.0, show_default=True)
@click.option("--noise", default=0.45, show_default=True)
def run(photos: Path, work: Path, seeds: tuple[int, ...], difficulty: float, noise: float) -> None:
    """Run what has not been run, and write the table."""
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    for seed in seeds:
        for result, command in commands(photos, work, seed, difficulty, noise).items():
            if not result.exists():
                print(" ".join(command), flush=True)
                subprocess.run([str(programs / command[0]), *command[1:]], check=True, env=environment)
    lines = [
        "# Calibrated virtual monkey (simulated)",
        "",
        *table(work, list(seeds)),
        "",
        *differences(work, list(seeds)),
    ]
    (work / "virtual_monkey.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    run()
