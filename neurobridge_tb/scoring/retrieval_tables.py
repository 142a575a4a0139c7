"""Retrieval of the test images of a recording: the aligner beside its baselines, over all layers and by each alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.arrays import Array, Floats, to_floats
from neurobridge_tb.data.responses import Responses, embed_responses
from neurobridge_tb.devices import compute
from neurobridge_tb.estimators.controls import shuffled
from neurobridge_tb.estimators.mlp import fit_mlp
from neurobridge_tb.estimators.ridge import RidgePath
from neurobridge_tb.estimators.similarity_weights import fit_similarity_weights
from neurobridge_tb.metrics.retrieval import cosine_similarity, retrieval_rows, split_half_row
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.nn.layer_maps import weighted_parts

Rows = list[dict[str, Any]]
Fit = Callable[[Array, Array], Callable[[Array], Array]]  # from training and validation targets


@dataclass(frozen=True)
class _Decoder:
    """What is compared: predictions and images, all layers side by side, and the layers' weights.

    Attributes:
        of_average: (n, E) predictions from repeat averages.
        of_trials: (presentations, E) predictions from single trials.
        images: (n, E) the test images.
        weights: (L,), adding up to 1.
        by_layer: Whether each layer is worth a table of its own.
    """

    of_average: Array
    of_trials: Array
    images: Array
    weights: Floats
    by_layer: bool = True


def retrieval_tables(
    splits: Mapping[str, Responses],
    aligners: Mapping[str, ImageAligner],
    cache: EmbeddingCache,
    *,
    suffix: str = "",
    resamples: int = 2000,
    permutations: int = 0,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, Rows]:
    """Rows of :func:`retrieval_rows` for each aligner, ridge, an MLP, ridge on shuffled labels, and noise ceilings.

    Every baseline gets the aligner's targets: it is fitted to each layer, and the layers' cosines are added with
    weights that are the likeliest on the validation presentations, as the aligner's are. Embeddings are compared less
    their training mean.

    Args:
        splits: ``train``, ``valid`` and ``test`` presentations of one recording.
        aligners: Models by name, of the same layers.
        cache: Embeddings of all images, of these layers.
        suffix: Added to the names of models.
        resamples: Of the bootstrap.
        permutations: Of the test against chance.
        seed: Seed of everything random.
        device: Where the MLP is trained; the aligners compute where they are.

    Returns:
        ``"all layers"``, its rows also ``by query`` (test images in sorted order), and, where there are several, one
        table a layer.
    """
    test, averaged = splits["test"], splits["test"].averaged()
    order, columns = test.by_repeat(), {name: cache.columns(name) for name in cache.layers}
    decoders = {name: _aligned(model, test, averaged, cache) for name, model in aligners.items()}
    mean = cache.lookup(list(dict.fromkeys(splits["train"].image_ids.tolist()))).mean(0)

    x, x_valid = (splits[split].features for split in ("train", "valid"))
    path = RidgePath.fit(x, x_valid)  # one decomposition for all targets

    def ridge(y: Array, y_valid: Array) -> Callable[[Array], Array]:
        return path.solve(y, y_valid).predict

    def mlp(y: Array, y_valid: Array) -> Callable[[Array], Array]:
        return fit_mlp(x, y, x_valid, y_valid, seed=seed, device=device).predict

    def control(y: Array, y_valid: Array) -> Callable[[Array], Array]:
        return ridge(shuffled(y, seed=seed), y_valid)

    baselines: dict[str, tuple[Fit, bool]] = {
        "ridge": (ridge, True),
        "MLP": (mlp, True),
        "ridge, shuffled labels": (control, False),
    }
    for name, (fit, by_layer) in baselines.items():
        decoders[name] = _baseline(fit, by_layer, splits, averaged, cache, mean.numpy())

    options: Any = {"resamples": resamples, "permutations": permutations, "seed": seed}

    def rows(name: str, decoder: _Decoder, view: Callable[[Array], Array], **more: Any) -> Rows:
        images = view(decoder.images)
        found: Rows = []
        for predicted in (view(decoder.of_average), view(decoder.of_trials)[order]):
            found += retrieval_rows(predicted, images, model=name + suffix, **options, **more)
        return found

    def ceiling(responses: Array, of: str) -> Rows:
        row = split_half_row(responses[order], resamples=resamples, seed=seed)
        return [row | {"model": f"noise ceiling (split half{of}){suffix}"}]

    tables: dict[str, Rows] = {"all layers": []}
    for name, decoder in decoders.items():
        together = partial(_weighted, cache=cache, weights=decoder.weights)
        tables["all layers"] += rows(name, decoder, together, by_query=True)
    for layer in columns if len(columns) > 1 else ():
        here = columns[layer]
        tables[layer] = [
            row for name, d in decoders.items() if d.by_layer for row in rows(name, d, itemgetter((slice(None), here)))
        ]
    if len(order) > 1:
        of_trials = decoders["ridge"].of_trials
        tables["all layers"] += ceiling(test.features, "") + ceiling(of_trials, " of ridge predictions")
        for layer in list(tables)[1:]:
            tables[layer] += ceiling(of_trials[:, columns[layer]], " of ridge predictions")
    return tables


def _aligned(model: ImageAligner, test: Responses, averaged: Responses, cache: EmbeddingCache) -> _Decoder:
    weights = to_floats(model.layer_weights).copy()
    model.layer_weights.fill_(1 / len(weights))  # a layer without weight would vanish
    of_average, of_trials = (embed_responses(model, r)[0].double().numpy() for r in (averaged, test))
    with torch.no_grad():
        images = compute(model.center, cache.lookup(list(averaged.image_ids))).double().numpy()
    model.layer_weights.copy_(torch.from_numpy(weights))
    return _Decoder(of_average, of_trials, images, weights)


def _baseline(
    fit: Fit,
    by_layer: bool,
    splits: Mapping[str, Responses],
    averaged: Responses,
    cache: EmbeddingCache,
    mean: Array,
) -> _Decoder:
    train, valid = splits["train"], splits["valid"]
    x_valid, x_averaged, x_test = (r.features for r in (valid, averaged, splits["test"]))
    _, first, own = np.unique(valid.image_ids, return_index=True, return_inverse=True)

    def space(responses: Responses) -> Array:
        return cache.lookup(list(responses.image_ids)).numpy() - mean

    y, y_valid = space(train), space(valid)
    parts, similarities = [], []
    for layer in cache.layers:
        c = cache.columns(layer)
        predict = fit(y[:, c], y_valid[:, c])
        parts.append([predict(x) for x in (x_averaged, x_test)])
        similarities.append(cosine_similarity(predict(x_valid), y_valid[first][:, c]))
    of_average, of_trials = (np.concatenate(of_layers, 1) for of_layers in zip(*parts, strict=True))
    weights = fit_similarity_weights([np.stack(similarities, -1)], [own]).weights
    return _Decoder(of_average, of_trials, space(averaged), weights, by_layer)


def _weighted(embedding: Array, cache: EmbeddingCache, weights: Floats) -> Floats:
    widths: Sequence[int] = list(cache.layers.values())
    return weighted_parts(torch.as_tensor(embedding).double(), widths, torch.from_numpy(weights)).numpy()
