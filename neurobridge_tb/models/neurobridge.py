"""NeuroBridgeModel: a CaPOYO-derived encoder of neural activity with a masking head."""

import inspect
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import (
    Data,
    Dataset,
    FeedForward,
    InfiniteVocabEmbedding,
    Interval,
    RotaryCrossAttention,
    RotarySelfAttention,
    RotaryTimeEmbedding,
    create_linspace_latent_tokens,
    pad,
    pad2d,
    pad8,
    track_mask8,
)
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.models.pretrained import PretrainedModel
from neurobridge_tb.nn.grid_decoder import GridDecoder
from neurobridge_tb.nn.population import PopulationEmbedding
from neurobridge_tb.nn.unit_rows import UnitStatistics, shared_rows
from neurobridge_tb.nn.value_attention import grid_value_attention, value_token_rows
from neurobridge_tb.registry_ext import MODALITY_REGISTRY


class NeuroBridgeModel(PretrainedModel):
    """Encoder of spikes, counts and multi-unit activity with a unit x time decoder.

    1. Every observation is a *value token* ``[value_map(value) || unit_emb(unit)]`` with its time as a rotary embedding
       (CaPOYO, Azabou et al. 2025, https://openreview.net/forum?id=IuU0wcO0mo). Each unit may have its own value
       direction. Observations on a grid (MUA, counts) are attended to without building the tokens.
    2. Latents on a regular time grid cross-attend to the tokens, and to each other in ``depth`` layers (POYO, Azabou et
       al. 2023, https://arxiv.org/abs/2310.16046). A signed population embedding gives them a linear view besides.
    3. Queries (unit, time) cross-attend to the latents: "what did unit u do at time t?"

    It stands beside ``torch_brain.models.POYO`` with the same habits: :meth:`tokenize` is a Dataset transform,
    :meth:`init_vocabs` takes a Dataset, :meth:`forward` takes tensors by keyword, :meth:`load_pretrained` loads.

    Args:
        modality: What is read and predicted: ``"mua"`` or ``"spike_counts"`` (grids) or ``"spikes"`` (events, predicted
            as counts). Its loss is the registry's: MSE of standardised values, or Poisson NLL of counts.
        sequence_length: Length of a window in s.
        latent_step: Time between latent steps in s.
        num_latents_per_step: Latents at each step. Default 8.
        dim: Model dimension D (even). Default 128.
        depth: Self-attention layers over the latents. Default 6.
        dim_head: Dimension of an attention head. Default 64.
        cross_heads: Heads of the cross-attentions. Default 2.
        self_heads: Heads of the self-attentions. Default 4.
        dim_population: Width of the population embedding; 0 leaves it out. Default 256.
        unit_value_maps: Each unit has its own value direction (True), or all share CaPOYO's (False). Default True.
        bin_size: Bin width in s of the counts predicted for ``"spikes"``. Default 0.02.
        ffn_dropout: Dropout in feed-forward networks. Default 0.2.
        lin_dropout: Dropout after each processing layer. Default 0.2.
        atn_dropout: Dropout in attention. Default 0.
        emb_init_scale: Standard deviation of embeddings at initialisation. Default 0.02.
        t_min: Shortest rotary period in s. Default 1e-4.
        t_max: Longest rotary period in s. Default 2.0627.
    """

    def __init__(
        self,
        *,
        modality: str,
        sequence_length: float,
        latent_step: float,
        num_latents_per_step: int = 8,
        dim: int = 128,
        depth: int = 6,
        dim_head: int = 64,
        cross_heads: int = 2,
        self_heads: int = 4,
        dim_population: int = 256,
        unit_value_maps: bool = True,
        bin_size: float = 0.02,
        ffn_dropout: float = 0.2,
        lin_dropout: float = 0.2,
        atn_dropout: float = 0.0,
        emb_init_scale: float = 0.02,
        t_min: float = 1e-4,
        t_max: float = 2.0627,
    ):
        super().__init__()
        arguments = inspect.signature(NeuroBridgeModel.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        if modality not in ("mua", "spike_counts", "spikes"):
            raise InputError(
                expected="modality 'mua', 'spike_counts' or 'spikes'",
                found=repr(modality),
                fix="Choose what the recording holds: MUA or counts on a grid, or spike events.",
            )
        if not sequence_length > 0 or not 0 < latent_step <= sequence_length or dim % 2:
            raise InputError(
                expected="sequence_length > 0, 0 < latent_step <= sequence_length, and an even dim",
                found=f"sequence_length={sequence_length}, latent_step={latent_step}, dim={dim}",
                fix="Correct the model config.",
            )
        self.modality = modality
        self.sequence_length, self.latent_step, self.bin_size = sequence_length, latent_step, bin_size
        self.num_latents_per_step, self.dim = num_latents_per_step, dim
        spec = MODALITY_REGISTRY["spike_counts" if modality == "spikes" else modality]
        self.loss_fn = spec.loss_fn
        self.predicts_log_rates = modality != "mua"
        self.reads_events = modality == "spikes"
        self.series_name = spec.value_key.split(".")[0]

        self.input_value_map = nn.Linear(1, dim // 2)
        nn.init.trunc_normal_(self.input_value_map.weight, 0, emb_init_scale)
        nn.init.zeros_(self.input_value_map.bias)
        self.unit_emb = InfiniteVocabEmbedding(dim // 2, init_scale=emb_init_scale)
        self.gain_emb = InfiniteVocabEmbedding(dim // 2, init_scale=0.0) if unit_value_maps else None
        self.unit_stats = UnitStatistics()
        self.session_emb = InfiniteVocabEmbedding(dim, init_scale=emb_init_scale)
        self.latent_emb = nn.Embedding(num_latents_per_step, dim)
        nn.init.normal_(self.latent_emb.weight, std=emb_init_scale)
        self.rotary_emb = RotaryTimeEmbedding(head_dim=dim_head, rotate_dim=dim_head // 2, t_min=t_min, t_max=t_max)
        self.dropout = nn.Dropout(p=lin_dropout)

        self.enc_atn = RotaryCrossAttention(
            dim=dim, heads=cross_heads, dropout=atn_dropout, dim_head=dim_head, rotate_value=True
        )
        self.enc_ffn = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim=dim, dropout=ffn_dropout))
        self.population = (
            PopulationEmbedding(
                dim=dim,
                dim_population=dim_population,
                num_latents_per_step=num_latents_per_step,
                latent_step=latent_step,
            )
            if dim_population
            else None
        )
        self.proc_layers = nn.ModuleList(
            nn.Sequential(
                RotarySelfAttention(
                    dim=dim, heads=self_heads, dropout=atn_dropout, dim_head=dim_head, rotate_value=True
                ),
                nn.Sequential(nn.LayerNorm(dim), FeedForward(dim=dim, dropout=ffn_dropout)),
            )
            for _ in range(depth)
        )
        self.decoder = GridDecoder(
            dim=dim,
            dim_unit=dim // 2,
            dim_head=dim_head,
            heads=cross_heads,
            state_heads=self_heads,
            ffn_dropout=ffn_dropout,
            atn_dropout=atn_dropout,
        )

    @property
    def num_latents(self) -> int:
        """Latents of a window, L."""
        return len(self._latent_tokens()[0])

    def _latent_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        return create_linspace_latent_tokens(
            0, self.sequence_length, step=self.latent_step, num_latents_per_step=self.num_latents_per_step
        )

    # ------------------------------------------------------------------ vocabularies

    def init_vocabs(self, dataset: Dataset) -> None:
        """Give every unit and recording of ``dataset`` its embeddings.

        Args:
            dataset: A Dataset with ``get_unit_ids()`` (e.g. upstream's ``SpikingDatasetMixin``) and ``recording_ids``.
        """
        if not callable(getattr(dataset, "get_unit_ids", None)):
            raise InputError(
                expected="a Dataset with get_unit_ids()",
                found=type(dataset).__name__,
                fix="Add torch_brain's SpikingDatasetMixin to the Dataset class, or use neurobridge_tb.datasets.",
            )
        unit_ids = dataset.get_unit_ids()
        for table in self._unit_tables():
            table.initialize_vocab(unit_ids)
        self.session_emb.initialize_vocab(dataset.recording_ids)

    def fit_unit_statistics(self, dataset: Dataset, intervals: dict[str, Interval], max_windows: int = 2000) -> None:
        """Set each unit's mean and standard deviation from windows of the training intervals.

        Args:
            dataset: Where the recordings are.
            intervals: Training intervals of each recording, as ``dataset.get_sampling_intervals`` returns them.
            max_windows: At most so many windows of each recording are read, spread evenly. Default 2,000.
        """
        for recording_id, interval in intervals.items():
            recording = dataset.get_recording(recording_id)
            starts = np.concatenate(
                [
                    np.arange(start, max(end - self.sequence_length, start) + 1e-9, self.sequence_length)
                    for start, end in zip(interval.start, interval.end, strict=True)
                ]
            )
            starts = starts[np.linspace(0, len(starts) - 1, min(max_windows, len(starts))).astype(int)]
            total, square, count = (np.zeros(len(recording.units)) for _ in range(3))
            for start in starts:
                values = self.grid_values(recording.slice(start, start + self.sequence_length))[0]
                total += np.nansum(values, axis=0, dtype=np.float64)
                square += np.nansum(values.astype(np.float64) ** 2, axis=0)
                count += (~np.isnan(values)).sum(0)
            mean = total / np.maximum(count, 1)
            std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
            unit_ids = recording.units.id.astype(str).tolist()
            self.unit_stats.set(unit_ids, torch.from_numpy(mean), torch.from_numpy(std))

    def _unit_tables(self) -> list[InfiniteVocabEmbedding]:
        tables = [self.unit_emb, self.unit_stats, self.decoder.state_rows]
        if self.gain_emb is not None:
            tables.append(self.gain_emb)
        if self.population is not None:
            tables += [self.population.value_rows, self.population.presence_rows]
        return tables

    # ------------------------------------------------------------------ tokenizing (CPU)

    def window_grid(self, data: Data) -> tuple[int, np.ndarray]:
        """Bins of a window, and the brain area of each unit ("" where unknown): what a masking scheme needs."""
        n_bins = self._bin_edges().size - 1 if self.reads_events else len(self._series(data))
        units = data.units
        areas = units.area.astype(str) if "area" in units.keys() else np.full(len(units), "")
        return n_bins, areas

    def grid_values(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Values (T, N) float32 and bin times (T,) float64 in s of a window; spike events are counted in bins."""
        if not self.reads_events:
            series = self._series(data)
            return np.asarray(series.value, dtype=np.float32), series.timestamps
        edges = self._bin_edges()
        counts = np.zeros((edges.size - 1, len(data.units)), dtype=np.float32)
        bins = np.searchsorted(edges, data.spikes.timestamps, side="right") - 1
        inside = (bins >= 0) & (bins < len(counts))
        np.add.at(counts, (bins[inside], data.spikes.unit_index[inside]), 1.0)
        return counts, edges[:-1]

    def _bin_edges(self) -> np.ndarray:
        return np.arange(round(self.sequence_length / self.bin_size) + 1) * self.bin_size

    def _series(self, data: Data) -> Any:
        if self.series_name not in data.keys():
            raise InputError(
                expected=f"'{self.series_name}' in recording {data.session.id} (modality '{self.modality}')",
                found=", ".join(sorted(data.keys())),
                fix="Set the model's modality to what the recording holds, or prepare the recording with it.",
            )
        return getattr(data, self.series_name)

    def tokenize(self, data: Data, mask: Mask | None = None) -> dict:
        """Tokenize a window of ``sequence_length``; usable as a Dataset transform. Runs on the CPU.

        Args:
            data: A window of a recording.
            mask: Which cells the encoder sees and which are asked for. Default: all are seen and asked for.

        Returns:
            ``model_inputs`` (keywords of :meth:`forward`), ``target_values`` (K, M), ``scheme``,
            ``session_id``, ``absolute_start`` (s), wrapped for upstream's ``collate``. A NaN is an absent value: it is
            neither seen nor asked for.
        """
        values, timestamps = self.grid_values(data)
        present = ~np.isnan(values)
        keep = present if mask is None else present & mask.keep
        target = present if mask is None else present & mask.target
        if not keep.any():
            raise InputError(
                expected="at least one value to encode in every window",
                found=f"none in recording {data.session.id} at {float(data.absolute_start):.3f} s "
                f"({values.shape[0]} bins x {values.shape[1]} units)",
                fix="Leave this stretch of the recording out of its domains, or check the recording for NaN.",
            )
        unit_index = np.array(self.unit_emb.tokenizer(data.units.id.astype(str).tolist()), dtype=np.int64)
        n_bins_asked, units_asked = target.any(1), target.any(0)
        latent_index, latent_timestamps = self._latent_tokens()
        inputs = (
            self._event_inputs(data, keep, unit_index)
            if self.reads_events
            else {
                "input_values": pad2d(torch.from_numpy(np.nan_to_num(values))),
                "input_mask": pad2d(torch.from_numpy(keep)),
                "input_timestamps": pad(torch.from_numpy(timestamps)),
                "input_unit_index": pad(torch.from_numpy(unit_index)),
            }
        )
        return {
            "model_inputs": inputs
            | {
                "latent_index": torch.from_numpy(latent_index),
                "latent_timestamps": torch.from_numpy(latent_timestamps),
                "session_index": self.session_emb.tokenizer(str(data.session.id)),
                "output_timestamps": pad(torch.from_numpy(timestamps[n_bins_asked])),
                "output_unit_index": pad(torch.from_numpy(unit_index[units_asked])),
                "output_mask": pad2d(torch.from_numpy(target[n_bins_asked][:, units_asked])),
            },
            "target_values": pad2d(torch.from_numpy(np.nan_to_num(values)[n_bins_asked][:, units_asked])),
            "scheme": "none" if mask is None else mask.scheme,
            "session_id": str(data.session.id),
            "absolute_start": float(data.absolute_start),
        }

    def _event_inputs(self, data: Data, keep: np.ndarray, unit_index: np.ndarray) -> dict:
        times = data.spikes.timestamps
        bins = np.clip(np.searchsorted(self._bin_edges(), data.spikes.timestamps, side="right") - 1, 0, len(keep) - 1)
        seen = keep[bins, data.spikes.unit_index]
        units = unit_index[data.spikes.unit_index[seen]]
        return {
            "input_values": pad8(torch.ones(len(units))),
            "input_mask": track_mask8(units),
            "input_timestamps": pad8(torch.from_numpy(times[seen])),
            "input_unit_index": pad8(torch.from_numpy(units)),
        }

    # ------------------------------------------------------------------ the network

    def encode(
        self,
        *,
        input_values: Tensor,
        input_mask: Tensor,
        input_timestamps: Tensor,
        input_unit_index: Tensor,
        latent_index: Tensor,
        latent_timestamps: Tensor,
        **_: Tensor,
    ) -> Tensor:
        """Latents of a batch of windows.

        Args:
            input_values: (B, T, N) values on a grid, or (B, n) values of events.
            input_mask: As ``input_values``: which of them exist.
            input_timestamps: (B, T) or (B, n) times in s from the window's start.
            input_unit_index: (B, N) or (B, n) unit indices.
            latent_index: (B, L).
            latent_timestamps: (B, L) in s.

        Returns:
            (B, L, D).
        """
        latents = self.latent_emb(latent_index)
        n_steps = latents.shape[1] // self.num_latents_per_step
        rotary = self.rotary_emb(latent_timestamps)
        if input_values.ndim == 3:
            index = shared_rows(input_unit_index)
            values = self.standardize(input_values, index)
            slope, offset = value_token_rows(self.input_value_map, self.unit_emb, self.gain_emb, index)
            update = grid_value_attention(
                self.enc_atn, latents, latent_timestamps, values, input_mask, input_timestamps,
                slope, offset, self.rotary_emb,
            )  # fmt: skip
            if self.population is not None:
                update = update + self.population.forward_grid(values, input_mask, input_timestamps, index, n_steps)
        else:
            slope, offset = value_token_rows(self.input_value_map, self.unit_emb, self.gain_emb, input_unit_index)
            tokens = input_values[..., None] * slope + offset
            update = self.enc_atn(latents, tokens, rotary, self.rotary_emb(input_timestamps), input_mask)
            if self.population is not None:
                update = update + self.population.forward_events(
                    input_timestamps, input_unit_index, input_mask, n_steps
                )
        latents = latents + update
        latents = latents + self.enc_ffn(latents)
        for self_atn, ffn in cast(Any, self.proc_layers):
            latents = latents + self.dropout(self_atn(latents, rotary))
            latents = latents + self.dropout(ffn(latents))
        return latents

    def decode(
        self,
        latents: Tensor,
        *,
        latent_timestamps: Tensor,
        session_index: Tensor,
        output_timestamps: Tensor,
        output_unit_index: Tensor,
        output_mask: Tensor,
        **_: Tensor,
    ) -> Tensor:
        """What each unit asked for did at each time asked for.

        Args:
            latents: (B, L, D) from :meth:`encode`.
            latent_timestamps: (B, L) in s.
            session_index: (B,).
            output_timestamps: (B, K) in s.
            output_unit_index: (B, M).
            output_mask: (B, K, M) which cells are asked for.

        Returns:
            (B, K, M): log-rates (counts a bin) for counts and spikes, standardised values for MUA; not meaningful where
            not asked for.
        """
        output = self.decoder(
            latents=latents,
            latent_timestamps=latent_timestamps,
            unit_emb=self.unit_emb(output_unit_index),
            unit_index=output_unit_index,
            session_emb=self.session_emb(session_index),
            timestamps=output_timestamps,
            rotary_emb=self.rotary_emb,
            asked=output_mask,
        )
        if self.predicts_log_rates:
            output = output + self.unit_stats(output_unit_index)[..., 0].clamp_min(1e-3).log()[:, None]
        return output

    def forward(
        self,
        *,
        input_values: Tensor,
        input_mask: Tensor,
        input_timestamps: Tensor,
        input_unit_index: Tensor,
        latent_index: Tensor,
        latent_timestamps: Tensor,
        session_index: Tensor,
        output_timestamps: Tensor,
        output_unit_index: Tensor,
        output_mask: Tensor,
    ) -> Tensor:
        """Encode, then decode; see :meth:`encode` and :meth:`decode` for the arguments. Returns (B, K, M)."""
        latents = self.encode(
            input_values=input_values,
            input_mask=input_mask,
            input_timestamps=input_timestamps,
            input_unit_index=input_unit_index,
            latent_index=latent_index,
            latent_timestamps=latent_timestamps,
        )
        return self.decode(
            latents,
            latent_timestamps=latent_timestamps,
            session_index=session_index,
            output_timestamps=output_timestamps,
            output_unit_index=output_unit_index,
            output_mask=output_mask,
        )

    def standardize(self, values: Tensor, unit_index: Tensor) -> Tensor:
        """(B, T, N) values in units of each unit's training standard deviation around its training mean."""
        mean, std = self.unit_stats(unit_index)[:, None].unbind(-1)
        return (values - mean) / std.clamp_min(1e-6)

    def masked_loss(self, output: Tensor, batch: dict) -> Tensor:
        """The modality's loss on the cells asked for (scalar).

        Args:
            output: (B, K, M) from :meth:`forward`.
            batch: A collated batch of :meth:`tokenize`.
        """
        target = batch["target_values"]
        if not self.predicts_log_rates:
            target = self.standardize(target, batch["model_inputs"]["output_unit_index"])
        asked = batch["model_inputs"]["output_mask"]
        return self.loss_fn(output[asked][:, None], target[asked][:, None])
