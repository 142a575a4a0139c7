"""The windows of one recording in each split, with their counts: what fixed-mask scores are made from."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.arrays import Floats, Standardizer
from neurobridge_tb.data.activity import Activity, window_values
from neurobridge_tb.data.behavior import read_windows
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.factor_analysis import FactorAnalysis, choose_factor_analysis
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.factor_model import log_rate_ratio
from neurobridge_tb.scoring.unit_rates import UnitRates


@dataclass(frozen=True)
class SplitWindows:
    """One recording.

    Attributes:
        windows: Of each split.
        counts: (T, N) of each of them, NaN where absent.
        areas: (N,) area of each unit.
    """

    windows: dict[str, list[LazyWindow]]
    counts: dict[str, list[NDArray[np.float32]]]
    areas: NDArray[np.str_]

    @classmethod
    def read(cls, model: NeuroBridgeModel, dataset: Dataset, recording_id: str, *, windows: str) -> "SplitWindows":
        """Read the splits ``train``, ``valid`` and ``test``; windows without any count are left out.

        Args:
            model: Knows what to read.
            dataset: Where the recording is.
            recording_id: Its id.
            windows: ``"trial"`` or ``"continuous"``.

        Raises:
            InputError: The model is of MUA.
        """
        if not model.predicts_log_rates:
            raise InputError(
                expected="a model of spikes or spike counts",
                found=f"modality '{model.modality}'",
                fix="For MUA see metrics.json of the pretraining run: masked MSE beside ridge and factor analysis.",
            )
        activity, of_split = Activity(model, dataset)[recording_id], {}
        for split in ("train", "valid", "test"):
            intervals = dataset.get_sampling_intervals(split)[recording_id]
            held = {recording_id: activity.with_values(intervals, whole=windows == "trial")}
            of_split[split] = read_windows(dataset, held, windows=windows, window_length=model.sequence_length)
        counts = {split: window_values(model, some) for split, some in of_split.items()}
        return cls(of_split, counts, model.areas(of_split["test"][0]))

    @cached_property
    def trained(self) -> UnitRates:
        """Training spikes of each unit."""
        training = np.concatenate(self.counts["train"])
        return UnitRates(np.nansum(training, axis=0), (~np.isnan(training)).sum(0))

    @cached_property
    def factors(self) -> "CountFactors":
        """Factor analysis of the training counts."""
        training = np.concatenate(self.counts["train"])
        inputs, fitted = Standardizer.fit(training), choose_factor_analysis(training)[0]
        loadings, noise = fitted.loadings / inputs.std[:, None], fitted.noise / inputs.std**2
        standard = replace(fitted, mean=np.zeros(len(noise)), loadings=loadings, noise=noise)
        return CountFactors(inputs, standard, self.trained.mean)


@dataclass(frozen=True)
class CountFactors:
    """Factor analysis of standardised counts.

    Attributes:
        inputs: How counts are standardised.
        fitted: The factors.
        mean: (N,) mean count a bin, half a spike added.
    """

    inputs: Standardizer
    fitted: FactorAnalysis
    mean: Floats

    def posterior_mean(self, counts: NDArray, keep: NDArray[np.bool_]) -> Floats:
        """(T, K) factors given the counts (T, N) kept in each bin."""
        return self.fitted.posterior(self.inputs(counts), keep & ~np.isnan(counts))[0]

    def rates(self, counts: NDArray, keep: NDArray[np.bool_]) -> Floats:
        """(T, N) expected counts, with the floor that the models have; see :func:`log_rate_ratio`."""
        predicted = self.posterior_mean(counts, keep) @ self.fitted.loadings.T
        ratio = log_rate_ratio(*(torch.from_numpy(x) for x in (predicted, self.mean, self.inputs.std)))
        return self.mean * ratio.exp().numpy()
