"""Pictures of the test images from neural activity, beside baselines, with metrics."""

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.alignment.source import describe_source
from neurobridge_tb.arrays import Standardizer, row_blocks
from neurobridge_tb.configs.reconstruct import ReconstructConfig, StableDiffusionConfig
from neurobridge_tb.data.responses import Responses, embed_responses, pair_splits, shared_test_images
from neurobridge_tb.datasets import StimulusImages, is_simulated
from neurobridge_tb.devices import compute, computing_dtype, find_device, place
from neurobridge_tb.engine.aligned import (
    check_same_pairs,
    is_independent,
    load_aligned,
    load_target_encoder,
    unfinished,
)
from neurobridge_tb.engine.config import check_name, open_dataset, settle
from neurobridge_tb.engine.pictures.code_reading import read_codes
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.controls import mean_image
from neurobridge_tb.files import write_aside, write_json
from neurobridge_tb.generation import NearestImage, RidgePixels, generator_names, load_generator
from neurobridge_tb.generation.base import check_source
from neurobridge_tb.generation.folders import trained_on
from neurobridge_tb.metrics.feature_networks import feature_networks
from neurobridge_tb.metrics.image_metrics import SeenImages
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.masked.target_context import nearest_training_images, predictability

_CIRCULAR = (
    "The network that judges the pictures is also the target, or the one that they are drawn by: its columns flatter "
    "everything that is drawn or chosen by its features."
)


