"""NeuroBridgeModel: a CaPOYO-derived encoder of neural activity with a masking head."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neurobridge_tb._upstream import (
    Dataset,
    FeedForward,
    InfiniteVocabEmbedding,
    Interval,
    RotaryCrossAttention,
    RotarySelfAttention,
)
from neurobridge_tb.errors import InputError
from neurobridge_tb.models.pretrained import PretrainedModel
from neurobridge_tb.models.unit_lookup import UnitLookup
from neurobridge_tb.models.unit_statistics import pooled_statistics
from neurobridge_tb.models.window_tokens import WindowTokens, check_modalities
from neurobridge_tb.nn.factor_model import FactorModel, Factors, log_rate_ratio, relative_deviation
from neurobridge_tb.nn.grid_decoder import Cells, GridDecoder
from neurobridge_tb.nn.population import PopulationEmbedding
from neurobridge_tb.nn.rate_response import RateResponse
from neurobridge_tb.nn.rotary import TimeEmbedding, cross_attention, self_attention
from neurobridge_tb.nn.step_embedding import StepEmbedding
from neurobridge_tb.nn.unit_rows import LeadEmbedding, UnitStatistics, batch_rows
from neurobridge_tb.nn.value_attention import grid_value_attention, value_token_rows
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

_LARGEST = 3.0  # standard deviations of counts that factors are inferred from


class NeuroBridgeModel(WindowTokens, PretrainedModel):
    """Encoder of spikes, counts and multi-unit activity with a unit x time decoder.

    1. Every observation is a *value token* ``[value_map(value) || unit_emb(unit)]`` with its time as a rotary embedding
       (CaPOYO, Azabou et al. 2025, https://openreview.net/forum?id=IuU0wcO0mo). Each unit may have its own value
       direction. Observations on a grid (MUA, counts) are attended to without building the tokens.
    2. Latents on a regular time grid cross-attend to the tokens, and to each other in ``depth`` layers (POYO, Azabou et
       al. 2023, https://arxiv.org/abs/2310.16046). A factor model gives them what the population shares besides: the
       posterior of factors, exact for any mask (:mod:`neurobridge_tb.nn.factor_model`).
    3. Queries (unit, time) cross-attend to the latents: "what did unit u do at time t?" The prediction is the factor
       model's, whose factors the latents update, and a residual; update and residual start at zero.

    It stands beside ``torch_brain.models.POYO`` with the same habits: :meth:`tokenize` is a Dataset transform,
    :meth:`init_vocabs` takes a Dataset, ``model(**tokens, output_timestamps=times)`` predicts, :meth:`load_pretrained`
    loads. With ``dim_out`` it predicts a behaviour, as POYO does, and POYO's training scripts and configs work.

    Args:
        modality: What is read and predicted: ``"mua"`` or ``"spike_counts"`` (grids) or ``"spikes"`` (events, predicted
            as counts). Default ``"spikes"``. Its loss is the registry's: MSE of standardised values, or Poisson NLL of
            counts. With the list ``["mua", "spike_counts"]`` one model reads both kinds of recordings, also in one
            batch: each recording is read, predicted and scored as the first of them that it holds.
        sequence_length: Length of a window in s.
        latent_step: Time between latent steps in s.
        num_latents_per_step: Latents at each step. Default 8.
        dim_out: Width of a behaviour that :meth:`forward` predicts. Default: it predicts the units' activity.
        dim: Model dimension D (even). Default 128.
        depth: Self-attention layers over the latents. Default 6.
        dim_head: Dimension of an attention head. Default 64.
        cross_heads: Heads of the cross-attentions. Default 2.
        self_heads: Heads of the self-attentions. Default 4.
        num_factors: Factors of the factor model, at most; 0 leaves it out. Default 64.
        dim_population: Width of a population embedding, a linear view of the population by rows that start at random;
            models from before the factor model have it. Default 0: none.
        unit_value_maps: Each unit has its own value direction (True), or all share CaPOYO's (False). Default True.
        standardize_inputs: Grid values enter in units of each unit's training deviation around its mean (True), or as
            they are (False), as CaPOYO reads them. Default True.
        boundary_tokens: Each unit seen has two more tokens, at the window's start and end, as in POYO; for
            ``"spikes"`` only. Default False.
        bin_size: Bin width in s of the counts predicted for ``"spikes"``. Default 0.02.
        bin_widths: Bin width in s of each recording on a grid whose units' statistics the model has;
            :meth:`fit_unit_statistics` notes them. Default: none.
        ffn_dropout: Dropout in feed-forward networks. Default 0.2.
        lin_dropout: Dropout after each processing layer. Default 0.2.
        atn_dropout: Dropout in attention. Default 0.
        emb_init_scale: Standard deviation of embeddings at initialisation. Default 0.02.
        t_min: Shortest rotary period in s. Default 1e-4.
        t_max: Longest rotary period in s. Default 2.0627.

    Attributes:
        gradient_checkpointing: While training, keep no activations inside the attentions and layers, and compute them
            again for the gradient: the same gradients, less memory, more time. Default False; not saved.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        *,
        modality: str | Sequence[str] = "spikes",
        sequence_length: float,
        latent_step: float,
        num_latents_per_step: int = 8,
        dim_out: int | None = None,
        dim: int = 128,
        depth: int = 6,
        dim_head: int = 64,
        cross_heads: int = 2,
        self_heads: int = 4,
        num_factors: int = 64,
        dim_population: int = 0,
        unit_value_maps: bool = True,
        standardize_inputs: bool = True,
        boundary_tokens: bool = False,
        bin_size: float = 0.02,
        bin_widths: Mapping[str, float] | None = None,
        ffn_dropout: float = 0.2,
        lin_dropout: float = 0.2,
        atn_dropout: float = 0.0,
        emb_init_scale: float = 0.02,
        t_min: float = 1e-4,
        t_max: float = 2.0627,
    ):
        super().__init__()
        self.modalities = check_modalities(modality)
        modality = modality if isinstance(modality, str) else list(modality)
        arguments = inspect.signature(NeuroBridgeModel.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        if boundary_tokens and not self.reads_events:
            raise InputError(
                expected="boundary_tokens with modality 'spikes' only",
                found=f"modality {modality!r}",
                fix="Leave boundary_tokens out: on a grid every unit seen has tokens anyway.",
            )
        fits = sequence_length > 0 and 0 < latent_step <= sequence_length and 0 < t_min < t_max
        if not fits or dim % 2 or dim_head % 4:
            raise InputError(
                expected="sequence_length > 0, 0 < latent_step <= sequence_length, 0 < t_min < t_max, an even dim, and "
                "a dim_head that 4 divides",
                found=f"sequence_length={sequence_length}, latent_step={latent_step}, t_min={t_min}, t_max={t_max}, "
                f"dim={dim}, dim_head={dim_head}",
                fix="Correct the model config.",
            )
        self.modality = modality
        self.sequence_length, self.latent_step, self.bin_size = sequence_length, latent_step, bin_size
        self.bin_widths = self.config["bin_widths"] = dict(bin_widths or {})
        self.num_latents_per_step, self.dim = num_latents_per_step, dim
        self.standardize_inputs, self.boundary_tokens = standardize_inputs, boundary_tokens
        self.has_factors = bool(num_factors)

        self.input_value_map = nn.Linear(1, dim // 2)
        nn.init.trunc_normal_(self.input_value_map.weight, 0, emb_init_scale)
        nn.init.zeros_(self.input_value_map.bias)
        self.unit_emb = LeadEmbedding(dim // 2, init_scale=emb_init_scale)
        self.gain_emb = InfiniteVocabEmbedding(dim // 2, init_scale=0.0) if unit_value_maps else None
        self.token_type_emb = nn.Embedding(4, dim) if boundary_tokens else None  # POYO's: spike, start, end, unused
        if self.token_type_emb is not None:
            nn.init.normal_(self.token_type_emb.weight, std=emb_init_scale)
        self.unit_stats = UnitStatistics()
        self.unit_lookup = UnitLookup()
        self.session_emb = LeadEmbedding(dim, init_scale=emb_init_scale)
        self.latent_emb = nn.Embedding(num_latents_per_step, dim)
        nn.init.normal_(self.latent_emb.weight, std=emb_init_scale)
        self.rotary_emb = TimeEmbedding(head_dim=dim_head, rotate_dim=dim_head // 2, t_min=t_min, t_max=t_max)
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
        self.factors = FactorModel(num_factors, predicts_units=dim_out is None) if num_factors else None
        self.factor_emb = (
            StepEmbedding(
                dim=dim, dim_input=2 * num_factors, num_latents_per_step=num_latents_per_step, latent_step=latent_step
            )
            if num_factors
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
            starts_at_zero=bool(num_factors),
            predicts_units=dim_out is None,
        )
        self.factor_update = nn.Linear(dim, num_factors) if num_factors and dim_out is None else None
        if self.factor_update is not None:
            nn.init.zeros_(self.factor_update.weight)
            nn.init.zeros_(self.factor_update.bias)
        responds = self.factor_update is not None and "mua" not in self.modalities
        self.response = RateResponse() if responds else None
        self.readout = None if dim_out is None else nn.Linear(dim, dim_out)
        self.unit_emb.followers = self._other_unit_tables()
        self.session_emb.followers = [] if self.factors is None else self.factors.session_tables
        self.register_load_state_dict_pre_hook(_as_before)

    # ------------------------------------------------------------------ vocabularies

    def init_vocabs(self, dataset: Dataset) -> None:
        """Give every unit and recording of ``dataset`` its embeddings.

        Args:
            dataset: A Dataset with ``get_unit_ids()`` (e.g. upstream's ``SpikingDatasetMixin``) and ``recording_ids``.
        """
        self.unit_emb.initialize_vocab(_unit_ids(dataset))
        self.session_emb.initialize_vocab(dataset.recording_ids)

    def extend_vocabs(self, dataset: Dataset) -> None:
        """Give the units and recordings of ``dataset`` that the model does not know yet embeddings of their own.

        The rows of those that it knows stay as they are. Needs :meth:`init_vocabs`, or a loaded model.

        Args:
            dataset: As :meth:`init_vocabs` takes it.
        """
        self.unit_emb.extend_vocab(_unit_ids(dataset), exist_ok=True)
        self.session_emb.extend_vocab(dataset.recording_ids, exist_ok=True)

    def fit_unit_statistics(self, dataset: Dataset, intervals: dict[str, Interval], max_windows: int = 2000) -> None:
        """Set each unit's mean and standard deviation from windows of the training intervals.

        Args:
            dataset: Where the recordings are.
            intervals: Training intervals of each recording, as ``dataset.get_sampling_intervals`` returns them.
            max_windows: At most so many windows of each recording are read, spread evenly. Default 2,000.

        Raises:
            InputError: A unit is read as MUA in one recording and as counts in another, a recording has no activity, or
                bins of another width than those that the model was trained on.
        """
        recordings = [] if self.reads_events else [dataset.get_recording(recording_id) for recording_id in intervals]
        widths = {str(r.session.id): 1 / float(self.series_of(r).sampling_rate) for r in recordings}
        for recording_id, width in widths.items():
            if self.bin_widths and all(abs(width / its - 1) > 1e-6 for its in self.bin_widths.values()):
                raise InputError(
                    expected=f"bins of {next(iter(self.bin_widths.values())):.6g} s, which the model was trained on",
                    found=f"bins of {width:.6g} s in recording {recording_id}",
                    fix="Prepare the recording with such bins, or train a model on it.",
                )
        unit_ids, mean, std = pooled_statistics(self, dataset, intervals, max_windows)
        self.unit_stats.set(unit_ids, torch.from_numpy(mean), torch.from_numpy(std))
        self.bin_widths.update(widths)

    def _other_unit_tables(self) -> list[InfiniteVocabEmbedding]:
        tables = [self.unit_stats, self.decoder.state_rows, self.gain_emb]
        if self.population is not None:
            tables += [self.population.value_rows, self.population.presence_rows]
        if self.factors is not None:
            tables += self.factors.tables
        if self.response is not None:
            tables += [self.response.recent_rows]
        return [table for table in tables if table is not None]

    # ------------------------------------------------------------------ the network

    def encode(
        self,
        *,
        input_mask: Tensor,
        input_timestamps: Tensor,
        input_unit_index: Tensor,
        latent_index: Tensor,
        latent_timestamps: Tensor,
        input_values: Tensor | None = None,
        input_token_type: Tensor | None = None,
        factors: Factors | None = None,
        **binned: Any,
    ) -> Tensor:
        """Latents of a batch of windows.

        Args:
            input_mask: (B, T, N) which values of a grid exist, or (B, n) which events do.
            input_timestamps: (B, T) or (B, n) times in s from the window's start.
            input_unit_index: (B, N) or (B, n) unit indices.
            latent_index: (B, L).
            latent_timestamps: (B, L) in s.
            input_values: (B, T, N) values of a grid. Default: events, which have none.
            input_token_type: (B, n) 0 for a spike, 1 for a window's start, 2 for its end; with ``boundary_tokens``.
            factors: From :meth:`infer_factors`. Default: they are inferred here.
            **binned: What :meth:`infer_factors` needs besides; the rest is ignored.

        Returns:
            (B, L, D).
        """
        latents = self.latent_emb(latent_index)
        rotary = self.rotary_emb(latent_timestamps)
        seen = (input_mask, input_timestamps, input_unit_index)
        if not self.reads_events:
            if input_values is None:
                raise InputError(
                    expected=f"input_values (B, T, N), as the model reads values on a grid ({self.modality})",
                    found="none",
                    fix="Pass what the model's own tokenize makes of a window.",
                )
            update = self._checkpointed(self._attend_to_grid, latents, latent_timestamps, input_values, *seen)
        else:
            update = self._checkpointed(self._attend_to_events, latents, rotary, *seen, input_token_type)
        if self.factor_emb is not None:
            if factors is None:
                factors = self.infer_factors(
                    input_mask=input_mask, input_unit_index=input_unit_index, input_values=input_values, **binned
                )
            known = torch.cat([factors.mean, 1 - factors.variance], dim=-1)
            n_steps = latents.shape[1] // self.num_latents_per_step
            bin_times = binned["count_timestamps"] if self.reads_events else input_timestamps
            real = bin_times > bin_times[:, :1]  # padding has time 0
            real[:, 0] = True
            update = update + self.factor_emb(known, real.to(known), bin_times, n_steps)
        latents = latents + update
        latents = latents + self.enc_ffn(latents)
        for layer in self.proc_layers:
            latents = self._checkpointed(self._process, layer, latents, rotary)
        return latents

    def infer_factors(
        self,
        *,
        input_mask: Tensor,
        input_unit_index: Tensor,
        session_index: Tensor | None = None,
        input_values: Tensor | None = None,
        count_values: Tensor | None = None,
        count_mask: Tensor | None = None,
        count_unit_index: Tensor | None = None,
        mask_patterns: Tensor | None = None,
        mask_pattern_index: Tensor | None = None,
        **_: Any,
    ) -> Factors:
        """Posterior of the factors in each bin, given what is seen of the window.

        Counts count as at most three standard deviations from their mean: the noise of a burst is not Gaussian.

        Args:
            input_mask: See :meth:`encode`.
            input_unit_index: See :meth:`encode`.
            session_index: (B,) indices of the recordings.
            input_values: See :meth:`encode`.
            count_values: (B, T, N) counts of spike events in bins, with
            count_mask: (B, T, N) which of them are seen, and
            count_unit_index: (B, N); where the input is events.
            mask_patterns: (B, P, N) the different sets of units seen in a window's bins. Default: one for each bin.
            mask_pattern_index: (B, T) which of them is each bin's.
        """
        assert self.factors is not None
        if self.reads_events:
            if count_values is None or count_mask is None or count_unit_index is None:
                raise InputError(
                    expected="count_values, count_mask and count_unit_index beside spike events",
                    found="none",
                    fix="Pass what the model's own tokenize makes of a window.",
                )
            input_values, input_mask, input_unit_index = count_values, count_mask, count_unit_index
        assert input_values is not None
        if session_index is None:
            raise InputError(
                expected="session_index (B,), as the factors of a recording have dynamics of their own",
                found="none",
                fix="Pass what the model's own tokenize makes of a window.",
            )
        values = self.standardize(input_values, input_unit_index)
        if "mua" not in self.modalities:
            values = values.clamp(-_LARGEST, _LARGEST)
        return self.factors(values, input_mask, input_unit_index, session_index, mask_patterns, mask_pattern_index)

    def _attend_to_grid(
        self, latents: Tensor, latent_timestamps: Tensor, values: Tensor, mask: Tensor, times: Tensor, units: Tensor
    ) -> Tensor:
        if self.standardize_inputs:
            values = self.standardize(values, units)
        rows, index = batch_rows(units, self.unit_stats)
        slope, offset = value_token_rows(self.input_value_map, self.unit_emb, self.gain_emb, rows)
        update = grid_value_attention(
            self.enc_atn, latents, latent_timestamps, values, mask, times, slope, offset, index, self.rotary_emb
        )
        if self.population is not None:
            n_steps = latents.shape[1] // self.num_latents_per_step
            update = update + self.population.forward_grid(values, mask, times, rows, index, n_steps)
        return update

    def _attend_to_events(
        self,
        latents: Tensor,
        rotary: Tensor,
        mask: Tensor,
        times: Tensor,
        units: Tensor,
        token_type: Tensor | None,
    ) -> Tensor:
        """A spike is a token of value 1: keys and values are made once a unit (and type of token), not once a spike."""
        rows, index = batch_rows(units, self.unit_stats)
        slope, offset = value_token_rows(self.input_value_map, self.unit_emb, self.gain_emb, rows)
        tokens, token = slope + offset, index
        if self.token_type_emb is not None:
            assert token_type is not None, "boundary_tokens need input_token_type"
            types = self.token_type_emb.weight
            tokens, token = (tokens[:, None] + types).flatten(0, 1), len(types) * index + token_type
        per_unit = self.enc_atn.to_kv(self.enc_atn.norm_context(tokens))
        exact = torch.promote_types(per_unit.dtype, torch.float32)  # gradients are sums over all spikes of a unit
        key_value = F.embedding(token, per_unit.to(exact))
        update = cross_attention(self.enc_atn, latents, key_value, rotary, self.rotary_emb(times), mask)
        if self.population is not None:
            spikes = mask if token_type is None else mask & (token_type == 0)
            n_steps = latents.shape[1] // self.num_latents_per_step
            update = update + self.population.forward_events(times, spikes, rows, index, n_steps)
        return update

    def _process(self, layer: nn.Module, latents: Tensor, rotary: Tensor) -> Tensor:
        self_atn, ffn = cast(Any, layer)
        latents = latents + self.dropout(self_attention(self_atn, latents, rotary))
        return latents + self.dropout(ffn(latents))

    def _checkpointed(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return cast(Tensor, checkpoint(function, *inputs, use_reentrant=False))
        return function(*inputs)

    def decode(
        self,
        latents: Tensor,
        *,
        latent_timestamps: Tensor,
        session_index: Tensor,
        output_timestamps: Tensor,
        output_unit_index: Tensor,
        output_cells: Tensor | None = None,
        output_cell_count: Tensor | None = None,
        modality_index: Tensor | None = None,
        factors: Factors | None = None,
        **inputs: Any,
    ) -> Tensor:
        """What each unit did at each time.

        Args:
            latents: (B, L, D) from :meth:`encode`.
            latent_timestamps: (B, L) in s.
            session_index: (B,).
            output_timestamps: (B, K) in s.
            output_unit_index: (B, M).
            output_cells: (P, 2) the cells that are predicted: index into K, and into M. Default: all.
            output_cell_count: (B,) how many of them are in each window, one window after the other.
            modality_index: (B,) which of the model's modalities each window is; needed where there are several.
            factors: From :meth:`infer_factors`. Default: they are inferred here.
            **inputs: What the encoder was given, where there is a factor model.

        Returns:
            (B, K, M): log-rates (counts a bin) for counts and spikes, standardised values for MUA; not meaningful in
            cells that are not predicted.
        """

        cells = None
        if output_cells is not None and output_cell_count is not None:
            cells = Cells.listed(output_cells, output_cell_count)

        session_emb = self.session_emb(session_index)
        states = self._checkpointed(
            self.decoder.bin_states, latents, latent_timestamps, session_emb, output_timestamps, self.rotary_emb
        )

        def predict(latents: Tensor) -> Tensor:
            return self.decoder(
                latents=latents,
                latent_timestamps=latent_timestamps,
                states=states,
                unit_emb=self.unit_emb(output_unit_index),
                unit_index=output_unit_index,
                session_emb=session_emb,
                timestamps=output_timestamps,
                rotary_emb=self.rotary_emb,
                cells=cells,
            )

        output = self._checkpointed(predict, latents)
        if self.factors is None or self.factor_update is None:
            baseline, updated = torch.zeros(len(output_unit_index), 1, 1, device=output.device), None
        else:
            if factors is None:
                factors = self.infer_factors(**inputs, session_index=session_index)
            updated = self._updated(factors.at(output_timestamps, self._bin_times(inputs)), states)
            baseline = self.factors.predict(updated.mean, output_unit_index)
        if self.modalities == ("mua",):
            return output + baseline
        log_rates, features = self._log_rates(baseline, updated, output_unit_index)
        if self.response is not None and features is not None:
            log_rates = log_rates + self.response(features)
        if modality_index is not None:
            log_rates = torch.where(self._is("mua", modality_index), baseline, log_rates)
        return output + log_rates

    def _updated(self, factors: Factors, states: Tensor) -> Factors:
        """A factor moves by as much as it is uncertain: what the units seen tell well stays as it is."""
        assert self.factor_update is not None
        update = self.factor_update(states).to(factors.mean)
        return Factors(factors.mean + factors.variance * update, factors.variance)

    def _log_rates(self, baseline: Tensor, factors: Factors | None, unit_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Counts a bin (B, K, M), before the response, of standardised activity (B, K, M) that factors predict; and
        (B, K, M, 4) what the response reads of each, see :class:`RateResponse`."""
        mean, std = self.unit_stats(unit_index)[:, None].unbind(-1)  # (B, 1, M)
        log_ratio, log_mean = log_rate_ratio(baseline, mean, std), self.unit_stats.log_mean(unit_index)[:, None]
        if self.response is None or self.factors is None or factors is None:
            return log_mean + log_ratio, None
        spread = self.factors.spread(factors.variance, unit_index) * relative_deviation(mean, std)
        spikes = log_mean + self.factors.log_bins_rows(unit_index)[:, None, :, 0]
        recent = self.response.recent_rows(unit_index)[:, None, :, 0]
        per_unit = [x.to(log_ratio).expand_as(log_ratio) for x in (spikes, recent)]
        return log_mean + log_ratio, torch.stack([log_ratio, spread, *per_unit], dim=-1)

    def factor_log_rates(
        self, *, output_timestamps: Tensor, output_unit_index: Tensor, **inputs: Any
    ) -> tuple[Tensor, Tensor]:
        """What the factors alone predict: log-rates (B, K, M) before the response, and what that reads of each.

        Args:
            output_timestamps: (B, K) in s.
            output_unit_index: (B, M).
            **inputs: What :meth:`infer_factors` takes.
        """
        assert self.factors is not None
        factors = self.infer_factors(**inputs).at(output_timestamps, self._bin_times(inputs))
        baseline = self.factors.predict(factors.mean, output_unit_index)
        log_rates, features = self._log_rates(baseline, factors, output_unit_index)
        assert features is not None
        return log_rates, features

    @property
    def dim_features(self) -> int:
        """Width of :meth:`bin_features`."""
        return self.dim + (0 if self.factors is None else self.factors.loading_rows.embedding_dim)

    def bin_features(self, *, session_index: Tensor, output_timestamps: Tensor, **inputs: Any) -> Tensor:
        """What the rows of a unit read at each time: the bin state, and the factors where there are some.

        Args:
            session_index: (B,).
            output_timestamps: (B, K) in s.
            **inputs: What :meth:`encode` takes.

        Returns:
            (B, K, dim_features), that is D + num_factors.
        """
        inputs["session_index"] = session_index
        factors = None if self.factors is None else self.infer_factors(**inputs)
        states = self.decoder.bin_states(
            self.encode(factors=factors, **inputs),
            inputs["latent_timestamps"],
            self.session_emb(session_index),
            output_timestamps,
            self.rotary_emb,
        )
        if factors is None:
            return states
        return torch.cat([states, factors.at(output_timestamps, self._bin_times(inputs)).mean.to(states)], dim=-1)

    def _bin_times(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, T) when the bins begin that the factors are inferred from, in s."""
        return inputs["count_timestamps" if self.reads_events else "input_timestamps"]

    def _is(self, modality: str, modality_index: Tensor) -> Tensor:
        """(B, 1, 1) which windows are of this modality."""
        return (modality_index == self.modalities.index(modality))[:, None, None]

    def forward(
        self,
        *,
        input_timestamps: Tensor,
        input_unit_index: Tensor,
        latent_index: Tensor,
        latent_timestamps: Tensor,
        session_index: Tensor,
        output_timestamps: Tensor,
        output_unit_index: Tensor | None = None,
        output_mask: Tensor | None = None,
        output_cells: Tensor | None = None,
        output_cell_count: Tensor | None = None,
        unpack_output: bool = False,
        input_mask: Tensor | None = None,
        input_values: Tensor | None = None,
        input_token_type: Tensor | None = None,
        modality_index: Tensor | None = None,
        **binned: Tensor,
    ) -> Tensor | list[Tensor]:
        """Encode, then predict the units' activity, or with ``dim_out`` a behaviour.

        Args:
            input_timestamps: As :meth:`encode` takes it; so are the other ``input_…`` and ``latent_…``.
            input_unit_index: See :meth:`encode`.
            latent_index: See :meth:`encode`.
            latent_timestamps: See :meth:`encode`.
            session_index: (B,) indices of the recordings.
            output_timestamps: (B, K) times of the prediction in s from the window's start.
            output_unit_index: (B, M) units whose activity is predicted; not needed for a behaviour.
            output_mask: (B, K) which times, or (B, K, M) which cells, are returned with ``unpack_output``.
            output_cells: See :meth:`decode`; only these are computed. Default: all.
            output_cell_count: See :meth:`decode`.
            unpack_output: Return a list of each window's predictions where ``output_mask`` holds. Default False.
            input_mask: See :meth:`encode`. Default: all exist.
            input_values: See :meth:`encode`.
            input_token_type: See :meth:`encode`.
            modality_index: See :meth:`decode`.
            **binned: What :meth:`infer_factors` takes besides.

        Returns:
            Activity (B, K, M), see :meth:`decode`, or behaviour (B, K, dim_out); with ``unpack_output`` B tensors
            (cells,) or (times, M or dim_out).

        Raises:
            InputError: ``unpack_output`` without ``output_mask``.
        """
        if unpack_output and output_mask is None:
            raise InputError(
                expected="output_mask with unpack_output=True",
                found="none",
                fix="Pass which of the padded times are real, as upstream's track_mask gives it.",
            )
        if input_mask is None:
            input_mask = torch.ones_like(input_unit_index if input_values is None else input_values, dtype=torch.bool)
        inputs: dict[str, Any] = binned | {
            "input_values": input_values,
            "input_mask": input_mask,
            "input_timestamps": input_timestamps,
            "input_unit_index": input_unit_index,
            "latent_timestamps": latent_timestamps,
            "session_index": session_index,
        }
        if self.factors is not None:
            inputs["factors"] = self.infer_factors(**inputs)
        latents = self.encode(latent_index=latent_index, input_token_type=input_token_type, **inputs)
        if self.readout is not None:
            session_emb = self.session_emb(session_index)
            output = self.readout(
                self.decoder.bin_states(latents, latent_timestamps, session_emb, output_timestamps, self.rotary_emb)
            )
        elif output_unit_index is not None:
            output = self.decode(
                latents,
                output_timestamps=output_timestamps,
                output_unit_index=output_unit_index,
                output_cells=output_cells,
                output_cell_count=output_cell_count,
                modality_index=modality_index,
                **inputs,
            )
        else:
            raise InputError(
                expected="output_unit_index, the units whose activity is predicted",
                found="none",
                fix="Pass what the model's own tokenize makes of a window, or make a model with dim_out.",
            )
        if output_mask is not None and unpack_output:
            return [window[mask] for window, mask in zip(output, output_mask, strict=True)]
        return output

    def standardize(self, values: Tensor, unit_index: Tensor) -> Tensor:
        """(B, T, N) values in units of each unit's training standard deviation around its training mean."""
        mean, std = self.unit_stats(unit_index)[:, None].unbind(-1)
        return (values - mean) / std

    def masked_losses(
        self, output: Tensor, batch: dict, unit_weights: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor | int]]:
        """Of each modality: its registry's loss on its target cells in a batch, and how many these are.

        A modality without any has loss 0.

        Args:
            output: (B, K, M) from :meth:`forward`.
            batch: A collated batch of :meth:`tokenize_with_targets`.
            unit_weights: (V,) how much each unit of the vocabulary counts, above 0. Default: all alike.
        """
        inputs, target = batch["model_inputs"], batch["target_values"]
        cells = Cells.listed(inputs["output_cells"], inputs["output_cell_count"])
        weights = None
        if unit_weights is not None:
            weights = unit_weights[inputs["output_unit_index"][cells.window, cells.unit]]
        losses: dict[str, tuple[Tensor, Tensor | int]] = {}
        for modality in self.modalities:
            wanted = self.standardize(target, inputs["output_unit_index"]) if modality == "mua" else target
            predicted, wanted = output[cells][:, None], wanted[cells][:, None]
            predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))  # of half precision too
            loss_fn = MODALITY_REGISTRY["spike_counts" if modality == "spikes" else modality].loss_fn
            if len(self.modalities) == 1:
                losses[modality] = loss_fn(predicted, wanted, weights), len(predicted)
            else:
                own = self._is(modality, inputs["modality_index"]).flatten()[cells.window].to(predicted)
                count = own.sum()
                own = own if weights is None else own * weights
                losses[modality] = loss_fn(predicted, wanted, own + (count == 0)) * (count > 0), count
        return losses

    def masked_loss(self, output: Tensor, batch: dict) -> Tensor:
        """The loss on the target cells (scalar): their mean, each cell by its modality's loss.

        Args:
            output: (B, K, M) from :meth:`forward`.
            batch: A collated batch of :meth:`tokenize_with_targets`.
        """
        return mean_loss(self.masked_losses(output, batch))


def mean_loss(losses: dict[str, tuple[Tensor, Tensor | int]]) -> Tensor:
    """Mean over all cells of the losses that :meth:`NeuroBridgeModel.masked_losses` returns."""
    if len(losses) == 1:
        return next(iter(losses.values()))[0]
    total = sum(n for _, n in losses.values())
    return torch.stack([loss * (n / total) for loss, n in losses.values()]).sum()


def _as_before(model: NeuroBridgeModel, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Models from before factors followed each other in time, were updated or answered to, predict what they did."""
    if model.factor_update is not None:
        for name, parameter in model.factor_update.named_parameters(prefix=f"{prefix}factor_update"):
            state.setdefault(name, torch.zeros_like(parameter))
    units, rates = f"{prefix}unit_stats.", f"{prefix}response."
    if model.response is not None and f"{rates}recent_rows.weight" not in state and f"{units}weight" in state:
        weights = state.get(f"{rates}weights", torch.zeros(0))
        state[f"{rates}weights"] = F.pad(weights, (0, len(model.response.weights) - len(weights)))
        state[f"{rates}recent_rows.weight"] = torch.zeros_like(state[f"{units}weight"][:, :1])
        state[f"{rates}recent_rows.vocab"] = state[f"{units}vocab"].copy()
    rows, sessions = f"{prefix}factors.dynamics_rows.", f"{prefix}session_emb."
    if model.factors is not None and f"{rows}weight" not in state and f"{sessions}weight" in state:
        start = model.factors.dynamics_rows.start
        state[f"{rows}weight"] = start.repeat(len(state[f"{sessions}weight"]), 1)
        state[f"{rows}vocab"] = state[f"{sessions}vocab"].copy()


def _unit_ids(dataset: Dataset) -> list[str]:
    if not callable(getattr(dataset, "get_unit_ids", None)):
        raise InputError(
            expected="a Dataset with get_unit_ids()",
            found=type(dataset).__name__,
            fix="Add torch_brain's SpikingDatasetMixin to the Dataset class, or use neurobridge_tb.datasets.",
        )
    return list(dict.fromkeys(dataset.get_unit_ids()))  # recordings may share units
