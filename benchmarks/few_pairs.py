"""What pretraining brings where pairs of responses and images are few: aligned from pretrained and random weights.

    neurobridge pretrain dataset.root=easy/processed model=laptop run_dir=runs/pretrained
    neurobridge pretrain dataset.root=easy/processed model=laptop run_dir=runs/random \\
        trainer.max_epochs=0 factor_start=false
    python benchmarks/few_pairs.py easy/processed embeddings.h5 runs/pretrained runs/random --work few

The same training pairs and the same test queries for both. What is aligned is the start in closed form,
without training on top; it reads the encoder's factors or the responses, whichever finds more in cross-validation.
Prints top-1 from activity to image, and the paired difference with its 95 % bootstrap interval over test
images. What is aligned already is not aligned again.
"""

from pathlib import Path

import click
import numpy as np

from neurobridge_tb.data.responses import collect_responses, embed_responses
from neurobridge_tb.datasets import Tvsd
from neurobridge_tb.engine.aligned import load_aligned
from neurobridge_tb.jobs.align import align
from neurobridge_tb.metrics.retrieval import bootstrap_interval, cosine_similarity, topk_hits


def hits(root: str, embeddings: str, aligned: Path) -> dict[str, np.ndarray]:
    """For each test image, whether its averaged response finds it, and the share of its trials that do."""
    dataset = Tvsd(root=root)
    aligner, cache = load_aligned(aligned, embeddings)
    (recording_id,) = dataset.recording_ids
    test = collect_responses(dataset, aligner.encoder, recording_id, "test")
    images = aligner.center(cache.lookup(list(np.unique(test.image_ids))))
    found = {}
    for trials, responses in (("repeat average", test.averaged()), ("single trial", test)):
        predicted = embed_responses(aligner, responses)[0]
        order = responses.by_repeat()
        found[trials] = np.mean([topk_hits(cosine_similarity(predicted[rows], images), 1) for rows in order], axis=0)
    return found


@click.command()
@click.argument("root")
@click.argument("embeddings")
@click.argument("pretrained", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("random", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("few_pairs"), show_default=True)
@click.option("--layer", default="blocks.3@4x4", show_default=True, help="Target, one of the embeddings' layers.")
@click.option("--shares", type=float, multiple=True, default=(0.01, 0.1, 1.0), show_default=True)
def run(
    root: str,
    embeddings: str,
    pretrained: Path,
    random: Path,
    work: Path,
    layer: str,
    shares: tuple[float, ...],
) -> None:
    """Print a Markdown table. ROOT: processed recordings; PRETRAINED, RANDOM: runs of `neurobridge pretrain`."""
    print("| pairs | queries | pretrained | random weights | difference |\n| --- | --- | --- | --- | --- |")
    for share in shares:
        found = []
        for run_dir in (pretrained, random):
            aligned = work / f"{run_dir.name}_{layer}_{share}"
            if not (aligned / "metrics.json").exists():
                align(
                    dataset="tvsd", pretrained=str(run_dir / "model"), embeddings=embeddings, layers=[layer],
                    train_share=share, run_dir=str(aligned),
                    **{"dataset.root": root, "stage1.epochs": 0, "stage2.epochs": 0},
                )  # fmt: skip
            found.append(hits(root, embeddings, aligned))
        for queries in ("repeat average", "single trial"):
            ours, theirs = (of_run[queries] for of_run in found)
            low, high = bootstrap_interval(ours - theirs)
            print(
                f"| {100 * share:g} % | {queries} | {ours.mean():.3f} | {theirs.mean():.3f} "
                f"| {(ours - theirs).mean():+.3f} ({low:+.3f} to {high:+.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    run()
