"""Which image was seen? Cosine top-k retrieval among candidate images, in both directions.

As for TVSD (Papale et al. 2025; Ciferri et al. 2026): 100 candidates, responses averaged over repeats or single trials.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats
from neurobridge_tb.errors import InputError

_TIE = 1e-9  # cosines closer than this count as equal: float64 rounding is far below it


def cosine_similarity(queries: Array, candidates: Array) -> Floats:
    """Cosine of every query with every candidate.

    Args:
        queries: ``(q, d)``.
        candidates: ``(c, d)``.

    Returns:
        ``(q, c)``, float64. A zero vector has cosine 0 with everything.

    Raises:
        InputError: The widths differ, or a value is NaN or infinite.
    """
    left, right = to_floats(queries), to_floats(candidates)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(
            expected="embeddings (queries, d) and (candidates, d) of one width",
            found=f"shapes {left.shape} and {right.shape}",
            fix="Embed the images with the encoder that the model was aligned to.",
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise InputError(
            expected="finite embeddings",
            found="NaN or infinite values",
            fix="Check the model's outputs and the embedding cache.",
        )
    return _unit_rows(left) @ _unit_rows(right).T


def topk_hits(similarity: Array, k: int) -> Floats:
    """For each query, the probability that its own candidate is among the ``k`` most similar.

    Ties are exact: where t candidates, the true one included, tie behind g better ones, the true one is in the first k
    with probability (k - g) / t under random order. A model that ranks alike for every query so scores exactly chance.

    Args:
        similarity: ``(..., n, n)``; query i belongs to candidate i.
        k: How many candidates are kept, 1 to n.

    Returns:
        ``(..., n)``, each 0 to 1.

    Raises:
        InputError: The matrix is not square, or ``k`` is out of range.
    """
    scores = to_floats(similarity)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2] or not 1 <= k <= scores.shape[-1]:
        raise InputError(
            expected="similarities (..., n, n), query i belonging to candidate i, and 1 <= k <= n",
            found=f"shape {scores.shape} and k={k}",
            fix="Give one query a candidate, in the same order.",
        )
    above = scores - np.diagonal(scores, axis1=-2, axis2=-1)[..., None]
    better = (above > _TIE).sum(-1)
    tied = (np.abs(above) <= _TIE).sum(-1)
    return np.clip((k - better) / tied, 0.0, 1.0)


def bootstrap_interval(
    scores: Array, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron and Tibshirani 1993).

    Args:
        scores: ``(n,)``, one a query; the queries are resampled.
        resamples: Bootstrap samples.
        confidence: Coverage, 0 to 1.
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound.
    """
    values = to_floats(scores)
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values[draws].mean(1), [tail, 100 - tail])
    return float(low), float(high)


def retrieval_rows(
    predicted: Array,
    images: Array,
    *,
    model: str,
    ks: Sequence[int] = (1, 5),
    resamples: int = 2000,
    permutations: int = 0,
    seed: int = 0,
    by_query: bool = False,
) -> list[dict[str, Any]]:
    """Table rows for one model: top-k in both directions, each with a 95 % bootstrap interval.

    Args:
        predicted: Embeddings from neural activity: ``(n, d)`` for repeat averages, or ``(repeats, n, d)`` for single
            trials. Row i belongs to image i.
        images: ``(n, d)`` embeddings of the candidate images.
        model: What the rows are called.
        ks: The k of top-k.
        resamples: Bootstrap samples.
        permutations: Of the permutation test of the first k. Default 0: none.
        seed: Seed of both.
        by_query: Also give, under ``by query``, each image's hits, of which ``value`` is the mean. Default False.

    Returns:
        Two rows (neural to image, image to neural) of ``model``, ``trials`` ("repeat average" or "single trial"),
        ``direction``, ``n_candidates`` and, for each k, ``top<k>``: ``value``, ``low``, ``high`` as fractions; and
        ``p``, see :func:`permutation_test`. Single trials of an image are not independent, so images are resampled,
        each with all of its trials; from image to neural, each repeat's
        n trials are one set of candidates.
    """
    activity = to_floats(predicted)
    repeats = activity if activity.ndim == 3 else activity[None]
    to_image = np.stack([cosine_similarity(trials, images) for trials in repeats])
    trials = "single trial" if activity.ndim == 3 else "repeat average"
    directions = {"neural to image": to_image, "image to neural": to_image.swapaxes(1, 2)}
    rows = []
    for direction, similarity in directions.items():
        hits = [topk_hits(similarity, k).mean(0) for k in ks]
        row: dict[str, Any] = {
            "model": model,
            "trials": trials,
            "direction": direction,
            "n_candidates": to_image.shape[2],
        }
        row |= _scores(hits, ks, resamples, seed)
        if permutations:
            row["p"] = permutation_test(similarity, ks[0], permutations=permutations, seed=seed)
        if by_query:
            row["by query"] = {f"top{k}": per_image.tolist() for k, per_image in zip(ks, hits, strict=True)}
        rows.append(row)
    return rows


