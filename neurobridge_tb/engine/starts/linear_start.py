"""The linear read-out of an ImageAligner, fitted in closed form before the projector is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.data.responses import Responses
from neurobridge_tb.estimators.model_choice import least_loss
from neurobridge_tb.estimators.ridge import Ridge, fit_ridge
from neurobridge_tb.estimators.similarity_weights import SimilarityWeights, fit_similarity_weights
from neurobridge_tb.metrics.retrieval import cosine_similarity
from neurobridge_tb.models import ImageAligner

SHRINKAGES = (float("inf"), 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # infinite: the ridge prediction as it is
_FOLDS = 5

Pairs = Sequence[tuple[Responses, Tensor]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _LayerStart:
    """A linear path to one layer.

    Attributes:
        ridges: Of each recording.
        held_out: Of each recording, predictions (n, d) of its training pairs, out of sample.
        to_contrastive: (d, d), from predictions in training deviations to what is compared with images.
        shrinkage: Of the error covariance in ``to_contrastive``.
        similarities: Of each recording, (q, c) of its validation presentations with their images.
    """

    ridges: list[Ridge]
    held_out: list[Tensor]
    to_contrastive: Floats
    shrinkage: float
    similarities: list[Floats]


@dataclass(frozen=True)
class _Start:
    """Linear paths to all layers, and how much each counts."""

    layers: list[_LayerStart]
    weights: SimilarityWeights


@dataclass(frozen=True)
class _Scores:
    """A linear map of responses to factors.

    Attributes:
        inputs: Means of the responses, for those that are absent.
        weights: (features, factors).
    """

    inputs: Standardizer
    weights: Floats

    def __call__(self, x: NDArray) -> Floats:
        return self.inputs(x) @ self.weights


@torch.no_grad()
def fit_linear_path(
    model: ImageAligner,
    train: Pairs,
    valid: Pairs,
    seed: int = 0,
) -> tuple[dict[str, Any], list[Tensor]]:
    """Set ``model.linear`` by ridge regression, and ``model.to_contrastive`` by the errors that it makes.

    1. In each recording, ridge from the responses (means within latent steps), or from the encoder's factors, to each
       layer of the image embedding in training deviations; the penalty is the best on the validation presentations.
       Factors are linear in the responses too. A unit that several recordings share gets the mean of their weights.
    2. If embeddings given a response are Gaussian with the error covariance C, the image that is likeliest is found by
       the product with C^-1 times the prediction (Fisher's linear discriminant): directions that are predicted badly
       count less. C is estimated out of sample, in five folds of images, and shrunk towards the identity, by the
       likelihood of the validation presentations.
    3. The layers' cosines are added with weights, and divided by a temperature, that are the likeliest on the
       validation presentations (:func:`fit_similarity_weights`).
    4. By their likelihood, ridge from the responses without step 2, the responses or the factors are taken; the first
       in doubt (:func:`~neurobridge_tb.estimators.model_choice.least_loss`), as few validation presentations choose
       badly among shrinkages.

    What is trained on top must not see predictions of pairs that the ridge was fitted to, which are far too good: it
    gets those of the folds (stacking, Wolpert 1992).

    Args:
        model: With embedding statistics, and vocabularies of all units.
        train: Presentations of each recording, and the embeddings (n, E) of their images.
        valid: The same of its validation split.
        seed: Seed of the folds.

    Returns:
        What was chosen: ``from``: ``"responses"`` or ``"factors"``; ``layers``: for each ``weight``, ``penalties`` (one
        a recording), ``shrinkage`` (None: not used) and ``validation top-1``; ``temperature``; ``validation top-1`` and
        ``top-5``. And the out-of-sample predictions (n, E) of each recording's training presentations.
    """
    assert model.linear is not None
    features = [
        (_features(model, r), _features(model, r_valid)) for (r, _), (r_valid, _) in zip(train, valid, strict=True)
    ]
    starts = dict(zip(("ridge", "responses"), _starts(model, train, valid, features, seed, None), strict=True))
    if model.encoder.factors is not None:
        scores = [_factor_scores(model, r, x) for (r, _), (x, _) in zip(train, features, strict=True)]
        starts["factors"] = _starts(model, train, valid, features, seed, scores)[1]
    chosen = least_loss({name: start.weights.losses for name, start in starts.items()}, simplest="ridge")
    best = starts[chosen]
    _set_weights(model, [r for r, _ in train], [_side_by_side(of_layers) for of_layers in _by_recording(best)])
    for weight, layer in zip(model.to_contrastive.maps, best.layers, strict=True):
        width, predicted = len(weight), torch.cat(layer.held_out).double().numpy()
        norm = np.linalg.norm(predicted @ layer.to_contrastive, axis=1).mean()
        weight.copy_(torch.from_numpy(layer.to_contrastive.T / norm * width**0.5))  # values near 1
    model.layer_weights.copy_(torch.from_numpy(best.weights.weights))

    own = [_candidates(r)[1] for r, _ in valid]
    added = [
        sum(w * s for w, s in zip(best.weights.weights, of_layers, strict=True))
        for of_layers in zip(*(layer.similarities for layer in best.layers), strict=True)
    ]
    found = {
        "from": "factors" if chosen == "factors" else "responses",
        "layers": {
            name: {
                "weight": float(weight),
                "penalties": [ridge.penalty for ridge in layer.ridges],
                "shrinkage": None if np.isinf(layer.shrinkage) else layer.shrinkage,
                "validation top-1": _topk(layer.similarities, own, 1),
            }
            for name, weight, layer in zip(model.layers, best.weights.weights, best.layers, strict=True)
        },
        "temperature": best.weights.temperature,
        "validation top-1": _topk(added, own, 1),
        "validation top-5": _topk(added, own, 5),
    }
    held_out = zip(*(layer.held_out for layer in best.layers), strict=True)
    return found, [torch.cat(parts, 1) for parts in held_out]


def _starts(
    model: ImageAligner,
    train: Pairs,
    valid: Pairs,
    features: Sequence[tuple[NDArray, NDArray]],
    seed: int,
    factors: list[_Scores] | None,
) -> tuple[_Start, _Start]:
    """Ridge from the responses, or from their scores, to every layer: as it is, and with the likeliest shrinkages."""
    if factors is not None:
        features = [(scores(x), scores(x_valid)) for scores, (x, x_valid) in zip(factors, features, strict=True)]
    own = [_candidates(r)[1] for r, _ in valid]
    layers, begin = [], 0
    for width in model.layers.values():
        layers.append(_layer_starts(model, train, valid, features, slice(begin, begin + width), seed, factors))
        begin += width

    def weighted(layers: Sequence[_LayerStart]) -> _Start:
        similarities = [np.stack(parts, -1) for parts in zip(*(layer.similarities for layer in layers), strict=True)]
        return _Start(list(layers), fit_similarity_weights(similarities, own))

    as_they_are, likeliest = zip(*layers, strict=True)
    return weighted(as_they_are), weighted(likeliest)


def _layer_starts(
    model: ImageAligner,
    train: Pairs,
    valid: Pairs,
    features: Sequence[tuple[NDArray, NDArray]],
    columns: slice,
    seed: int,
    factors: list[_Scores] | None,
) -> tuple[_LayerStart, _LayerStart]:
    """Ridge to the ``columns`` of the embedding: as it is, and with the shrinkage that is likeliest in validation."""
    ridges, held_out, predicted = [], [], []
    std = model.embedding_std[columns].double().numpy()
    square, n = np.zeros((len(std), len(std))), 0
    for k, ((responses, target), (_, target_valid)) in enumerate(zip(train, valid, strict=True)):
        x, x_valid = features[k]
        y, y_valid = (_standardized(model, t)[:, columns] for t in (target, target_valid))
        ridge = fit_ridge(x, y, x_valid, y_valid, standardize=factors is None)
        of_train = _cross_fitted(ridge, x, y, responses.image_ids, seed)
        error = (y - of_train) * std
        square, n = square + error.T @ error, n + len(error)
        held_out.append(torch.from_numpy(of_train).float())
        predicted.append(ridge.predict(x_valid))
        ridges.append(ridge if factors is None else _on_responses(ridge, factors[k]))

    sets = [_candidates(r) for r, _ in valid]
    images = [
        (t[first] - model.embedding_mean)[:, columns].numpy() for (_, t), (first, _) in zip(valid, sets, strict=True)
    ]
    level = np.trace(square / n) / len(square)
    found: dict[float, tuple[Floats, list[Floats], float]] = {}
    for s in SHRINKAGES:
        ridged = square / n / level + (0 if np.isinf(s) else s) * np.eye(len(std))
        to_contrastive = np.diag(std) if np.isinf(s) else std[:, None] * np.linalg.inv(ridged)
        similar = [cosine_similarity(p @ to_contrastive, i) for p, i in zip(predicted, images, strict=True)]
        fit = fit_similarity_weights([s[..., None] for s in similar], [own for _, own in sets])
        found[s] = to_contrastive, similar, fit.loss
    best = min(SHRINKAGES, key=lambda s: found[s][2])
    as_it_is, likeliest = (_LayerStart(ridges, held_out, found[s][0], s, found[s][1]) for s in (SHRINKAGES[0], best))
    return as_it_is, likeliest


def _candidates(responses: Responses) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A presentation of each image, and which of these images each presentation showed."""
    _, first, own = np.unique(responses.image_ids, return_index=True, return_inverse=True)
    return first, own


def _topk(similarities: Sequence[Floats], own: Sequence[NDArray[np.intp]], k: int) -> float:
    """Share of the queries whose own candidate is among the k most similar."""
    hits = [(s > s[np.arange(len(o)), o][:, None]).sum(1) < k for s, o in zip(similarities, own, strict=True)]
    return float(np.concatenate(hits).mean())


def _by_recording(start: _Start) -> list[list[Ridge]]:
    return [list(ridges) for ridges in zip(*(layer.ridges for layer in start.layers), strict=True)]


def _side_by_side(ridges: Sequence[Ridge]) -> Ridge:
    """One map to all layers; the penalties have been applied."""
    return replace(
        ridges[0],
        weights=np.concatenate([ridge.weights for ridge in ridges], 1),
        offset=np.concatenate([ridge.offset for ridge in ridges]),
    )


def _features(model: ImageAligner, responses: Responses) -> np.ndarray:
    """Standardised responses (n, S * N), means within latent steps; NaN where there is none."""
    means = torch.from_numpy(responses.over_steps().values)
    units = responses.model_inputs["input_unit_index"].expand(len(means), -1)
    return model.encoder.standardize(means, units).flatten(1).numpy()


def _factor_scores(model: ImageAligner, responses: Responses, x: NDArray) -> "_Scores":
    """The encoder's factors in each latent step, given the units that are seen in any presentation."""
    assert model.linear is not None and model.encoder.factors is not None
    steps, units = model.linear.num_steps, responses.model_inputs["input_unit_index"][0]
    seen = ~np.isnan(x).all(0).reshape(steps, -1).all(0)
    gain = model.encoder.factors.as_fitted(units).gain(seen)
    inputs = Standardizer.fit(x)
    return _Scores(replace(inputs, std=np.ones_like(inputs.std)), np.kron(np.eye(steps), gain).astype(np.float64))


def _standardized(model: ImageAligner, target: Tensor) -> np.ndarray:
    return ((target - model.embedding_mean) / model.embedding_std).numpy()


def _on_responses(ridge: Ridge, scores: _Scores) -> Ridge:
    """The same predictions by a map of the responses that the scores are made of."""
    weights, bias = ridge.on_raw_inputs()
    return Ridge(scores.inputs, scores.weights @ weights, bias, ridge.penalty)


def _cross_fitted(ridge: Ridge, x: np.ndarray, y: np.ndarray, image_ids: np.ndarray, seed: int) -> Floats:
    """Predictions (n, E) of regressions with the penalty of ``ridge`` that each image was not fitted to.

    The normal equations of all pairs, less those of a fold, are those of the rest: one solve a fold.
    """
    images, image = np.unique(image_ids, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(images)) % _FOLDS)[image]
    inputs = np.column_stack([ridge.inputs(x), np.ones(len(x))])  # the intercept is not penalised
    gram, moment = inputs.T @ inputs, inputs.T @ y
    gram[np.diag_indices(x.shape[1])] += ridge.penalty
    predicted = np.zeros(y.shape)
    for k in range(_FOLDS):
        held = inputs[fold == k]
        weights = np.linalg.solve(gram - held.T @ held, moment - held.T @ y[fold == k])
        predicted[fold == k] = held @ weights
    return predicted


def _set_weights(model: ImageAligner, recordings: Sequence[Responses], ridges: Sequence[Ridge]) -> None:
    assert model.linear is not None
    weights, means = model.linear.unit_rows.weight, model.linear.mean_rows.weight
    for table in (weights, means):
        table.zero_()
    count = torch.zeros(len(weights), 1)
    for responses in recordings:
        count[responses.model_inputs["input_unit_index"][0]] += 1
    for responses, ridge in zip(recordings, ridges, strict=True):
        units = responses.model_inputs["input_unit_index"][0]
        by_step = ridge.on_raw_inputs()[0].reshape(model.linear.num_steps, len(units), -1)
        weights[units] += torch.from_numpy(by_step).transpose(0, 1).flatten(1).to(weights) / count[units]
        mean = torch.from_numpy(ridge.inputs.mean).reshape(model.linear.num_steps, -1).T
        means[units] += mean.to(means) / count[units]
    model.linear.bias.copy_(torch.from_numpy(np.mean([ridge.offset for ridge in ridges], axis=0)))
