"""Retrieval of the test images from neural activity, beside its baselines."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.evaluation.baselines import shuffled
from neurobridge_tb.evaluation.mlp import fit_mlp
from neurobridge_tb.evaluation.retrieval import chance, retrieval_rows, split_half_row
from neurobridge_tb.evaluation.ridge import fit_ridge
from neurobridge_tb.files import write_json
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.responses import Responses, collect_responses, embed_responses


def load_aligned(run: str | Path, embeddings: str | Path) -> tuple[ImageAligner, EmbeddingCache]:
    """The final model of an alignment run, and embeddings of the encoder that it was aligned with."""
    model = ImageAligner.load_pretrained(Path(run) / "model")
    cache = EmbeddingCache.load(embeddings, model.config["image_encoder"], model.config["preprocessing_hash"])
    return model, cache


def evaluate(config: DictConfig) -> Path:
    """Write ``retrieval.json``; returns the run folder.

    Rows: NeuroBridge after stage 1 and after stage 2, ridge, an MLP, ridge on shuffled labels, and the noise ceiling
    (one half of an image's repeats finds the other half). All are compared in the image encoder's space, less the mean
    training embedding. Responses averaged over repeats, and single trials.

    Args:
        config: ``configs/evaluate.yaml`` with its overrides.
    """
    dataset = open_dataset(config)
    model, cache = load_aligned(config.aligned, config.embeddings)
    stages = {"NeuroBridge": model}
    stage1 = Path(config.aligned) / "model_stage1"
    if stage1.exists():
        stages = {"NeuroBridge, stage 1": ImageAligner.load_pretrained(stage1), "NeuroBridge, stage 2": model}
    rows: list[dict[str, Any]] = []
    for recording_id in dataset.recording_ids:
        splits = {s: collect_responses(dataset, model.encoder, recording_id, s) for s in ("train", "valid", "test")}
        found = _recording_rows(splits, stages, cache, config)
        many = len(dataset.recording_ids) > 1
        rows += [row | {"model": f"{row['model']} ({recording_id})"} if many else row for row in found]
    n_images = len(np.unique(splits["test"].image_ids))
    write_json(
        Path(config.run_dir) / "retrieval.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "n_candidates": n_images,
            "rows": rows,
            "chance": chance(n_images),
        },
    )
    return Path(config.run_dir)


def _recording_rows(
    splits: dict[str, Responses], stages: dict[str, ImageAligner], cache: EmbeddingCache, config: DictConfig
) -> list[dict[str, Any]]:
    model = next(iter(stages.values()))

    def space(ids: np.ndarray) -> np.ndarray:
        return model.center(cache.lookup(list(ids))).numpy()

    train, valid, test = splits["train"], splits["valid"], splits["test"]
    averaged, order = test.averaged(), test.by_repeat()
    images = space(averaged.image_ids)
    train_space, valid_space = space(train.image_ids), space(valid.image_ids)
    baselines: dict[str, Any] = {
        "ridge": fit_ridge(train.features, train_space, valid.features, valid_space),
        "MLP": fit_mlp(train.features, train_space, valid.features, valid_space),
        "ridge, shuffled labels": fit_ridge(
            train.features, shuffled(train_space, seed=config.seed), valid.features, valid_space
        ),
    }
    predictions = {
        name: [embed_responses(aligner, responses)[0].numpy() for responses in (averaged, test)]
        for name, aligner in stages.items()
    } | {name: [fit.predict(r.features) for r in (averaged, test)] for name, fit in baselines.items()}
    rows = []
    for name, (of_average, of_trials) in predictions.items():
        for predicted in (of_average, of_trials[order]):
            rows += retrieval_rows(predicted, images, model=name, resamples=config.resamples, seed=config.seed)
    return [*rows, split_half_row(test.features[order], resamples=config.resamples, seed=config.seed)]
