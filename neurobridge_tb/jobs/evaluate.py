"""Retrieval of the test images from neural activity, beside its baselines."""

from pathlib import Path
from typing import Any

import numpy as np

from neurobridge_tb.alignment.source import describe_source
from neurobridge_tb.configs.evaluate import EvaluateConfig
from neurobridge_tb.data.responses import copied_test_images, pair_splits, shared_test_images, shown_elsewhere
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import find_device, place
from neurobridge_tb.engine.aligned import check_same_pairs, load_aligned, unfinished
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.files import write_json
from neurobridge_tb.metrics.retrieval import chance
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.queries import Queries
from neurobridge_tb.scoring.retrieval_tables import retrieval_tables

_STAGES = {"linear start": "model_start", "stage 1": "model_stage1", "stage 2": "model"}  # folders of an alignment run


def evaluate(config: EvaluateConfig | None = None, /, **settings: Any) -> Path:
    """Write ``retrieval.json``, and hits image by image to ``queries.npz``; returns the run folder.

    Rows: NeuroBridge as it starts in closed form, after stage 1 and after stage 2, ridge, an MLP, ridge on shuffled
    labels, and noise ceilings (one half of an image's repeats finds the other half). All are compared in the image
    encoder's space, over all layers of the alignment and by each alone. Responses averaged over repeats, and single
    trials.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`EvaluateConfig`.
        **settings: Settings by name, e.g. ``root="processed", embeddings="embeddings.h5"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(EvaluateConfig, config, settings)
    dataset = open_dataset(config.dataset)
    model, cache = load_aligned(config.aligned, config.embeddings)
    check_same_pairs(config, "exclude_test_concepts", "train_share")
    stages = {}
    for name, folder in _STAGES.items():
        if (Path(config.aligned) / folder).exists():
            stages[f"NeuroBridge, {name}"] = place(ImageAligner.load_pretrained(Path(config.aligned) / folder), config)
    if "NeuroBridge, stage 1" not in stages:  # there was one stage only
        stages["NeuroBridge"] = stages.pop("NeuroBridge, stage 2")
    by_layer: dict[str, list[dict[str, Any]]] = {}
    by_area: dict[str, list[dict[str, Any]]] = {}
    options: dict[str, Any] = {"resamples": config.resamples, "permutations": config.permutations, "seed": config.seed}
    options["device"] = find_device(config.device)
    notes = [note] if (note := unfinished(config.aligned)) else []
    surplus, shared, candidates, shown, queries = 0, 0, {}, {}, Queries()
    for recording_id in dataset.recording_ids:
        say(f"Retrieval from {recording_id}, beside its baselines")
        splits = pair_splits(dataset, model.encoder, recording_id, config, over_steps=True)
        shared += len({*shared_test_images(splits), *copied_test_images(splits, cache)})
        shown[recording_id] = {split: responses.image_ids for split, responses in splits.items()}
        surplus += len(splits["test"].values) - splits["test"].by_repeat().size
        name = f" ({recording_id})" if len(dataset.recording_ids) > 1 else ""
        test_images = np.unique(splits["test"].image_ids).tolist()
        candidates[recording_id] = len(test_images)
        for layer, rows in retrieval_tables(splits, stages, cache, suffix=name, **options).items():
            rows = queries.take(rows, test_images)
            by_layer.setdefault(layer, []).extend(rows)
        for area in np.unique(splits["train"].areas) if config.per_area else ():
            of_area = {split: responses.only([area]) for split, responses in splits.items()}
            tables = retrieval_tables(of_area, stages, cache, suffix=name, **options)
            by_area.setdefault(str(area), []).extend(Queries().take(tables["all layers"], test_images))
    first = next(iter(candidates.values()))
    if shared:
        notes.append(f"{shared} of the test images are trained on too: what is found again may be learnt by heart.")
    if elsewhere := sum(map(len, shown_elsewhere(shown).values())):
        notes.append(f"{elsewhere} test images of one recording are trained on in another.")
    if surplus:
        notes.append(f"{surplus} test presentations of images shown more often than others are in averages only.")
    queries.save(Path(config.run_dir))
    write_json(
        Path(config.run_dir) / "retrieval.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "n_candidates": first,  # of the first recording, whose rows come first
            "chance": chance(first),
            "recordings": {r: {"n_candidates": n, "chance": chance(n)} for r, n in candidates.items()},
            "areas": list(config.areas) if config.areas else None,
            "time_window": list(config.time_window) if config.time_window else None,
            "test concepts in training": not config.exclude_test_concepts,
            "test images in training": shared,
            "notes": notes,
            "train_share": config.train_share,
            "embeddings": describe_source(cache.encoder, cache.preprocessing_hash),
            "layer weights": dict(zip(model.layers, model.layer_weights.tolist(), strict=True)),
            "rows": by_layer.pop("all layers"),
            "rows by layer": by_layer,
            "rows by area": by_area,
        },
    )
    return Path(config.run_dir)