def permutation_test(similarity: Array, k: int = 1, *, permutations: int = 10_000, seed: int = 0) -> float:
    """Is top-k retrieval better than with candidates dealt out at random?

    All trials of an image keep together, since they are not independent of one another.

    Args:
        similarity: ``(..., n, n)``; query i belongs to candidate i.
        k: How many candidates are kept, 1 to n.
        permutations: Random assignments of candidates to queries.
        seed: Seed of these.

    Returns:
        p = (1 + permutations at least as good as the truth) / (1 + permutations).
    """
    scores = to_floats(similarity)
    n = scores.shape[-1]
    scores = scores.reshape(-1, n, n)
    queries, found = np.arange(n), np.empty((n, n))
    for step in range(n):  # how often query i finds candidate i + step
        candidates = (queries + step) % n
        found[queries, candidates] = topk_hits(scores[:, :, candidates], k).mean(0)
    generator = np.random.default_rng(seed)
    random = np.array([found[queries, generator.permutation(n)].mean() for _ in range(permutations)])
    return float((1 + (random >= found[queries, queries].mean() - _TIE).sum()) / (1 + permutations))


def split_half_row(
    repeats: Array,
    *,
    ks: Sequence[int] = (1, 5),
    splits: int = 20,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Noise ceiling: how often one half of an image's repeats finds the other half.

    Each half's responses are z-scored per unit over images and compared by cosine; hits are averaged over splits.

    Args:
        repeats: ``(repeats, n, units)`` responses, at least two repeats; NaN counts as the unit's mean.
        ks: The k of top-k.
        splits: Random halvings of the repeats.
        resamples: Bootstrap samples of images.
        seed: Seed of splits and bootstrap.

    Returns:
        A row as :func:`retrieval_rows` makes them, with direction "neural to neural".
    """
    responses = to_floats(repeats)
    if responses.ndim != 3 or len(responses) < 2:
        raise InputError(
            expected="responses (repeats, images, units) with at least two repeats",
            found=f"shape {responses.shape}",
            fix="A split-half ceiling needs repeated presentations; leave it out without them.",
        )
    generator, half = np.random.default_rng(seed), len(responses) // 2
    hits = []
    for _ in range(splits):
        order = generator.permutation(len(responses))
        first = _z_scored_mean(responses[order[:half]])
        second = _z_scored_mean(responses[order[half:]])
        similarity = cosine_similarity(first, second)
        hits.append([topk_hits(similarity, k) for k in ks])
    return {
        "model": "noise ceiling (split half)",
        "trials": "repeat average",
        "direction": "neural to neural",
        "n_candidates": responses.shape[1],
        **_scores(list(np.mean(hits, axis=0)), ks, resamples, seed),
    }


def chance(n_candidates: int, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Chance level of each ``top<k>`` among ``n_candidates``."""
    return {f"top{k}": k / n_candidates for k in ks}


def _scores(hits: list[Floats], ks: Sequence[int], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    scores = {}
    for k, per_image in zip(ks, hits, strict=True):
        low, high = bootstrap_interval(per_image, resamples=resamples, seed=seed)
        scores[f"top{k}"] = {"value": float(per_image.mean()), "low": low, "high": high}
    return scores


def _unit_rows(rows: Floats) -> Floats:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)


def _z_scored_mean(trials: Floats) -> Floats:
    observed = ~np.isnan(trials)
    count = observed.sum(0)
    total = np.where(observed, trials, 0.0).sum(0)
    mean = np.divide(total, count, where=count > 0, out=np.full(count.shape, np.nan))
    return Standardizer.fit(mean)(mean)
