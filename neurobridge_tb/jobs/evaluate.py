"""Retrieval of the test images from neural activity, beside its baselines."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.responses import Responses, embed_responses, pair_splits
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.engine.aligned import check_same_pairs, load_aligned
from neurobridge_tb.engine.config import open_dataset
from neurobridge_tb.estimators.controls import shuffled
from neurobridge_tb.estimators.mlp import fit_mlp
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.files import write_json
from neurobridge_tb.metrics.retrieval import chance, retrieval_rows, split_half_row
from neurobridge_tb.models import ImageAligner

_STAGES = {"linear start": "model_start", "stage 1": "model_stage1", "stage 2": "model"}  # folders of an alignment run


def evaluate(config: DictConfig) -> Path:
    """Write ``retrieval.json``; returns the run folder.

    Rows: NeuroBridge as it starts in closed form, after stage 1 and after stage 2, ridge, an MLP, ridge on shuffled
    labels, and the noise ceiling (one half of an image's repeats finds the other half). All are compared in the image
    encoder's space, less the mean training embedding. Responses averaged over repeats, and single trials.

    Args:
        config: ``configs/evaluate.yaml`` with its overrides.
    """
    dataset = open_dataset(config)
    model, cache = load_aligned(config.aligned, config.embeddings)
    check_same_pairs(config, "exclude_test_concepts", "train_share")
    stages = {}
    for name, folder in _STAGES.items():
        if (Path(config.aligned) / folder).exists():
            stages[f"NeuroBridge, {name}"] = ImageAligner.load_pretrained(Path(config.aligned) / folder)
    if "NeuroBridge, stage 1" not in stages:  # there was one stage only
        stages["NeuroBridge"] = stages.pop("NeuroBridge, stage 2")
    rows: list[dict[str, Any]] = []
    by_area: dict[str, list[dict[str, Any]]] = {}
    for recording_id in dataset.recording_ids:
        splits = pair_splits(dataset, model.encoder, recording_id, config)
        name = f" ({recording_id})" if len(dataset.recording_ids) > 1 else ""
        rows += _recording_rows(splits, stages, cache, config, name)
        for area in np.unique(splits["train"].areas) if config.per_area else ():
            of_area = {split: responses.only([area]) for split, responses in splits.items()}
            by_area.setdefault(str(area), []).extend(_recording_rows(of_area, stages, cache, config, name))
    n_images = len(np.unique(splits["test"].image_ids))
    write_json(
        Path(config.run_dir) / "retrieval.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "n_candidates": n_images,
            "areas": list(config.areas) if config.areas else None,
            "time_window": list(config.time_window) if config.time_window else None,
            "test concepts in training": not config.exclude_test_concepts,
            "train_share": config.train_share,
            "rows": rows,
            "rows by area": by_area,
            "chance": chance(n_images),
        },
    )
    return Path(config.run_dir)


def _recording_rows(
    splits: dict[str, Responses], stages: dict[str, ImageAligner], cache: EmbeddingCache, config: DictConfig, name: str
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
    for model_name, (of_average, of_trials) in predictions.items():
        for predicted in (of_average, of_trials[order]):
            rows += retrieval_rows(
                predicted,
                images,
                model=model_name + name,
                resamples=config.resamples,
                permutations=config.permutations,
                seed=config.seed,
            )
    if len(order) > 1:
        ceiling = split_half_row(test.features[order], resamples=config.resamples, seed=config.seed)
        rows.append(ceiling | {"model": ceiling["model"] + name})
    return rows
