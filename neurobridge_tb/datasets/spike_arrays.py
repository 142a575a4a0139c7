"""Spikes in the forms in which programs hold them, as one sorted list of events."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurobridge_tb.datasets.columns import as_text, seconds
from neurobridge_tb.datasets.validation.array_checks import require_input, sorted_times

Spikes = tuple[ArrayLike, ArrayLike] | Sequence[ArrayLike] | Mapping[Any, ArrayLike]


def spike_events(spikes: Spikes, ids: NDArray[np.str_]) -> dict[str, NDArray]:
    """Columns ``timestamps`` (s, sorted) and ``unit_index``.

    Args:
        spikes: A tuple ``(times, unit_index)``; or times of one unit each, in a list in the order of ``ids`` or in a
            mapping by id. A unit's times are arrays in s, timedeltas, neo SpikeTrains or pynapple Ts; they are sorted.
        ids: (N,) unit ids.

    Raises:
        InputError: They do not fit the units.
    """
    if isinstance(spikes, tuple) and len(spikes) == 2:
        times = sorted_times("times of spikes", spikes[0])
        return {"timestamps": times, "unit_index": _unit_indices(spikes[1], len(times), len(ids))}
    trains = [_train(train) for train in _in_order(spikes, ids)]
    require_input(
        len(trains) == len(ids),
        expected=f"spikes: one array of times for each of {len(ids)} units, or a tuple (times, unit_index)",
        found=f"{len(trains)} arrays",
        fix="Give an empty array for a unit without spikes.",
    )
    times, owners = np.concatenate(trains), np.repeat(np.arange(len(ids)), [len(train) for train in trains])
    order = np.argsort(times, kind="stable")
    return {"timestamps": sorted_times("times of spikes", times[order]), "unit_index": owners[order]}


def _in_order(spikes: Any, ids: NDArray[np.str_]) -> list[Any]:
    if not hasattr(spikes, "keys"):
        return list(spikes)
    named = dict(zip(as_text(list(spikes.keys())).tolist(), (spikes[key] for key in spikes.keys()), strict=True))
    different = sorted(set(named) ^ set(ids.tolist()))
    require_input(
        not different,
        expected=f"spikes of each of the {len(ids)} unit ids",
        found=f"{len(named)} keys; on one side only: {', '.join(different[:5])}",
        fix="Name the arrays by the ids of units, or give a list in the order of units.",
    )
    return [named[unit] for unit in ids]


def _train(train: Any) -> NDArray[np.float64]:
    """Times in s of one unit, (n,); those of a pynapple Ts are its attribute ``t``."""
    times = getattr(train, "t", None)
    return seconds("times of spikes", times if isinstance(times, np.ndarray) else train).ravel()


def _unit_indices(unit_index: ArrayLike, n_spikes: int, n_units: int) -> NDArray[np.int64]:
    """One row of the unit table for each spike, (n_spikes,)."""
    index = np.asarray(unit_index)
    are_numbers = index.dtype.kind in "biuf" and index.size > 0
    fits = index.shape == (n_spikes,) and (index.size == 0 or (index.dtype.kind in "iu" and index.min() >= 0))
    require_input(
        bool(fits and (index.size == 0 or index.max() < n_units)),
        expected=f"unit_index of {n_spikes} whole numbers from 0 to {n_units - 1}, one for each spike",
        found=f"shape {index.shape}, type {index.dtype}"
        + (f", from {index.min()} to {index.max()}" if are_numbers else ""),
        fix="unit_index counts the rows of units from 0. Give times of one unit each as a list, not as a tuple.",
    )
    return index.astype(np.int64)
