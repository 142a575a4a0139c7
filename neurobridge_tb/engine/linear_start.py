"""The linear way of an ImageAligner, fitted in closed form before the projector is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb.alignment.losses import info_nce
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.data.responses import Responses
from neurobridge_tb.engine.known_factors import KnownFactors
from neurobridge_tb.estimators.factor_scores import FactorScores
from neurobridge_tb.estimators.ridge import Ridge, fit_ridge
from neurobridge_tb.metrics.retrieval import cosine_similarity
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.nn.response_readout import step_means

SHRINKAGES = (float("inf"), 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # infinite: the ridge prediction as it is
TEMPERATURES = np.geomspace(0.01, 1.0, 25)
_FOLDS = 5

Pairs = Sequence[tuple[Responses, Tensor]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Start:
    """A linear way: of each recording its ridge, answers to training pairs out of sample, and to validation pairs."""

    ridges: list[Ridge]
    answers: list[Floats]
    predicted: list[Floats]
    shrinkage: float
    to_contrastive: Floats
    top5: float


@torch.no_grad()
def fit_linear_path(
    model: ImageAligner,
    train: Pairs,
    valid: Pairs,
    seed: int = 0,
    known: KnownFactors | None = None,
) -> tuple[dict[str, Any], list[Tensor]]:
    """Set ``model.linear`` by ridge regression, and ``model.to_contrastive`` by the errors that it makes.

    1. In each recording, ridge from the responses (means within latent steps), or from their :class:`FactorScores`, to
       the image embedding in training deviations; the penalty is the best on the validation presentations. Factors are
       those of the pairs, or those that pretraining knows of the units. All are linear in the responses. A unit that
       several recordings share gets the mean of their weights.
    2. If embeddings given a response are Gaussian with the error covariance C, the image that is likeliest is found by
       the product with C^-1 times the prediction (Fisher's linear discriminant): directions that are predicted badly
       count less. C is estimated out of sample, in five folds of images, and shrunk towards the identity; the
       shrinkage, or none of this, is chosen by top-5 on the validation presentations, and so is whether responses or
       which scores are used: the squared error hardly differs between ways that retrieve very unlike.

    What is trained on top must not see predictions of pairs that the ridge was fitted to, which are far too good: it
    gets those of the folds (stacking, Wolpert 1992).

    Args:
        model: With embedding statistics, and vocabularies of all units.
        train: Presentations of each recording, and the embeddings (n, E) of their images.
        valid: The same of its validation split.
        seed: Seed of the folds.
        known: Factors of pretraining. Default: none.

    Returns:
        What was chosen: ``from``: ``"responses"``, ``"factors of the pairs"`` or ``"factors of pretraining"``;
        ``factors``, how many in each recording; ``penalties``, one a recording;
        ``shrinkage`` (None: not used); ``temperature``, the best for InfoNCE on the validation presentations;
        ``validation top-5``. And the out-of-sample answers (n, E) of the linear way to each recording's training
        presentations.
    """
    assert model.linear is not None
    features = [
        (_features(model, r), _features(model, r_valid)) for (r, _), (r_valid, _) in zip(train, valid, strict=True)
    ]
    factors = {
        "factors of the pairs": [FactorScores.fit(x) for x, _ in features],
        "factors of pretraining": [
            _known(model, r, x, known) for (r, _), (x, _) in zip(train, features, strict=True) if known
        ],
    }
    ways: dict[str, list[FactorScores] | None] = {"responses": None} | {
        name: scores for name, scores in factors.items() if scores and all(s.weights.shape[1] for s in scores)
    }
    starts = {name: _start(model, train, valid, features, seed, way) for name, way in ways.items()}
    chosen = max(starts, key=lambda name: starts[name].top5)
    best = starts[chosen]
    _set_weights(model, [r for r, _ in train], best.ridges)
    width = len(best.to_contrastive)
    norm = np.linalg.norm(np.concatenate(best.predicted) @ best.to_contrastive, axis=1).mean()
    model.to_contrastive.weight.copy_(torch.from_numpy(best.to_contrastive.T / norm * width**0.5))  # values near 1

    def contrast(temperature: float) -> float:
        losses = [
            info_nce(torch.from_numpy(p @ best.to_contrastive), model.center(t).double(), temperature=temperature)
            * len(t)
            for p, (_, t) in zip(best.predicted, valid, strict=True)
        ]
        return float(torch.stack(losses).sum())

    found = {
        "from": chosen,
        "factors": [scores.weights.shape[1] for scores in ways[chosen] or []],
        "penalties": [ridge.penalty for ridge in best.ridges],
        "shrinkage": None if np.isinf(best.shrinkage) else best.shrinkage,
        "temperature": float(min(TEMPERATURES, key=contrast)),
        "validation top-5": best.top5,
    }
    return found, [torch.from_numpy(a).float() for a in best.answers]


def _start(
    model: ImageAligner,
    train: Pairs,
    valid: Pairs,
    features: Sequence[tuple[NDArray, NDArray]],
    seed: int,
    factors: list[FactorScores] | None,
) -> _Start:
    """Ridge from the responses, or from their scores, with the shrinkage that is best on the validation pairs."""
    ridges, answers, errors, predicted = [], [], [], []
    for k, ((responses, target), (_, target_valid)) in enumerate(zip(train, valid, strict=True)):
        x, x_valid = features[k]
        y, y_valid = _standardized(model, target), _standardized(model, target_valid)
        if factors is not None:
            x, x_valid = factors[k](x), factors[k](x_valid)
        ridge = fit_ridge(x, y, x_valid, y_valid, standardize=factors is None)
        answers.append(_cross_fitted(ridge, x, y, responses.image_ids, seed))
        errors.append(y - answers[-1])
        predicted.append(ridge.predict(x_valid))
        ridges.append(ridge if factors is None else _on_responses(ridge, factors[k]))

    std = model.embedding_std.double().numpy()
    error = np.concatenate(errors) * std
    covariance = error.T @ error / len(error)
    level = np.trace(covariance) / len(covariance)
    maps = {
        s: np.diag(std) if np.isinf(s) else std[:, None] * np.linalg.inv(covariance / level + s * np.eye(len(std)))
        for s in SHRINKAGES
    }
    scores = {s: _top5(model, predicted, valid, to_contrastive) for s, to_contrastive in maps.items()}
    best = max(SHRINKAGES, key=scores.__getitem__)
    return _Start(ridges, answers, predicted, best, maps[best], scores[best])


def _top5(model: ImageAligner, predicted: list[Floats], valid: Pairs, to_contrastive: Floats) -> float:
    """Share of the validation presentations whose image is among the five nearest of all validation images."""
    hits = []
    for of_valid, (responses, target) in zip(predicted, valid, strict=True):
        _, first, own = np.unique(responses.image_ids, return_index=True, return_inverse=True)
        similarity = cosine_similarity(of_valid @ to_contrastive, model.center(target[first]).numpy())
        better = similarity > similarity[np.arange(len(own)), own][:, None]
        hits.append(better.sum(1) < 5)
    return float(np.concatenate(hits).mean())


def _features(model: ImageAligner, responses: Responses) -> np.ndarray:
    """Standardised responses (n, S * N), means within latent steps; NaN where there is none."""
    assert model.linear is not None
    features = []
    for start in range(0, len(responses.values), 256):
        inputs = responses.batch(slice(start, start + 256))
        values = model.encoder.standardize(inputs["input_values"], inputs["input_unit_index"])
        means, exists = step_means(
            values, inputs["input_mask"], inputs["input_timestamps"],
            num_steps=model.linear.num_steps, latent_step=model.linear.latent_step,
        )  # fmt: skip
        features.append(means.masked_fill(~exists, torch.nan).flatten(1))
    return torch.cat(features).numpy()


def _known(model: ImageAligner, responses: Responses, x: NDArray, known: KnownFactors) -> FactorScores:
    """Scores of what pretraining knows of these units, the same in each latent step; no columns where it does not."""
    assert model.linear is not None
    index, steps = responses.model_inputs["input_unit_index"][0].tolist(), model.linear.num_steps
    of_units = known.of([model.encoder.unit_emb.detokenizer(k) for k in index])
    if of_units is None:
        of_units = np.zeros((len(index), 0))
    inputs = Standardizer.fit(x)
    weights: Floats = np.kron(np.eye(steps), of_units).astype(np.float64)
    return FactorScores(replace(inputs, std=np.ones_like(inputs.std)), weights)


def _standardized(model: ImageAligner, target: Tensor) -> np.ndarray:
    return ((target - model.embedding_mean) / model.embedding_std).numpy()


def _on_responses(ridge: Ridge, scores: FactorScores) -> Ridge:
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
