"""Latents of whole recordings, and how similar conditions are in them."""

import warnings
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Interval, collate
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError, require
from neurobridge_tb.models import NeuroBridgeModel

_BATCH = 64
_NEIGHBOURS = 15  # umap-learn's own choice
_MOST_POINTS = 5_000  # of a UMAP

Dissimilarity = tuple[NDArray[np.float64], NDArray[np.str_]]  # (C, C), and the names of its rows


@torch.no_grad()
def latent_series(model: NeuroBridgeModel, recording: Data) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Latents (steps, J * D) of a recording and the time of each step's middle in s.

    Windows follow one another; what is left at the end is shorter than a window and is not read. Windows without
    activity are left out.

    Args:
        model: In evaluation mode.
        recording: A whole recording.

    Raises:
        InputError: It is shorter than a window.
    """
    start, end = float(recording.domain.start[0]), float(recording.domain.end[-1])
    starts = start + model.sequence_length * np.arange(int((end - start) / model.sequence_length + 1e-6))
    parts, times = [], []
    for chunk in np.split(starts, np.arange(_BATCH, len(starts), _BATCH)):
        windows = [(s, recording.slice(s, s + model.sequence_length)) for s in chunk]
        tokens = [(s, model.tokenize(window)) for s, window in windows if _is_active(model, window)]
        if not tokens:
            continue
        latents = compute(model.encode, **collate([its for _, its in tokens]))
        steps = latents.unflatten(1, (-1, model.num_latents_per_step)).flatten(2).numpy()
        middle = model.latent_step * (np.arange(steps.shape[1]) + 0.5)
        parts += list(steps)
        times += [s + middle for s, _ in tokens]
    if not parts:
        raise InputError(
            expected=f"a recording of at least {model.sequence_length:g} s, the model's window, with activity",
            found=f"{end - start:g} s in {recording.session.id}",
            fix="Choose other recordings with dataset.recording_ids=[…].",
        )
    return np.concatenate(parts), np.concatenate(times)


def _is_active(model: NeuroBridgeModel, window: Data) -> bool:
    return bool(np.isfinite(model.grid_values(window)[0]).any())


def columns_at(table: Interval, times: NDArray[np.float64]) -> dict[str, NDArray]:
    """Each column of a table at each time: that of the row that goes on then; ``""`` or NaN between rows.

    ``row`` is the number of the row, -1 between rows.
    """
    order = np.argsort(table.start, kind="stable")
    at = np.searchsorted(np.asarray(table.start)[order], times, side="right") - 1
    row = np.where(at >= 0, order[np.maximum(at, 0)], -1)
    row = np.where((row >= 0) & (times < np.asarray(table.end)[np.maximum(row, 0)]), row, -1)
    columns: dict[str, NDArray] = {"row": row}
    for name, values in _one_dimensional(table):
        if values.dtype.kind in "US":
            columns[name] = np.where(row >= 0, values.astype(str)[np.maximum(row, 0)], "")
        else:
            columns[name] = np.where(row >= 0, values.astype(np.float64)[np.maximum(row, 0)], np.nan)
    return columns


def _one_dimensional(table: Interval) -> Iterator[tuple[str, NDArray]]:
    for name in table.keys():
        values = np.asarray(getattr(table, name))
        if values.ndim == 1 and values.dtype.kind in "biufUS":
            yield name, values


def dissimilarity(features: NDArray, conditions: NDArray[np.str_]) -> Dissimilarity:
    """Representational dissimilarity (C, C) of conditions: 1 - Pearson correlation of their mean features.

    Features are standardised over rows first (Kriegeskorte, Mur and Bandettini 2008).

    Args:
        features: (n, d); NaN are taken for the mean.
        conditions: (n,).

    Returns:
        The matrix, and the names of its rows.
    """
    z = Standardizer.fit(features)(features)
    names = np.unique(conditions)
    means = np.stack([z[conditions == name].mean(0) for name in names])
    return 1 - np.corrcoef(means), names


def principal_components(series: NDArray, count: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (n, count) on the first principal components, and the share of the variance of each."""
    centred = np.asarray(series, dtype=np.float64)
    centred = centred - centred.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, ::-1][:, :count], (values[::-1] / max(values.sum(), 1e-300))[:count]


def agreements(matrices: Mapping[str, Dissimilarity]) -> list[str]:
    """How alike each two matrices are: Spearman's correlation of what stands above their diagonals (Nili et al. 2014).

    Nothing where there are fewer than four conditions.
    """
    from scipy.stats import spearmanr

    lines = []
    for (one, (a, _)), (other, (b, _)) in combinations(matrices.items(), 2):
        above = np.triu_indices(len(a), 1)
        if len(a) > 3:
            lines.append(f"dissimilarities in {one} and {other}: Spearman {spearmanr(a[above], b[above])[0]:.2f}")
    return lines


def umap_embedding(series: NDArray, *, seed: int = 0) -> NDArray[np.float64]:
    """(n, 2) UMAP (McInnes, Healy and Melville 2018), by umap-learn; of at most 5,000 points, NaN for the others.

    Raises:
        MissingExtraError: The extra ``umap`` is not installed.
    """
    umap = require("umap", extra="umap")
    chosen = np.unique(np.linspace(0, len(series) - 1, min(len(series), _MOST_POINTS)).astype(int))
    embedded = np.full((len(series), 2), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        mapping = umap.UMAP(n_neighbors=min(_NEIGHBOURS, len(chosen) - 1), random_state=seed)
        embedded[chosen] = mapping.fit_transform(series[chosen])
    return embedded