def reconstruct(config: ReconstructConfig | None = None, /, **settings: Any) -> Path:
    """Write ``reconstructions.h5`` and ``metrics.json``; returns the run folder.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`ReconstructConfig`.
        **settings: Settings by name, e.g. ``root="processed", images="images"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(ReconstructConfig, config, settings)
    for module in config.modules:
        import_module(module)
    unknown = [name for name in config.backends if name not in generator_names()]
    if unknown:
        raise InputError(
            expected=f"backends among {', '.join(generator_names())}",
            found=", ".join(unknown),
            fix="Correct `backends`, or name the module that registers yours in `modules`.",
        )
    for name in config.options:
        check_name(name, config.backends, what="options of one of the backends", fix="Correct `options` or `backends`.")
    dataset = open_dataset(config.dataset)
    if len(dataset.recording_ids) != 1:
        raise InputError(
            expected="one recording to reconstruct from",
            found=", ".join(dataset.recording_ids),
            fix="Choose one with dataset.recording_ids=[...].",
        )
    model, cache = load_aligned(config.aligned, config.embeddings)
    check_same_pairs(config, "areas", "time_window", "exclude_test_concepts", "train_share")
    place(model, config)
    device = find_device(config.device)
    judge = load_image_encoder(config.judge.encoder, config.judge.image_size, device)  # in float32, whatever precision
    if config.candidates < 1:
        raise InputError(expected="candidates of 1 or more", found=f"{config.candidates}", fix="Draw one at least.")
    say("Reading the responses")
    splits = pair_splits(dataset, model.encoder, dataset.recording_ids[0], config, over_steps=True)
    train, test = splits["train"], splits["test"].averaged()
    stimuli = StimulusImages(config.images, [*train.image_ids, *test.image_ids])
    remembered = _check_decoders(config, stimuli.fingerprints(list(test.image_ids)))
    train_images = stimuli.load(list(train.image_ids), config.image_size)
    seen = stimuli.load(list(test.image_ids), config.image_size)

    say(f"Drawing {len(test.values)} images: {', '.join(config.backends)}")
    pictures, predicted = _generate(config, model, cache, train, train_images, test)
    guides = [cache.encoder]
    if "flow" in config.backends:
        drawn, guide = _draw(config, train, splits["test"])
        pictures |= drawn
        guides.append(guide)
    truth, mean = cache.lookup(list(test.image_ids)), model.embedding_mean.cpu()
    near, cosine = nearest_training_images(
        compute(model.center, truth),
        compute(model.center, cache.lookup(list(train.image_ids))),
        _channels_last(seen),
        _channels_last(train_images),
    )
    with write_aside(Path(config.run_dir) / "reconstructions.h5") as aside, h5py.File(aside, "w") as file:
        file.create_dataset("image_id", data=list(test.image_ids), dtype=h5py.string_dtype())
        file["seen"] = _channels_last(seen)
        file["cosine"] = torch.cosine_similarity(predicted - mean, truth - mean)
        file["nearest_training_cosine"] = cosine
        for name, samples in pictures.items():
            file[name] = _channels_last(samples)
    say("Comparing the pictures with what was seen")
    shown = SeenImages(_channels_last(seen), feature_networks(encoder=judge, device=device))
    rows: list[dict[str, Any]] = []
    for name, samples in {**pictures, "mean training image": _mean(train_images, len(seen))}.items():
        metrics, unavailable = shown.compare(_channels_last(samples)[:, 0])
        rows.append({"backend": name, "metrics": metrics, "unavailable": unavailable})
    independent = is_independent(judge.name, guides)
    write_json(
        Path(config.run_dir) / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "areas": list(config.areas) if config.areas else None,
            "rows": rows,
            "chance": {"two-way": 0.5, "top-1": 1 / len(seen)},
            "judge": {"network": describe_source(judge.name, judge.preprocessing_hash), "independent": independent},
            "notes": [_CIRCULAR] * (not independent) + ([note] if (note := unfinished(config.aligned)) else []),
            "test concepts in training": not config.exclude_test_concepts,
            "test images in training": len(shared_test_images(splits)),
            "test images in decoders' training": remembered,
            "target": describe_source(cache.encoder, cache.preprocessing_hash),
            "predictability": predictability(predicted, truth, model.layers),
            "nearest training image": near,
            "predicted embedding": {
                "cosine to true": float(torch.cosine_similarity(predicted, truth).mean()),
                "cosine to true, less the training mean": float(
                    torch.cosine_similarity(predicted - mean, truth - mean).mean()
                ),
                "norm over true norm": float((predicted.norm(dim=1) / truth.norm(dim=1)).mean()),
            },
        },
    )
    return Path(config.run_dir)


def _check_decoders(config: ReconstructConfig, seen: set[str]) -> dict[str, int]:
    """How many of the test images each decoder was trained on, by what its folder tells.

    Raises:
        InputError: Some, and ``shared_test_images`` is not set.
    """
    folders = {
        "flow": config.flow.weights, "sd_adapter": config.sd_adapter.adapter, "ip_adapter": config.ip_adapter.adapter,
    }  # fmt: skip
    used = {name: folder for name in config.backends if (folder := folders.get(name)) is not None}
    remembered = {name: len(seen & trained_on(folder)) for name, folder in used.items()}
    if any(remembered.values()) and not config.shared_test_images:
        raise InputError(
            expected="decoders that were trained without the test images",
            found=", ".join(f"{n} of {len(seen)} in the training of {name}" for name, n in remembered.items() if n),
            fix="Train with exclude=RECORDING. With shared_test_images=true they are drawn all the same, and counted.",
        )
    return remembered


def _generate(
    config: ReconstructConfig,
    model: ImageAligner,
    cache: EmbeddingCache,
    train: Responses,
    train_images: Tensor,
    test: Responses,
) -> tuple[dict[str, Tensor], Tensor]:
    """Pictures (n, S, 3, H, W) of each backend, and the predicted embeddings (n, E)."""
    contrastive, regression = embed_responses(model, test)
    features = train.features
    standardize = Standardizer.fit(features)
    layout = RidgePixels.fit(_standard(standardize, features), train_images).generate(
        _standard(standardize, test.features)
    )
    pictures: dict[str, Tensor] = {}
    for name in config.backends:
        if name == "nearest":
            nearest = NearestImage(compute(model.center, cache.lookup(list(train.image_ids))), train_images)
            pictures[name] = nearest.generate(contrastive, num_samples=config.num_samples)
        elif name == "ridge_pixels":
            pictures[name] = layout
        elif name == "flow":
            continue  # reads the activity itself, see _draw
        else:
            generator = load_generator(name, **_options(config, name))
            stored = getattr(generator, "encoder_name", None), getattr(generator, "preprocessing_hash", None)
            check_source(name, stored, (cache.encoder, cache.preprocessing_hash))
            drawn = generator.generate(
                regression,
                num_samples=config.num_samples * config.candidates,
                seed=config.seed,
                init_images=layout[:, 0],
            )
            pictures[name] = (
                drawn
                if config.candidates == 1
                else choose(drawn, contrastive, _compared(model, find_device(config.device)), config.candidates)
            )
    return pictures, regression


def _standard(scale: Standardizer, features: np.ndarray) -> Tensor:
    return torch.cat([torch.from_numpy(scale(rows)).float() for rows in row_blocks(features)])


def _options(config: ReconstructConfig, backend: str) -> dict[str, Any]:
    """Options of a backend; null leaves one to the backend. One of your own gets those that it is given."""
    known = getattr(config, backend, None)
    options = (
        config.options.get(backend, {}) if known is None else asdict(known) | {"device": find_device(config.device)}
    )
    if isinstance(known, StableDiffusionConfig):
        options["dtype"] = str(computing_dtype(config.precision)).removeprefix("torch.")
    return {name: value for name, value in options.items() if value is not None}


def _draw(config: ReconstructConfig, train: Responses, test: Responses) -> tuple[dict[str, Tensor], str]:
    """Pictures (n, S, 3, H, W) of the flow decoder, from activity and, as its own ceiling, from true features.

    And the name of the network whose features it draws and chooses by.
    """
    decoder: Any = load_generator("flow", **_options(config, "flow"))
    cache = EmbeddingCache.load(
        config.features or config.embeddings,
        decoder.encoder_name,
        decoder.preprocessing_hash,
        layers=list(decoder.layers),
    )
    codes = decoder.encode(cache.lookup(list(train.image_ids)))
    mean, information = read_codes(train, codes, decoder.model.codes.variance.cpu(), test)
    draw = {"num_samples": config.num_samples, "seed": config.seed}
    seen = list(test.averaged().image_ids)
    pictures = {
        "flow": decoder.generate(mean, information=information, **draw),
        "flow from true features": decoder.generate(cache.lookup(seen), **draw),
    }
    return pictures, cache.encoder


def _compared(model: ImageAligner, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Pictures (n, 3, H, W) as retrieval compares them, by the network that was aligned to."""
    encoder = load_target_encoder(model, device)
    layers = encoder.layers(list(model.layers))

    def compare(pictures: Tensor) -> Tensor:
        return compute(model.center, torch.cat(list(encoder.targets(pictures, layers).values()), 1))

    return compare


def choose(drawn: Tensor, contrastive: Tensor, compare: Callable[[Tensor], Tensor], candidates: int) -> Tensor:
    """Of each ``candidates`` pictures, the one whose embedding is nearest to the predicted one.

    Args:
        drawn: (n, num_samples * candidates, 3, H, W).
        contrastive: (n, E) predicted embeddings.
        compare: From pictures to what predicted embeddings are compared with.
        candidates: Pictures drawn for each sample.

    Returns:
        (n, num_samples, 3, H, W).
    """
    codes = compare(drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])
    likeness = (codes * contrastive[:, None]).sum(-1).unflatten(1, (-1, candidates))
    best = likeness.argmax(2)[:, :, None, None, None, None]
    sets = drawn.unflatten(1, (-1, candidates))
    return sets.gather(2, best.expand(-1, -1, 1, *drawn.shape[2:])).squeeze(2)


def _channels_last(images: Tensor) -> np.ndarray:
    return images.movedim(-3, -1).contiguous().numpy()


def _mean(images: Tensor, n: int) -> Tensor:
    return torch.from_numpy(mean_image(_channels_last(images), n)).movedim(-1, -3)[:, None]
