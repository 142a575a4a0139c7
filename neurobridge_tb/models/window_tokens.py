"""What a model reads of a window of a recording, values on a grid or spike events, and how it becomes tensors."""

from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import (
    Data,
    InfiniteVocabEmbedding,
    chain,
    create_linspace_latent_tokens,
    pad,
    pad2d,
    pad8,
    track_mask8,
)
from neurobridge_tb.datasets.areas import unit_areas
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.models.unit_lookup import UnitLookup
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

GRID_MODALITIES = ("mua", "spike_counts")


def check_modalities(modality: Any) -> tuple[str, ...]:
    """The modalities that a model reads, in order.

    Args:
        modality: ``"mua"``, ``"spike_counts"``, ``"spikes"``, or a list of the first two.

    Raises:
        InputError: It is anything else. Spike events do not mix with grids: their tokens have another form.
    """
    names = (modality,) if isinstance(modality, str) else tuple(modality)
    allowed = GRID_MODALITIES if len(names) != 1 else (*GRID_MODALITIES, "spikes")
    if not names or len(set(names)) != len(names) or not set(names) <= set(allowed):
        raise InputError(
            expected="modality 'mua', 'spike_counts' or 'spikes', or the list [mua, spike_counts]",
            found=repr(modality if isinstance(modality, str) else list(modality)),
            fix="Choose what the recordings hold: MUA or counts on a grid, or spike events. To train on spike events "
            "together with MUA, prepare their counts in bins.",
        )
    return names


