"""The linear way of an ImageAligner, fitted in closed form before the projector is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurobridge_tb.alignment.losses import info_nce
from neurobridge_tb.evaluation.retrieval import cosine_similarity
from neurobridge_tb.evaluation.ridge import Ridge, fit_ridge
from neurobridge_tb.models import ImageAligner
from neurobridge_tb.training.responses import Responses

SHRINKAGES = (float("inf"), 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # infinite: the ridge prediction as it is
TEMPERATURES = np.geomspace(0.01, 1.0, 25)
_FOLDS = 5


@torch.no_grad()
def fit_linear_path(
    model: ImageAligner,
    train: Sequence[tuple[Responses, Tensor]],
    valid: Sequence[tuple[Responses, Tensor]],
    seed: int = 0,
) -> tuple[dict[str, Any], list[Tensor]]:
    """Set ``model.linear`` by ridge regression, and ``model.to_contrastive`` by the errors that it makes.

    1. In each recording, ridge from the responses (means within latent steps) to the image embedding in training
       deviations; the penalty is the best on the validation presentations. A unit that several recordings share gets
       the mean of their weights.
    2. If embeddings given a response are Gaussian with the error covariance C, the image that is likeliest is found by
       the product with C^-1 times the prediction (Fisher's linear discriminant): directions that are predicted badly
       count less. C is estimated out of sample, in five folds of images, and shrunk towards the identity; the
       shrinkage, or none of this, is chosen by top-5 on the validation presentations.

    What is trained on top must not see predictions of pairs that the ridge was fitted to, which are far too good: it
    gets those of the folds (stacking, Wolpert 1992).

    Args:
        model: With embedding statistics, and vocabularies of all units.
        train: Presentations of each recording, and the embeddings (n, E) of their images.
        valid: The same of its validation split.
        seed: Seed of the folds.

    Returns:
        What was chosen: ``penalties``, one a recording; ``shrinkage`` (None: not used); ``temperature``, the best for
        InfoNCE on the validation presentations; ``validation top-5``. And the
        out-of-sample answers (n, E) of the linear way to each recording's training presentations.
    """
    fits, answers, errors, predicted = [], [], [], []
    for (responses, target), (responses_valid, target_valid) in zip(train, valid, strict=True):
        x, y = _features(model, responses), _standardized(model, target)
        x_valid, y_valid = _features(model, responses_valid), _standardized(model, target_valid)
        fit = fit_ridge(x, y, x_valid, y_valid)
        fits.append(fit)
        answers.append(_cross_fitted(fit, x, y, responses.image_ids, seed))
        errors.append(y - answers[-1])
        predicted.append(fit.predict(x_valid))
    _set_weights(model, [r for r, _ in train], fits)

    std = model.embedding_std.double().numpy()
    error = np.concatenate(errors) * std
    covariance = error.T @ error / len(error)
    level = np.trace(covariance) / len(covariance)
    maps = {
        s: np.diag(std) if np.isinf(s) else std[:, None] * np.linalg.inv(covariance / level + s * np.eye(len(std)))
        for s in SHRINKAGES
    }

    def top5(shrinkage: float) -> float:
        hits = []
        for of_valid, (responses, target) in zip(predicted, valid, strict=True):
            _, first, own = np.unique(responses.image_ids, return_index=True, return_inverse=True)
            similarity = cosine_similarity(of_valid @ maps[shrinkage], model.center(target[first]).numpy())
            better = similarity > similarity[np.arange(len(own)), own][:, None]
            hits.append(better.sum(1) < 5)
        return float(np.concatenate(hits).mean())

    best = max(SHRINKAGES, key=top5)
    norm = np.linalg.norm(np.concatenate(predicted) @ maps[best], axis=1).mean()
    model.to_contrastive.weight.copy_(torch.from_numpy(maps[best].T / norm * len(std) ** 0.5))  # values near 1

    def contrast(temperature: float) -> float:
        losses = [
            info_nce(torch.from_numpy(p @ maps[best]), model.center(t).double(), temperature=temperature) * len(t)
            for p, (_, t) in zip(predicted, valid, strict=True)
        ]
        return float(torch.stack(losses).sum())

    found = {
        "penalties": [fit.penalty for fit in fits],
        "shrinkage": None if np.isinf(best) else best,
        "temperature": float(min(TEMPERATURES, key=contrast)),
        "validation top-5": top5(best),
    }
    return found, [torch.from_numpy(a).float() for a in answers]


def _features(model: ImageAligner, responses: Responses) -> np.ndarray:
    """Standardised responses (n, S * N), means within latent steps; NaN where there is none."""
    assert model.linear is not None
    features = []
    for start in range(0, len(responses.values), 256):
        inputs = responses.batch(slice(start, start + 256))
        values = model.encoder.standardize(inputs["input_values"], inputs["input_unit_index"])
        means, exists = model.linear.step_means(values, inputs["input_mask"], inputs["input_timestamps"])
        features.append(means.masked_fill(~exists, torch.nan).flatten(1))
    return torch.cat(features).numpy()


def _standardized(model: ImageAligner, target: Tensor) -> np.ndarray:
    return ((target - model.embedding_mean) / model.embedding_std).numpy()


def _cross_fitted(fit: Ridge, x: np.ndarray, y: np.ndarray, image_ids: np.ndarray, seed: int) -> np.ndarray:
    """Predictions (n, E) of ridge with ``fit``'s penalty for presentations of images that it was not fitted to."""
    images, image = np.unique(image_ids, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(images)) % _FOLDS)[image]
    predicted = np.zeros(y.shape)
    for k in range(_FOLDS):
        held = fold == k
        part = fit_ridge(x[~held], y[~held], x[held], y[held], penalties=[fit.penalty])
        predicted[held] = part.predict(x[held])
    return predicted


def _set_weights(model: ImageAligner, recordings: Sequence[Responses], fits: Sequence[Ridge]) -> None:
    assert model.linear is not None
    weights, means = model.linear.unit_rows.weight, model.linear.mean_rows.weight
    for table in (weights, means):
        table.zero_()
    count = torch.zeros(len(weights), 1)
    for responses in recordings:
        count[responses.model_inputs["input_unit_index"][0]] += 1
    for responses, fit in zip(recordings, fits, strict=True):
        units = responses.model_inputs["input_unit_index"][0]
        by_step = (fit.weights / fit.inputs.std[:, None]).reshape(model.linear.num_steps, len(units), -1)
        weights[units] += torch.from_numpy(by_step).transpose(0, 1).flatten(1).to(weights) / count[units]
        mean = torch.from_numpy(fit.inputs.mean).reshape(model.linear.num_steps, -1).T
        means[units] += mean.to(means) / count[units]
    model.linear.bias.copy_(torch.from_numpy(np.mean([fit.offset for fit in fits], axis=0)))
