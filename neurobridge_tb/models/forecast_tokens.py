"""What a forecaster reads of a window of a recording, its past and what comes after, and how it becomes tensors."""

from typing import Any

import numpy as np
import torch

from neurobridge_tb._upstream import Data, create_linspace_latent_tokens, pad, pad2d, pad8, track_mask8
from neurobridge_tb.errors import InputError
from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.nn.unit_rows import UnitStatistics


class ForecastTokens:
    """Mixin of forecasters that read windows of recordings; everything here runs on the CPU.

    A subclass sets the attributes.

    Attributes:
        encoder: Reads the past.
        history: Length of the past in s.
        bin_size: Bin width in s.
        n_past: Bins of past.
        n_future: Bins of future, at most.
        unit_stats: Its vocabulary numbers the units.
    """

    encoder: NeuroBridgeModel
    history: float
    bin_size: float
    n_past: int
    n_future: int

    @property
    def unit_stats(self) -> UnitStatistics:
        """Mean and standard deviation of each unit's counts a bin."""
        return self.encoder.unit_stats

    def tokenize(self, data: Data) -> dict[str, Any]:
        """Tokenize a window that begins with ``history`` s of past; usable as a Dataset transform. Runs on the CPU.

        Args:
            data: A window of at least ``history`` s.

        Returns:
            Keywords of :meth:`generate`, wrapped for upstream's ``collate``.

        Raises:
            InputError: The window is shorter than the past or has no values there, or units that are not known.
        """
        return self._inputs(data, self._counts(data))

    def tokenize_with_targets(self, data: Data) -> dict[str, Any]:
        """Tokenize a window and what comes after its past, to train and to score.

        Args:
            data: A window of ``history`` s and up to ``horizon`` s more; what is missing at the end is absent.

        Returns:
            ``model_inputs`` (keywords of :meth:`forward` but ``future``), ``target_values`` (T, N) and ``target_mask``
            (T, N), ``session_id``, ``absolute_start`` (s), wrapped for upstream's ``collate``.

        Raises:
            InputError: As :meth:`tokenize`.
        """
        counts = self._counts(data)
        inputs = self._inputs(data, counts)
        future = counts[self.n_past : self.n_past + self.n_future]
        target = np.full((self.n_future, counts.shape[1]), np.nan, np.float32)
        target[: len(future)] = future
        return {
            "model_inputs": inputs,
            "target_values": pad2d(torch.from_numpy(np.nan_to_num(target))),
            "target_mask": pad2d(torch.from_numpy(~np.isnan(target))),
            "session_id": str(data.session.id),
            "absolute_start": float(data.absolute_start),
        }

    def _inputs(self, data: Data, counts: np.ndarray) -> dict[str, Any]:
        unit_index = self._unit_index(data)
        past = counts[: self.n_past]
        present = ~np.isnan(past)
        if len(past) < self.n_past or not present.any():
            raise InputError(
                expected=f"{self.n_past} bins of {self.bin_size} s of past in every window",
                found=f"{len(past)} bins with {present.sum()} values in recording {data.session.id} "
                f"at {float(data.absolute_start):.3f} s",
                fix="Draw windows of at least the model's history inside the recording.",
            )
        latent_index, latent_timestamps = create_linspace_latent_tokens(
            0, self.history, step=self.encoder.latent_step, num_latents_per_step=self.encoder.num_latents_per_step
        )
        seen = (
            self._events(data, unit_index)
            if self.encoder.reads_events
            else {
                "input_values": pad2d(torch.from_numpy(np.nan_to_num(past))),
                "input_mask": pad2d(torch.from_numpy(present)),
                "input_timestamps": torch.arange(self.n_past) * self.bin_size,
                "input_unit_index": pad(torch.from_numpy(unit_index)),
            }
        )
        return seen | {
            "latent_index": torch.from_numpy(latent_index),
            "latent_timestamps": torch.from_numpy(latent_timestamps.astype(np.float32)),
            "past": pad2d(torch.from_numpy(np.nan_to_num(past))),
            "past_mask": pad2d(torch.from_numpy(present)),
            "unit_index": pad(torch.from_numpy(unit_index)),
        }

    def check_bins(self, data: Data) -> None:
        """Refuse a recording whose bins of spike counts are not those of the model."""
        if self.encoder.reads_events or not hasattr(data, "spike_counts"):
            return
        width = 1 / data.spike_counts.sampling_rate
        if abs(width - self.bin_size) > 1e-6 * self.bin_size:
            raise InputError(
                expected=f"bins of {self.bin_size} s, those of the model",
                found=f"bins of {width:.6g} s in recording {data.session.id}",
                fix="Set model.bin_size to the recording's (a trained model keeps its own), or prepare it anew.",
            )

    def _counts(self, data: Data) -> np.ndarray:
        """(T, N) float32 counts of a window's bins."""
        if not self.encoder.reads_events:
            self.check_bins(data)
            return self.encoder.grid_values(data)[0]
        n_bins = int((data.domain.end[-1] - data.domain.start[0]) / self.bin_size + 1e-6)
        counts = np.zeros((n_bins, len(data.units)), np.float32)
        bins = np.floor(data.spikes.timestamps / self.bin_size + 1e-9).astype(np.int64)
        inside = (bins >= 0) & (bins < n_bins)
        np.add.at(counts, (bins[inside], data.spikes.unit_index[inside]), 1.0)
        return counts

    def _unit_index(self, data: Data) -> np.ndarray:
        try:
            return self.encoder.unit_lookup(self.unit_stats, data)
        except KeyError as unknown:
            raise InputError(
                expected="units that the model knows",
                found=f"unit {unknown} of recording {data.session.id}",
                fix="Units that were not trained need model.unit_identity=features and add_units(ids, features).",
            ) from None

    def _events(self, data: Data, unit_index: np.ndarray) -> dict:
        """The past's spikes; a past without any is one token of no unit."""
        times = data.spikes.timestamps
        seen = times < self.n_past * self.bin_size - 1e-9
        times, units = times[seen], unit_index[data.spikes.unit_index[seen]]
        if not len(times):
            times, units = np.zeros(1), np.zeros(1, np.int64)
        return {
            "input_mask": track_mask8(units),
            "input_timestamps": pad8(torch.from_numpy(times.astype(np.float32))),
            "input_unit_index": pad8(torch.from_numpy(units)),
        }