class WindowTokens:
    """Mixin of models that read windows of recordings; everything here runs on the CPU.

    A subclass sets the attributes.

    Attributes:
        modalities: What is read, see :func:`check_modalities`. Of several, each recording is read as the first that it
            holds.
        sequence_length: Length of a window in s.
        latent_step: Time between latent steps in s.
        num_latents_per_step: Latents at each step.
        bin_size: Bin width in s in which spike events are counted.
        bin_widths: Bin width in s of each recording on a grid that the model was fitted to, by its id.
        boundary_tokens: Each unit seen has two more tokens, at the window's start and end (spike events).
        has_factors: There is a factor model, which needs to know which bins share a mask, and counts of spike events.
        unit_emb: Its vocabulary numbers the units.
        unit_lookup: Remembers these numbers, recording by recording.
        session_emb: Its vocabulary numbers the recordings.
    """

    modalities: tuple[str, ...]
    sequence_length: float
    latent_step: float
    num_latents_per_step: int
    bin_size: float
    bin_widths: dict[str, float]
    boundary_tokens: bool
    has_factors: bool = False
    unit_emb: InfiniteVocabEmbedding
    session_emb: InfiniteVocabEmbedding
    unit_lookup: UnitLookup

    @property
    def reads_events(self) -> bool:
        """Whether the input is spike events, and not values on a grid."""
        return self.modalities == ("spikes",)

    @property
    def predicts_log_rates(self) -> bool:
        """Whether the predictions are log-rates (counts, spikes), and not standardised values (MUA).

        Raises:
            InputError: The model does both; :meth:`modality_of` tells of a window which.
        """
        if len(self.modalities) > 1:
            raise InputError(
                expected="a model of one modality",
                found=f"one of {', '.join(self.modalities)}",
                fix="Ask model.modality_of(window): 'mua' is predicted in standardised values, counts in log-rates.",
            )
        return self.modalities != ("mua",)

    def modality_of(self, data: Data) -> str:
        """Which of the model's modalities a recording, or a window of it, is read as: the first that it holds."""
        held = data.keys()
        for modality in self.modalities:
            if _part_of(modality) in held:
                return modality
        wanted = "modality" if len(self.modalities) == 1 else "modalities"
        raise InputError(
            expected=f"'{', '.join(map(_part_of, self.modalities))}' in recording {data.session.id} "
            f"({wanted} '{', '.join(self.modalities)}')",
            found=", ".join(sorted(held)),
            fix="Set the model's modality to what the recording holds, or prepare the recording with it.",
        )

    def window_grid(self, data: Data) -> tuple[int, NDArray[np.str_]]:
        """Bins of a window, and the brain area of each unit ("" where unknown): what a masking scheme needs."""
        n_bins = self._bin_edges().size - 1 if self.reads_events else len(self.series_of(data))
        return n_bins, self.areas(data)

    @staticmethod
    def areas(data: Data) -> NDArray[np.str_]:
        """(N,) brain area of each unit, "" where unknown."""
        return unit_areas(data.units)

    def absent(self, data: Data) -> NDArray[np.bool_] | None:
        """(T, N) which values of a window are absent (NaN); None where all exist, as spikes and whole numbers do."""
        if self.reads_events or (values := self.series_of(data).value).dtype.kind != "f":
            return None
        absent = np.isnan(values)
        return absent if absent.any() else None

    def grid_values(self, data: Data) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Values (T, N) float32 and bin times (T,) float64 in s of a window; spike events are counted in bins."""
        if not self.reads_events:
            return np.asarray(self.series_of(data).value, dtype=np.float32), self.bin_times(data)
        edges = self._bin_edges()
        counts = np.zeros((edges.size - 1, len(data.units)), dtype=np.float32)
        bins = np.searchsorted(edges, data.spikes.timestamps, side="right") - 1
        inside = (bins >= 0) & (bins < len(counts))
        np.add.at(counts, (bins[inside], data.spikes.unit_index[inside]), 1.0)
        return counts, self.bin_times(data)

    def bin_times(self, data: Data) -> NDArray[np.float64]:
        """(T,) starts of the bins of a window in s."""
        return self._bin_edges()[:-1] if self.reads_events else self.series_of(data).timestamps

    def tokenize(self, data: Data) -> dict[str, Any]:
        """Tokenize a window of ``sequence_length`` as POYO does; usable as a Dataset transform.

        Args:
            data: A window of a recording.

        Returns:
            Keywords of :meth:`forward`, wrapped for upstream's ``collate``: all but ``output_timestamps``, the times of
            the prediction. ``output_unit_index`` are all units of the recording. A NaN is an absent value, which is not
            seen.

        Raises:
            InputError: The window has no values, or units or a recording that the model does not know.
        """
        values, timestamps, present = self._window(data)
        unit_index = self.unit_index(data)
        inputs = self._inputs(data, values, timestamps, unit_index, keep=present)
        return inputs | {"output_unit_index": pad(torch.from_numpy(unit_index))}

    def tokenize_with_targets(self, data: Data, mask: Mask | None = None) -> dict[str, Any]:
        """Tokenize a window for masked prediction.

        Args:
            data: A window of a recording.
            mask: Which cells the encoder sees and which are targets. Default: all are both.

        Returns:
            ``model_inputs`` (keywords of :meth:`forward`), ``target_values`` (K, M), ``scheme``,
            ``session_id``, ``absolute_start`` (s), wrapped for upstream's ``collate``. A NaN is an absent value: it is
            neither seen nor a target.

        Raises:
            InputError: As :meth:`tokenize`.
        """
        values, timestamps, present = self._window(data)
        keep = present if mask is None else present & mask.keep
        target = present if mask is None else present & mask.target
        unit_index = self.unit_index(data)
        bins, units = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
        target = target[bins].take(units, axis=1)
        cells = _listed(target)
        return {
            "model_inputs": self._inputs(data, values, timestamps, unit_index, keep)
            | {
                "output_timestamps": pad(torch.from_numpy(timestamps[bins])),
                "output_unit_index": pad(torch.from_numpy(unit_index[units])),
                "output_mask": pad2d(torch.from_numpy(target)),
                "output_cells": chain(torch.from_numpy(cells)),
                "output_cell_count": len(cells),
            },
            "target_values": pad2d(torch.from_numpy(values[bins].take(units, axis=1))),
            "scheme": "none" if mask is None else mask.scheme,
            "session_id": str(data.session.id),
            "absolute_start": float(data.absolute_start),
        }

    def _window(self, data: Data) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Values (T, N) of a window, 0 where absent; bin times (T,) in s from its start; which values exist (T, N)."""
        values, timestamps = self.grid_values(data)
        present = ~np.isnan(values)
        if not present.all():
            values = np.where(present, values, np.float32(0))
        return values, timestamps.astype(np.float32), present

    def unit_index(self, data: Data) -> NDArray[np.int64]:
        """(N,) numbers of the units of a recording, or of a window of it, in the model's vocabulary.

        Raises:
            InputError: The model does not know all of them.
        """
        try:
            return self.unit_lookup(self.unit_emb, data)
        except KeyError as unknown:
            raise _unknown(unknown, data) from unknown

    def _session_index(self, data: Data) -> int:
        try:
            return self.session_emb.tokenizer(str(data.session.id))
        except KeyError as unknown:
            raise _unknown(unknown, data) from unknown

    def _inputs(
        self, data: Data, values: np.ndarray, timestamps: np.ndarray, unit_index: np.ndarray, keep: np.ndarray
    ) -> dict[str, Any]:
        """What the encoder reads of a window, and the recording's number."""
        if not keep.any():
            raise InputError(
                expected="at least one value to encode in every window",
                found=f"none in recording {data.session.id} at {float(data.absolute_start):.3f} s "
                f"({values.shape[0]} bins x {values.shape[1]} units)",
                fix="Leave this stretch of the recording out of its domains, or check the recording for NaN.",
            )
        latent_index, latent_timestamps = self._latent_tokens
        seen = (
            self._event_inputs(data, keep, unit_index)
            if self.reads_events
            else self._modality_index(data)
            | {
                "input_values": pad2d(torch.from_numpy(values)),
                "input_mask": pad2d(torch.from_numpy(keep)),
                "input_timestamps": pad(torch.from_numpy(timestamps)),
                "input_unit_index": pad(torch.from_numpy(unit_index)),
            }
        )
        return (
            seen
            | self._factor_inputs(values, timestamps, unit_index, keep)
            | {
                "latent_index": torch.from_numpy(latent_index),
                "latent_timestamps": torch.from_numpy(latent_timestamps),
                "session_index": self._session_index(data),
            }
        )

    def _factor_inputs(
        self, values: np.ndarray, timestamps: np.ndarray, unit_index: np.ndarray, keep: np.ndarray
    ) -> dict[str, Any]:
        """Sets of units seen, which of them each bin has, and for events the counts in bins."""
        if not self.has_factors:
            return {}
        rows = np.packbits(keep, axis=1)
        number: dict[bytes, int] = {}  # of each set, in the order in which they come
        which = [number.setdefault(row.tobytes(), len(number)) for row in rows]
        first = [which.index(k) for k in range(len(number))]
        inputs = {
            "mask_patterns": pad2d(torch.from_numpy(keep[first])),
            "mask_pattern_index": pad(torch.from_numpy(np.array(which))),
        }
        if self.reads_events:
            inputs |= {
                "count_values": pad2d(torch.from_numpy(values)),
                "count_mask": pad2d(torch.from_numpy(keep)),
                "count_timestamps": pad(torch.from_numpy(timestamps)),
                "count_unit_index": pad(torch.from_numpy(unit_index)),
            }
        return inputs

    def _event_inputs(self, data: Data, keep: np.ndarray, unit_index: np.ndarray) -> dict[str, Any]:
        bins = np.clip(np.searchsorted(self._bin_edges(), data.spikes.timestamps, side="right") - 1, 0, len(keep) - 1)
        seen = keep[bins, data.spikes.unit_index]
        times, units = data.spikes.timestamps[seen], unit_index[data.spikes.unit_index[seen]]
        inputs = {}
        if self.boundary_tokens:
            bounded = unit_index[keep.any(0)]
            types = np.concatenate([np.tile([1, 2], len(bounded)), np.zeros(len(units), dtype=np.int64)])
            times = np.concatenate([np.tile([0.0, self.sequence_length], len(bounded)), times])
            units = np.concatenate([np.repeat(bounded, 2), units])
            inputs["input_token_type"] = pad8(torch.from_numpy(types))
        return inputs | {
            "input_mask": track_mask8(units),
            "input_timestamps": pad8(torch.from_numpy(times.astype(np.float32))),
            "input_unit_index": pad8(torch.from_numpy(units)),
        }

    def _modality_index(self, data: Data) -> dict:
        """Which of several modalities a window is."""
        return {"modality_index": self.modalities.index(self.modality_of(data))} if len(self.modalities) > 1 else {}

    @property
    def num_latents(self) -> int:
        """Latents of a window, L."""
        return len(self._latent_tokens[0])

    @cached_property
    def _latent_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        index, timestamps = create_linspace_latent_tokens(
            0, self.sequence_length, step=self.latent_step, num_latents_per_step=self.num_latents_per_step
        )
        return index, timestamps.astype(np.float32)

    def _bin_edges(self) -> NDArray[Any]:
        return np.arange(round(self.sequence_length / self.bin_size) + 1) * self.bin_size

    def series_of(self, data: Data) -> Any:
        """The series of values that is read of a recording, or of a window of it.

        Raises:
            InputError: Its bins are not as wide as those of this recording were when the model was fitted to it.
        """
        series = getattr(data, _part_of(self.modality_of(data)))
        width = self.bin_widths.get(str(data.session.id)) if self.bin_widths else None
        if width is not None and abs(width * series.sampling_rate - 1) > 1e-6:
            raise InputError(
                expected=f"bins of {width:.6g} s in recording {data.session.id}, as when the model was trained on it",
                found=f"bins of {1 / series.sampling_rate:.6g} s",
                fix="Take the recording as it was, or train a model on this one.",
            )
        return series


@cache
def _part_of(modality: str) -> str:
    """The part of a recording that is read."""
    return "spikes" if modality == "spikes" else MODALITY_REGISTRY[modality].value_key.split(".")[0]


def _listed(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(P, 2) row and column of each True cell, row by row: ``np.argwhere``, sooner."""
    places = np.empty((*cells.shape, 2), dtype=np.int32)
    places[..., 0] = np.arange(cells.shape[0])[:, None]
    places[..., 1] = np.arange(cells.shape[1])
    return places.reshape(-1, 2).compress(cells.ravel(), axis=0)


def _unknown(word: KeyError, data: Data) -> InputError:
    return InputError(
        expected="units and recordings that the model knows",
        found=f"{word} in recording {data.session.id}",
        fix="Adapt the model to new recordings with `neurobridge adapt`, or call model.extend_vocabs(dataset).",
    )
