"""Closed forms that fill in masked cells from what is seen in the same bin: ridge (MUA) and factor analysis."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from neurobridge_tb.arrays import Floats
from neurobridge_tb.devices import compute
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis, choose_factor_analysis
from neurobridge_tb.estimators.masked_ridge import MaskedRidge, fit_masked_ridge
from neurobridge_tb.metrics.spikes import BitsPerSpike
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.factor_model import log_rate_ratio
from neurobridge_tb.scoring.unit_rates import UnitRates

_MOST_BINS = 50_000  # of training are fitted, as many as the start of a model reads
_MASKS_FOR_PENALTY = 10  # of each scheme
_AT_ONCE = 64  # windows

Baselines = dict[str, dict[str, MaskedRidge | FactorAnalysis]]  # of each recording, by name


class _Masked(NamedTuple):
    """Bins of one recording's windows, one after the other.

    Attributes:
        window: (bins,) number of the loader's window that each bin is of.
        values: (bins, N) as they are; NaN where absent.
        keep: (bins, N) which of them are seen.
        target: (bins, N) which are predicted, and exist.
        units: (N,) their numbers in the model's vocabulary.
    """

    window: NDArray[np.int64]
    values: NDArray[np.float32]
    keep: NDArray[np.bool_]
    target: NDArray[np.bool_]
    units: NDArray[np.int64]


def fit_baselines(model: NeuroBridgeModel, train: DataLoader, valid: dict[str, DataLoader]) -> Baselines:
    """Fit to the standardised activity of each recording.

    Args:
        model: Its units' statistics standardise the values.
        train: Training windows, which are fitted; the number of factors is chosen on them too.
        valid: Loaders with fixed masks, some of which choose the penalty of ridge.
    """
    activity: dict[str, list[np.ndarray]] = {}
    source: Any = train.dataset
    indices = list(train.sampler)
    n_bins = model.window_grid(source.window(indices[0]))[0]
    most = min(len(indices), max(1, _MOST_BINS // n_bins))
    for i in np.linspace(0, len(indices) - 1, most).astype(int):
        window = source.window(indices[i])
        values = standardized(model, model.grid_values(window)[0], model.unit_index(window))
        activity.setdefault(str(window.session.id), []).append(values)
    fits: Baselines = {
        session: {"factor analysis": choose_factor_analysis(np.concatenate(windows))[0]}
        for session, windows in activity.items()
    }
    masked: dict[str, list[_Masked]] = {}
    for loader in valid.values():
        if is_mua(model, loader):
            for session, bins in _masked_bins(model, loader, most=_MASKS_FOR_PENALTY):
                masked.setdefault(session, []).append(bins)
    for session, parts in masked.items():
        values, keep, target = (np.concatenate(x) for x in zip(*(part[1:4] for part in parts), strict=True))
        values = standardized(model, values, parts[0].units)
        ridge = fit_masked_ridge(np.concatenate(activity[session]), values, keep, target)
        fits[session] = {"ridge from the units kept": ridge, **fits[session]}
    return fits


def baseline_errors(model: NeuroBridgeModel, loader: DataLoader, baselines: Baselines) -> dict[str, Floats]:
    """Squared errors of each baseline on masked MUA, in standard deviations: (windows,), the loader's, summed."""
    if not baselines:
        return {}
    errors: dict[str, Floats] = {}
    n_windows = sum(1 for _ in loader.sampler)
    for session, bins in _masked_bins(model, loader):
        values = standardized(model, bins.values, bins.units)
        for name, fit in baselines[session].items():
            squared = np.where(bins.target, fit.predict(values, bins.keep) - values, 0) ** 2
            np.add.at(errors.setdefault(name, np.zeros(n_windows)), bins.window, squared.sum(1))
    return errors


def baseline_bits(
    model: NeuroBridgeModel, loader: DataLoader, baselines: Baselines, trained: UnitRates
) -> dict[str, float]:
    """Bits/spike of each baseline on windows of counts; rates have the model's floor. Nothing where there is none.

    Args:
        model: Its units' statistics standardise the counts.
        loader: With fixed masks.
        baselines: From :func:`fit_baselines`.
        trained: Of all units of the model.
    """
    if not baselines:
        return {}
    totals: dict[str, BitsPerSpike] = {}
    for session, bins in _masked_bins(model, loader):
        values, units = standardized(model, bins.values, bins.units), torch.from_numpy(bins.units)
        mean, std = compute(model.unit_stats, units).unbind(-1)
        log_mean = compute(model.unit_stats.log_mean, units)
        for name, fit in baselines[session].items():
            predicted = torch.from_numpy(fit.predict(values, bins.keep)).to(mean)
            rates = (log_mean + log_rate_ratio(predicted, mean, std)).exp()
            total = totals.setdefault(name, BitsPerSpike(trained.mean, trained.spikes))
            total.update(rates, bins.values, mask=bins.target, units=bins.units)
    return {name: total.compute().spike_weighted for name, total in totals.items()}


def standardized(model: NeuroBridgeModel, values: np.ndarray, units: NDArray[np.int64]) -> np.ndarray:
    """(bins, N) values of ``units`` in training standard deviations; NaN where absent."""
    return compute(model.standardize, torch.from_numpy(values)[None], torch.from_numpy(units)[None])[0].numpy()


def is_mua(model: NeuroBridgeModel, loader: DataLoader) -> bool:
    """Whether the windows of a loader are read as MUA."""
    source: Any = loader.dataset
    return model.modality_of(source.window(next(iter(loader.sampler)))) == "mua"


def _masked_bins(
    model: NeuroBridgeModel, loader: DataLoader, *, most: int | None = None
) -> Iterator[tuple[str, _Masked]]:
    """What the fixed masks of a loader hide of each recording, some windows at a time.

    Args:
        model: Knows what to read.
        loader: With fixed masks.
        most: About so many windows of each recording, spread evenly. Default: all.
    """
    source: Any = loader.dataset
    windows: dict[str, list[tuple[int, Any]]] = {}
    for number, index in enumerate(loader.sampler):
        windows.setdefault(index.recording_id, []).append((number, index))
    for some in windows.values():
        some = some if most is None else some[:: max(1, len(some) // most)]
        for start in range(0, len(some), _AT_ONCE):
            parts = []
            for number, index in some[start : start + _AT_ONCE]:
                window = source.window(index)
                mask, values = source.transform.draw(window), model.grid_values(window)[0]
                parts.append((np.full(len(values), number), values, mask.keep, mask.target & ~np.isnan(values)))
            number_of, values, keep, target = (np.concatenate(x) for x in zip(*parts, strict=True))
            yield str(window.session.id), _Masked(number_of, values, keep, target, model.unit_index(window))
