"""The closed-form start of a model's factors: fitted to the training activity, recording by recording."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.data.activity import Activity
from neurobridge_tb.estimators.factor_analysis import NUMBERS, FactorAnalysis
from neurobridge_tb.estimators.window_factors import fit_window_factors
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.unit_rows import rows_of

_MOST_BINS = 50_000  # of each recording


class FittedFactors(NamedTuple):
    """Factors of recordings that share units.

    Attributes:
        recording_ids: These recordings.
        unit_ids: Their units.
        model: Loadings and own variances of the units, in training standard deviations.
        dynamics: ``(factors, factors)`` how factors follow each other from bin to bin.
        errors: For each number of factors tried, the masked error in units' variances.
    """

    recording_ids: list[str]
    unit_ids: list[str]
    model: FactorAnalysis
    dynamics: NDArray[np.float64]
    errors: dict[str, float]


def start_from_factor_analysis(
    model: NeuroBridgeModel,
    dataset: Dataset,
    intervals: dict[str, Interval],
    *,
    known: Iterable[str] = (),
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Fit at most as many factors as the model has to each recording, and set the rows of its units and its own.

    Args:
        model: With vocabularies and unit statistics; without a factor model, nothing is done.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording; one without any is left out.
        known: Ids of units whose rows stay as they are. The factors of a recording that has some are turned towards
            these units' rows.
        seed: Seed of the masks that choose the number of factors.

    Returns:
        For each recording, for each number of factors tried, the masked error in units' variances.
    """
    if model.factors is None:
        return {}
    fits = fit_factors(model, dataset, intervals, most=model.factors.loading_rows.embedding_dim, seed=seed)
    set_factors(model, fits, known=known)
    return errors_of(fits)


def fit_factors(
    model: NeuroBridgeModel, dataset: Dataset, intervals: dict[str, Interval], *, most: int, seed: int = 0
) -> list[FittedFactors]:
    """Fit factors to the standardised training activity.

    Numbers of factors are those that predict hidden units best; in windows of several bins there are slow and fast
    ones. Recordings that share units are fitted together, units that one of them lacks being absent there; otherwise
    one recording at a time is read.

    Args:
        model: With vocabularies and unit statistics; it reads the recordings, and does not change.
        dataset: Where the recordings are.
        intervals: Training intervals of each recording; one without any is left out.
        most: Largest number of factors.
        seed: Seed of the masks that choose the number of factors.
    """
    recordings, fits = Activity(model, dataset), []
    for group in _groups_that_share_units(dataset, [r for r, interval in intervals.items() if len(interval)]):
        units, activity, lengths = _activity(recordings, intervals, group)
        numbers = [*(n for n in NUMBERS if n < most), most]
        fits.append(FittedFactors(group, units, *fit_window_factors(activity, lengths, numbers=numbers, seed=seed)))
    return fits


def set_factors(model: NeuroBridgeModel, fits: Sequence[FittedFactors], *, known: Iterable[str] = ()) -> None:
    """Set the rows of units and recordings to what was fitted.

    Args:
        model: With vocabularies and a factor model of at least as many factors.
        fits: From :func:`fit_factors`.
        known: See :func:`start_from_factor_analysis`.
    """
    assert model.factors is not None
    kept = set(known)
    for recording_ids, units, fitted, dynamics, _ in fits:
        turn = _turn(model, units, fitted, kept)
        loadings = fitted.loadings @ turn
        new = np.array([unit not in kept for unit in units])
        model.factors.set(
            [unit for unit in units if unit not in kept],
            torch.from_numpy(loadings[new]),
            torch.from_numpy(fitted.noise[new]),
            torch.from_numpy(fitted.bins[new]),
        )
        model.factors.set_dynamics(recording_ids, torch.from_numpy(turn.T @ dynamics @ turn))


def errors_of(fits: Sequence[FittedFactors]) -> dict[str, dict[str, float]]:
    """The errors of each recording."""
    return {recording: fit.errors for fit in fits for recording in fit.recording_ids}


def _groups_that_share_units(dataset: Dataset, recording_ids: list[str]) -> list[list[str]]:
    groups: list[tuple[list[str], set[str]]] = []
    for recording_id in recording_ids:
        units = set(dataset.get_recording(recording_id).units.id.astype(str).tolist())
        shared = [group for group in groups if group[1] & units]
        groups = [group for group in groups if group not in shared]
        groups.append(([*(r for ids, _ in shared for r in ids), recording_id], units.union(*(u for _, u in shared))))
    return [ids for ids, _ in groups]


def _activity(
    recordings: Activity, intervals: dict[str, Interval], recording_ids: list[str]
) -> tuple[list[str], NDArray[np.float64], list[int]]:
    """Unit ids, standardised activity (bins, units) of windows one after the other, and how many bins each has.

    NaN where absent.
    """
    column: dict[str, int] = {}
    parts: list[tuple[list[int], NDArray[np.float32]]] = []
    lengths: list[int] = []
    for recording_id in recording_ids:
        recording = recordings[recording_id]
        columns = [column.setdefault(unit, len(column)) for unit in recording.unit_ids]
        windows = recording.standardized(intervals[recording_id], most_bins=_MOST_BINS)
        parts.append((columns, np.concatenate(windows)))
        lengths += map(len, windows)
    activity = np.full((sum(len(x) for _, x in parts), len(column)), np.nan)
    row = 0
    for columns, x in parts:
        activity[row : row + len(x), columns] = x
        row += len(x)
    return list(column), activity, lengths


def _turn(model: NeuroBridgeModel, units: list[str], fitted: FactorAnalysis, known: set[str]) -> NDArray[np.float64]:
    """(factors, K), orthonormal rows: to the model's factors, agreeing best with rows of units that have some.

    The orthogonal Procrustes problem (Schoenemann 1966).
    """
    assert model.factors is not None
    table = model.factors.loading_rows
    turn = np.eye(fitted.loadings.shape[1], table.embedding_dim)
    have = np.array([unit in known for unit in units])
    if not have.any():
        return turn
    rows = table.weight.detach()[rows_of(table, [u for u in units if u in known])].double().numpy()
    left, _, right = np.linalg.svd(turn.T @ (fitted.loadings[have].T @ rows))
    return turn @ (left @ right)
