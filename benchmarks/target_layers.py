"""Which layer of the image network should activity be aligned to? Two calibrated animals, three seeds each (simulated).

    neurobridge embed images=photos out=photos_lite2.h5 encoder=timm:tf_efficientnet_lite2 image_size=96 \
        layers=[blocks.1@4x4,blocks.2@4x4,blocks.3@4x4,blocks.4@4x4,blocks.5@2x2,final]
    python benchmarks/target_layers.py photos photos_lite2.h5 --work layers

``photos`` holds a folder a class, 22,348 photos or more in all for TVSD's size. The animals are made of
EfficientNet-Lite0; the targets are layers of EfficientNet-Lite2. They differ in the noise of their trials: ridge to the
final layer stands near .65 top-1 for the easy one and near .40 for the hard one. Compared by cosine, less the training
mean, among the 100 test images:

- *ridge*: ridge regression from responses to the layer, as in `evaluate`;
- *linear start*: its predictions times the inverse covariance of its errors, as `align` begins, from responses;
- *MLP* (``--mlp``): to the layer that is the best of the linear start on validation presentations.

Penalty, shrinkage and the weights of all layers together are the best on validation presentations. Each animal is
decoded with and without the test images' concepts in training. What is done already, in ``<work>/target_layers.json``,
is not done again.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.estimators.mlp import fit_mlp
from neurobridge_tb.estimators.similarity_weights import fit_similarity_weights
from neurobridge_tb.files import write_json
from neurobridge_tb.metrics.retrieval import cosine_similarity, retrieval_rows
from neurobridge_tb.simulation.recording import draw_design, record
from neurobridge_tb.simulation.shown_images import choose_photos, load_images
from neurobridge_tb.simulation.ventral_stream import VentralStream

ANIMALS = {"easy": 0.35, "hard": 0.85}  # noise
DIFFICULTY, VALID_SHARE, FOLDS = 1.0, 0.05, 5
PENALTIES, SHRINKAGES = np.geomspace(300, 100_000, 7), (10.0, 3.0, 1.0, 0.3)
Array = np.ndarray


def simulate(photos: Path, work: Path, seed: int, noise: float) -> tuple[list[str], list[str], Array, Array]:
    """Ids of training and test images, responses (n, 1024) and (30, 100, 1024), simulated."""
    train, test = choose_photos(
        photos, n_concepts=1854, images_per_concept=12, n_test=100, rng=np.random.default_rng([seed, 10])
    )
    stream = VentralStream("F", seed, DIFFICULTY)
    path = work / f"drive{seed}.npy"  # without noise: the same for both animals
    if not path.exists():
        np.save(path, stream.drive(load_images(photos, train + test, 64)))
    design = draw_design(len(train), len(test), 30, np.random.default_rng([seed, 11]))
    recording = record(
        np.load(path), stream.electrodes, design, monkey="F", noise=noise, rng=np.random.default_rng([seed, 12])
    )
    values, (train_rows, test_rows) = recording.normalised(), design.rows()
    return train, test, values[train_rows].reshape(len(train), -1), values[test_rows]


class Decoders:
    """Ridge regressions of one animal's responses on any target, from one set of normal equations.

    Args:
        x: (n, units) training responses.
        seed: Of the folds.
    """

    def __init__(self, x: Array, seed: int):
        self.inputs = Standardizer.fit(x)
        self.x = self.inputs(x).astype(np.float32)
        self.fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
        self.grams = [self.x[self.fold == k].T @ self.x[self.fold == k] for k in range(FOLDS)]
        self.values, self.vectors = np.linalg.eigh(sum(self.grams).astype(np.float64))

    def fit(self, y: Array, x_valid: Array, y_valid: Array) -> tuple[Array, Array]:
        """Weights (units, d) with the penalty of least error on the validation set; residuals (n, d) out of sample."""
        moments = [self.x[self.fold == k].T @ y[self.fold == k] for k in range(FOLDS)]
        total, v = sum(moments), self.vectors.astype(np.float32)
        projected, scores = v.T @ total, self.inputs(x_valid).astype(np.float32) @ v

        def error(penalty: float) -> float:
            gain = (1 / (self.values + penalty)).astype(np.float32)
            return float(((scores * gain @ projected - y_valid) ** 2).sum())

        best = min(PENALTIES, key=error)
        residuals = np.empty_like(y)
        for k in range(FOLDS):
            held = self.fold == k
            left = sum(self.grams) - self.grams[k] + np.float32(best) * np.eye(len(v), dtype=np.float32)
            residuals[held] = y[held] - self.x[held] @ np.linalg.solve(left, total - moments[k])
        return (v * (1 / (self.values + best)).astype(np.float32)) @ projected, residuals


def decode(splits: dict[str, tuple[Array, list[str]]], cache: EmbeddingCache, seed: int, mlp: bool) -> dict[str, Any]:
    """Rows by target layer and of all layers together."""
    (x, ids), (x_valid, valid_ids) = splits["train"], splits["valid"]
    trials, test_ids = splits["test"]
    decoders, own = Decoders(x, seed), np.arange(len(valid_ids))
    queries = [decoders.inputs(r).astype(np.float32) for r in (x_valid, np.nanmean(trials, 0), np.concatenate(trials))]
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[tuple[list[Array], Array]]] = {"ridge": [], "linear start": []}
    losses: dict[str, float] = {}

    def unit(values: Array) -> Array:
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    def score(model: str, layer: str, of_test: list[Array], images: Array) -> None:
        for predicted in (of_test[0], of_test[1].reshape(len(trials), len(test_ids), -1)):
            rows.append(retrieval_rows(predicted, images, model=model, seed=seed)[0] | {"layer": layer})

    for layer in cache.layers:
        y, y_valid, images = (cache.lookup(i)[:, cache.columns(layer)].numpy() for i in (ids, valid_ids, test_ids))
        mean, std = y.mean(0), y.std(0)
        std = np.maximum(std, 0.1 * np.median(std))  # as in `align`
        y, y_valid, images = (((part - mean) / std).astype(np.float32) for part in (y, y_valid, images))
        weights, residuals = decoders.fit(y, x_valid, y_valid)
        residuals *= std
        covariance = residuals.T @ residuals / len(residuals)
        level = np.trace(covariance) / len(covariance)
        maps = {np.inf: np.diag(std)} | {
            s: std[:, None] * np.linalg.inv(covariance / level + s * np.eye(len(std), dtype=np.float32))
            for s in SHRINKAGES
        }
        found = {}
        for shrinkage, of_errors in maps.items():
            predicted = [q @ (weights @ of_errors) for q in queries]
            similar = cosine_similarity(predicted[0], y_valid * std)
            found[shrinkage] = fit_similarity_weights([similar[..., None]], [own]).loss, predicted, similar
        chosen = min(SHRINKAGES, key=lambda s: found[s][0])
        losses[layer] = found[chosen][0]
        for model, (_, predicted, similar) in (("ridge", found[np.inf]), ("linear start", found[chosen])):
            score(model, layer, predicted[1:], images * std)
            kept[model].append(([unit(p) for p in (*predicted[1:], images * std)], similar))
    weighted = {}
    for model, parts in kept.items():
        fit = fit_similarity_weights([np.stack([similar for _, similar in parts], -1)], [own])
        weighted[model] = dict(zip(cache.layers, fit.weights.tolist(), strict=True))
        together = [
            np.concatenate([w**0.5 * p[k] for w, (p, _) in zip(fit.weights, parts, strict=True)], 1) for k in range(3)
        ]
        score(model, "all", together[:2], together[2])
    best = min(losses, key=losses.__getitem__)
    for layer in (best, "final") if mlp else ():
        columns = cache.columns(layer)
        mean = cache.lookup(ids)[:, columns].mean(0)
        y, y_valid, images = ((cache.lookup(i)[:, columns] - mean).numpy() for i in (ids, valid_ids, test_ids))
        network = fit_mlp(x, y, x_valid, y_valid, seed=seed)
        score("MLP", layer, [network.predict(np.nanmean(trials, 0)), network.predict(np.concatenate(trials))], images)
    return {"best layer": best, "weights": weighted, "training pairs": len(ids), "rows": rows}


def table(results: dict[str, Any]) -> list[str]:
    """Markdown: the mean over seeds with its 95 % interval; half-widths add in squares."""
    grouped: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for key, result in results.items():
        animal, concepts, _ = key.split("/")
        for row in result["rows"]:
            grouped.setdefault((animal, concepts, row["trials"], row["layer"], row["model"]), []).append(row["top1"])
    lines = ["| animal | test concepts | queries | layer | decoder | top-1 of each | mean |", "| --- " * 7 + "|"]
    for name, scores in grouped.items():
        mean = sum(s["value"] for s in scores) / len(scores)
        half = sum(((s["high"] - s["low"]) / 2) ** 2 for s in scores) ** 0.5 / len(scores)
        each = ", ".join(f"{s['value']:.2f}" for s in scores)
        lines.append(f"| {' | '.join(name)} | {each} | {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}] |")
    return lines


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.argument("embeddings", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("layers"), show_default=True)
@click.option("--seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--mlp/--no-mlp", default=True, show_default=True)
def run(photos: Path, embeddings: Path, work: Path, seeds: tuple[int, ...], mlp: bool) -> None:
    """Simulate and decode what has not been decoded, and write the table."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    path = work / "target_layers.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    cache = EmbeddingCache.load(embeddings)
    for seed, (animal, noise), concepts in product(seeds, ANIMALS.items(), ("in training", "excluded")):
        key = f"{animal}/{concepts}/{seed}"
        if key in results:
            continue
        train, test, values, of_test = simulate(photos, work, seed, noise)
        valid = np.zeros(len(train), bool)
        valid[np.random.default_rng(seed).permutation(len(train))[: round(VALID_SHARE * len(train))]] = True
        tested = {id_.partition("/")[0] for id_ in test} if concepts == "excluded" else set()
        used = np.array([id_.partition("/")[0] not in tested for id_ in train])
        ids = np.array(train)
        splits = {name: (values[rows], ids[rows].tolist()) for name, rows in
                  (("train", used & ~valid), ("valid", used & valid))} | {"test": (of_test, test)}  # fmt: skip
        results[key] = decode(splits, cache, seed, mlp and concepts == "in training")
        write_json(path, results)
        print(key, results[key]["best layer"], flush=True)
    lines = ["# Target layers (simulated)", "", *table(results)]
    (work / "target_layers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    run()
