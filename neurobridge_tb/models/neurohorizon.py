"""NeuroHorizonModel: forecasts each unit's spikes from the population's past."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import (
    Dataset,
    InfiniteVocabEmbedding,
    Interval,
)
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.spikes import posterior_mean
from neurobridge_tb.models.forecast_tokens import ForecastTokens
from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.models.pretrained import PretrainedModel
from neurobridge_tb.nn.forecasting.causal_decoder import CausalDecoder, KeysValues
from neurobridge_tb.nn.forecasting.feedback import OwnHistory, PopulationFeedback
from neurobridge_tb.nn.forecasting.id_encoder import IdentityRows, UnitIdentity
from neurobridge_tb.nn.forecasting.per_neuron_head import PerNeuronHead
from neurobridge_tb.nn.forecasting.rate_filter import RECENT, RateFilter
from neurobridge_tb.nn.forecasting.rate_modulation import VARIABILITY, Cells, RateModulation, Windows
from neurobridge_tb.nn.unit_dropout import draw_shown_units
from neurobridge_tb.nn.unit_rows import FixedRows
from neurobridge_tb.registry_ext import PoissonNLLLoss

_OWN_TIME_CONSTANTS = (0.05, 0.2, 1.0)  # s
_LARGEST = 10.0  # standard deviations above the mean: what is fed back is clipped there
ROLLED_OUT = 0.25  # of the training windows feed back what was predicted; the others, what was observed
_GAIN_PARTS = 4  # of the future, each with a gain of its own
_OF_CELLS = 5  # features of a cell that differ from bin to bin
_HISTORY, _DRIFTS = 1, slice(3, 7, 3)  # of own time constants and of the filter's evidence, what a correction reads


class _Rows(NamedTuple):
    """What a batch needs of its units, made once."""

    feedback: tuple[Tensor, Tensor]
    head: Tensor
    of_head: Tensor
    mean: Tensor
    std: Tensor
    start: Tensor
    modulation: Tensor


class _Past(NamedTuple):
    """What a decoder needs of a batch's past: latents' keys and values, units' rows, the last bin, own histories."""

    context: list[KeysValues]
    rows: _Rows
    last: tuple[Tensor, Tensor]
    own: tuple[Tensor, Tensor]

    def windows(self, index: Tensor) -> "_Past":
        """Some windows of the batch; rows that all windows share stay."""

        def pick(x: Tensor) -> Tensor:
            return x if len(x) == 1 else x[index]

        def both(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return pick(pair[0]), pick(pair[1])

        feedback, *others = self.rows
        rows = _Rows(both(feedback), *(pick(x) for x in others))  # type: ignore[arg-type]
        return _Past([both(layer) for layer in self.context], rows, both(self.last), both(self.own))


class NeuroHorizonModel(ForecastTokens, PretrainedModel):
    """The encoder of :class:`NeuroBridgeModel` on the past, and a causal decoder over the bins to come.

    1. The past (``history`` s of spikes or counts) becomes latents.
    2. One query a future bin attends to the latents and, causally, to the bins before it. Its input is the population's
       activity in the bin before: the observed one (:meth:`forward`, teacher-forced), or the predicted one
       (:meth:`generate`, rolled out).
    3. Each unit's log-rate starts at what a filter of its own spikes says (:class:`RateFilter`): the mean of the
       reference window, followed through the running past, and the last bins. For units that are identified by
       features it is corrected by what the population's past tells of them, through factors fitted to their reference
       window, and by how they vary in it (:class:`RateModulation`), weighted by one gain. To this
       :class:`PerNeuronHead` adds a residual that starts at zero, from the bin's state, the unit's embedding, how its
       rate has drifted, that correction (for trained units: what the filter makes of the last bins), and how its own
       and the population's recent activity compare with what was expected (:class:`OwnHistory`). It is multiplied by
       ``residual_gain``, one for each quarter of the future: 1 in training, afterwards what validation supports. The
       loss is the Poisson negative log-likelihood of the counts.

    Units have trained embeddings, or, with ``unit_identity="features"``, everything about a unit comes from its
    reference features (:mod:`neurobridge_tb.datasets.reference_features`): then units that were never trained can be
    forecast, see :meth:`add_units`.

    Args:
        modality: ``"spikes"`` (events) or ``"spike_counts"`` (a grid whose bins are ``bin_size`` wide).
        history: Length of the past in s, a whole number of bins.
        horizon: Length of the future in s, a whole number of bins.
        bin_size: Bin width in s. Default 0.02.
        latent_step: Time between latent steps in s. Default 0.125.
        num_latents_per_step: Latents at each step. Default 8.
        decoder_depth: Layers of the decoder. Default 2.
        decoder_heads: Attention heads of the decoder. Default 4.
        dim_feedback: Width of the population vector that is fed back. Default 256.
        dim_hidden: Hidden width of the head. Default 128.
        unit_identity: ``"embedding"``, one trained row a unit, or ``"features"``. Default ``"embedding"``.
        dim_identity: Width of the IDEncoder's embeddings. Default 256.
        encoder: Further arguments of :class:`NeuroBridgeModel` (``dim``, ``depth``, ``dim_head``, …).
    """

    def __init__(
        self,
        *,
        modality: str,
        history: float,
        horizon: float,
        bin_size: float = 0.02,
        latent_step: float = 0.125,
        num_latents_per_step: int = 8,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        dim_feedback: int = 256,
        dim_hidden: int = 128,
        unit_identity: str = "embedding",
        dim_identity: int = 256,
        encoder: dict[str, Any],
    ):
        super().__init__()
        arguments = inspect.signature(NeuroHorizonModel.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        self.config["encoder"] = dict(encoder)
        if modality not in ("spikes", "spike_counts") or unit_identity not in ("embedding", "features"):
            raise InputError(
                expected="modality 'spikes' or 'spike_counts', unit_identity 'embedding' or 'features'",
                found=f"modality={modality!r}, unit_identity={unit_identity!r}",
                fix="Correct the model config; multi-unit activity is not forecast.",
            )
        self.modality, self.bin_size = modality, bin_size
        self.n_past, self.n_future = _whole_bins("history", history, bin_size), self.bins_of(horizon)
        self.history, self.horizon = history, horizon
        self.encoder = NeuroBridgeModel(
            modality=modality,
            sequence_length=history,
            latent_step=latent_step,
            num_latents_per_step=num_latents_per_step,
            bin_size=bin_size,
            **{"num_factors": 0, "dim_population": 256, **self.config["encoder"]},  # units may be unseen
        )
        settings = self.encoder.config
        del self.encoder.decoder, self.encoder.session_emb  # a past has neither masked cells nor a session's row
        self.encoder.unit_emb.followers = []  # all tables of units are given their vocabulary together, here
        dim = settings["dim"]
        self.decoder = CausalDecoder(
            dim=dim,
            depth=decoder_depth,
            dim_head=settings["dim_head"],
            heads=decoder_heads,
            ffn_dropout=settings["ffn_dropout"],
            atn_dropout=settings["atn_dropout"],
        )
        self.feedback = PopulationFeedback(dim=dim, dim_population=dim_feedback)
        self.own_history = OwnHistory(_OWN_TIME_CONSTANTS, bin_size)
        by_features = unit_identity == "features"
        self.unit_rows = InfiniteVocabEmbedding(dim, init_scale=0.02 if by_features else 0.0)
        self.head = PerNeuronHead(
            dim=dim,
            dim_own=2 * len(_OWN_TIME_CONSTANTS) + (1 + _OF_CELLS if by_features else 1),
            dim_drift=len(RECENT) + 2 + by_features * VARIABILITY,
            dim_hidden=dim_hidden,
            dropout=settings["lin_dropout"],
            read_out=0.0 if by_features else 1.0,
        )
        self.register_buffer("residual_gain", torch.ones(_GAIN_PARTS))
        self.residual_gain: Tensor
        self.register_load_state_dict_pre_hook(_completed)
        self.rate_filter = RateFilter(self.n_past, self.n_future, bin_size)
        self.loss_fn = PoissonNLLLoss()
        self.identity: UnitIdentity | None = None
        self.modulation: RateModulation | None = None
        if by_features:
            self.identity = UnitIdentity(dim_identity)
            self.modulation = RateModulation(self.n_past, self.n_future)
            self.modulation_gain = nn.Parameter(torch.zeros(()))
            for name, table in self._tables().items():
                if not isinstance(table, FixedRows):
                    parent, _, attribute = name.rpartition(".")
                    setattr(self.get_submodule(parent), attribute, IdentityRows(self.identity, table, dim_identity))

    @classmethod
    def _refuse_outdated(cls, path: Path, state: Mapping[str, Any]) -> None:
        parts = {name.split(".")[0] for name in state}
        if "rate_filter" not in parts or ("identity" in parts and "modulation.departure.weight" not in state):
            raise InputError(
                expected=f"a {cls.__name__} with a filter of each unit's rate and, for unseen units, factors of it",
                found=f"{path}, which a development version of 0.1.0 from before these wrote",
                fix="Train it again with `neurobridge forecast`: the network is another one since.",
            )

    def bins_of(self, horizon: float) -> int:
        """Number of bins of a horizon in s."""
        return _whole_bins("horizon", horizon, self.bin_size)

    def gain_parts(self, first: int, n_bins: int) -> Tensor:
        """(n_bins,) which entry of ``residual_gain`` is that of each future bin from the ``first`` on."""
        bins = torch.arange(first, first + n_bins, device=self.residual_gain.device).clamp_max(self.n_future - 1)
        return bins * len(self.residual_gain) // self.n_future

    def _tables(self) -> dict[str, InfiniteVocabEmbedding]:
        return {name: m for name, m in self.named_modules() if isinstance(m, InfiniteVocabEmbedding)}

    # ------------------------------------------------------------------ units

    def init_vocabs(self, dataset: Dataset) -> None:
        """Give every unit of ``dataset`` its rows (or, with reference features, a place for them)."""
        for table in self._tables().values():
            table.initialize_vocab(dataset.get_unit_ids())

    def fit_units(
        self,
        dataset: Dataset,
        intervals: dict[str, Interval],
        features: dict[str, np.ndarray] | None = None,
        *,
        seconds: float = 60.0,
    ) -> None:
        """Set what is known of each unit before training.

        Args:
            dataset: Where the recordings are.
            intervals: Training intervals of each recording.
            features: Reference features (N, 33) of each recording's units, for ``unit_identity="features"``.
            seconds: Length of the reference window in s, at most; it lies in the intervals. Default 60.
        """
        if self.identity is None:
            self.encoder.fit_unit_statistics(dataset, intervals)
            return
        if features is None or not set(dataset.recording_ids) <= set(features):
            raise InputError(
                expected="reference features of every recording (unit_identity='features')",
                found="none" if features is None else ", ".join(sorted(features)),
                fix="Compute them with neurobridge_tb.datasets.recording_features.",
            )
        for recording_id in dataset.recording_ids:
            unit_ids = dataset.get_recording(recording_id).units.id.astype(str).tolist()
            available = float((intervals[recording_id].end - intervals[recording_id].start).sum())
            self.set_reference(unit_ids, features[recording_id], min(seconds, available))
        self.identity.encoder.fit(self.identity.features.weight[1:])

    def add_units(self, unit_ids: list[str], features: np.ndarray, *, seconds: float) -> None:
        """Make units known that were not trained, by their reference features alone (zero-shot).

        Args:
            unit_ids: Their ids; those that are known already get the new features.
            features: (len(unit_ids), 33).
            seconds: Length of their reference window in s.
        """
        if self.identity is None:
            raise InputError(
                expected="a model with unit_identity='features'",
                found="one with a trained embedding for each unit",
                fix="Train with model.unit_identity=features.",
            )
        for table in self._tables().values():
            table.extend_vocab(unit_ids, exist_ok=True)
        self.set_reference(unit_ids, features, seconds)

    def set_reference(self, unit_ids: list[str], features: np.ndarray, seconds: float) -> None:
        """Take from another reference window what is known of units: features, mean count a bin, standard deviation.

        Args:
            unit_ids: Units of the vocabulary.
            features: (len(unit_ids), 33).
            seconds: Length of the window in s.
        """
        assert self.identity is not None
        rows = torch.from_numpy(np.array(features, dtype=np.float32))
        self.identity.features.set(unit_ids, rows)
        mean = torch.from_numpy(posterior_mean(rows[:, 0] * seconds, np.array(seconds / self.bin_size))).float()
        self.unit_stats.set(unit_ids, mean, mean.sqrt())

    @torch.no_grad()
    def fit_modulation(self, unit_ids: list[str], batches: Iterable[dict]) -> Tensor:
        """Fit the rows of :class:`RateModulation` of one recording's units; their reference is set before.

        Args:
            unit_ids: The recording's, in its order.
            batches: Collated batches of :meth:`tokenize_with_targets`, windows of the reference in order of time, with
                the running past.

        Returns:
            The rows (len(unit_ids), width).
        """
        assert self.modulation is not None
        parts, apart, end = [], [], -float("inf")
        for batch in batches:
            past, n = batch["model_inputs"], len(unit_ids)
            counts, present = past["past"], past["past_mask"]
            mean, start = self._filtered(past)
            window = counts, present, mean.expand(len(counts), -1, -1), start
            parts.append([x[..., :n] for x in (*window, batch["target_values"], batch["target_mask"])])
            for begin in batch["absolute_start"].tolist():
                apart.append(begin > end - self.bin_size / 2)
                end = begin + self.history + self.horizon if apart[-1] else end
        windows = Windows(*[*map(torch.cat, zip(*parts, strict=True)), torch.tensor(apart)])
        return self.modulation.fit(windows)

    @torch.no_grad()
    def modulation_cells(self, batch: dict) -> Cells:
        """The cells to forecast.

        Args:
            batch: A collated batch of :meth:`tokenize_with_targets`.
        """
        past, mask = batch["model_inputs"], batch["target_mask"]
        mean, start = self._filtered(past)
        return Cells(self._features(mean, start, past)[mask], start[mask], batch["target_values"][mask])

    # ------------------------------------------------------------------ the network

    def forward(self, *, future: Tensor, future_mask: Tensor, observed: Tensor | None = None, **past: Tensor) -> Tensor:
        """Log-rates of all future bins at once, each from the observed bins before it (teacher-forced).

        Args:
            future: (B, T, N) counts; bin t is seen by the bins after t only.
            future_mask: (B, T, N) which of them exist.
            observed: (B,) bool: windows whose ``future`` was observed; in the others it holds predicted rates.
                Default: all.
            **past: What :meth:`tokenize` returns, collated.

        Returns:
            (B, T, N) log of the expected counts a bin.
        """
        return self._teacher_forced(self._start(future.shape[1], **past), future, future_mask, observed)

    def training_loss(
        self,
        batch: dict,
        *,
        rolled_out: Tensor | None = None,
        unit_dropout: float = 0.0,
        rate_jitter: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Poisson loss of a batch: some windows are rolled out, the others feed back what was observed.

        So the model learns both to use observations and to go on without them (scheduled sampling, Bengio et al. 2015,
        arXiv:1506.03099). A window in four reads its own predictions, which are fed back as they are, without
        gradient: rolling out takes time.

        Args:
            batch: A collated batch of :meth:`tokenize`.
            rolled_out: (B,) bool, which windows are rolled out, on the CPU. Default: drawn here.
            unit_dropout: In each window up to this share of the units is hidden from the model, and
                predicted all the same. Default 0.
            rate_jitter: In each window, the mean rate that the decoder reads of a unit is off by a factor
                ``exp(rate_jitter * z)``, z standard normal: it learns what to think of a rate that has drifted. Default
                0.
            generator: Draws the windows that are rolled out, the hidden units, and the factors of rates. Default:
                torch's own.
        """
        future, mask = batch["target_values"], batch["target_mask"]
        inputs = batch["model_inputs"]
        shown = torch.ones_like(mask[:, 0])
        if unit_dropout:
            shown = draw_shown_units(inputs["unit_index"] > 0, unit_dropout, generator=generator)
            inputs = self._show(inputs, shown)
        units = inputs["unit_index"] > 0
        jitter = torch.randn(units.shape, generator=generator).mul(rate_jitter).exp() if rate_jitter else None
        past = self._start(future.shape[1], jitter, **inputs)
        if rolled_out is None:
            rolled_out = torch.rand(len(mask), generator=generator) < ROLLED_OUT  # on the CPU: no GPU is waited for
        rolled, observed = torch.nonzero(rolled_out).flatten().to(mask.device), (~rolled_out).to(mask.device)
        fed_back, present = future, mask & shown[:, None]
        if len(rolled):
            with torch.no_grad():
                rates = self._roll_out(past.windows(rolled), units[rolled], future.shape[1]).exp()
            fed_back = future.index_copy(0, rolled, rates.to(future))
            present = torch.where(observed[:, None, None], present, units[:, None])
        return self.loss(self._teacher_forced(past, fed_back, present, observed), batch)

    def _show(self, inputs: dict[str, Tensor], shown: Tensor) -> dict[str, Tensor]:
        """The inputs without the units that are not shown (B, N); a window that would lose all tokens keeps them."""
        if not self.encoder.reads_events:
            kept = inputs["input_mask"] & shown[:, None]
        else:
            table = torch.ones((len(shown), len(self.unit_stats.weight)), dtype=torch.bool, device=shown.device)
            table.scatter_(1, inputs["unit_index"], shown)
            kept = inputs["input_mask"] & table.gather(1, inputs["input_unit_index"])
        kept = torch.where(kept.flatten(1).any(1).view(-1, *[1] * (kept.ndim - 1)), kept, inputs["input_mask"])
        return inputs | {"input_mask": kept, "past_mask": inputs["past_mask"] & shown[:, None]}

    def loss(self, log_rates: Tensor, batch: dict) -> Tensor:
        """Poisson negative log-likelihood (nats a bin and unit) over the bins that exist."""
        cells = (x.flatten()[:, None] for x in (log_rates, batch["target_values"]))
        return self.loss_fn(*cells, weights=batch["target_mask"].flatten().to(log_rates))

    @torch.no_grad()
    def generate(self, *, horizon: float | None = None, use_cache: bool = True, **past: Tensor) -> Tensor:
        """Roll out: each bin reads the rates predicted for the bin before. Linear in the horizon.

        Args:
            horizon: In s, a whole number of bins. Default: the model's.
            use_cache: Keep keys and values of earlier bins; without, each bin runs the decoder over all of them.
            **past: What :meth:`tokenize` returns, collated.

        Returns:
            (B, T, N) log of the expected counts a bin.
        """
        n_bins = self.n_future if horizon is None else self.bins_of(horizon)
        return self._roll_out(self._start(n_bins, **past), past["unit_index"] > 0, n_bins, use_cache=use_cache)

    def _roll_out(self, past: _Past, units: Tensor, n_bins: int, *, use_cache: bool = True) -> Tensor:
        """(B, T, N) log-rates of units that exist (B, N)."""
        rows, own, (values, present) = past.rows, past.own, past.last
        predicted = torch.zeros(len(units), 1, dtype=torch.bool, device=units.device)
        fed, caches, outputs = [], None, []
        for step in range(n_bins):
            fed.append(self.feedback(values[:, None], present[:, None], predicted, rows.feedback))
            if use_cache:
                states, caches = self.decoder(fed[-1], self._rotary(step, 1, values), past.context, caches)
            else:
                states, _ = self.decoder(torch.cat(fed, 1), self._rotary(0, step + 1, values), past.context)
            outputs.append(self._log_rates(states[:, -1:], rows, self.own_history.read(own)[:, None], step))
            counts, present, predicted = outputs[-1].exp(), units, torch.ones_like(predicted)
            values = self._standardize(counts, rows)[:, 0]
            own = self.own_history.step(own, self._bounded(counts, rows)[:, 0], present, rows.mean[:, 0])
        return torch.cat(outputs, dim=1)

    def _start(self, n_bins: int, jitter: Tensor | None = None, **past: Tensor) -> _Past:
        encoder_inputs: dict[str, Any] = {k: past[k] for k in past if k.startswith(("input_", "latent_"))}
        latents = self.encoder.encode(**encoder_inputs)
        context = self.decoder.latent_context(latents, self.encoder.rotary_emb(past["latent_timestamps"]))
        index = past["unit_index"]
        counts, present = past["past"], past["past_mask"]
        reference, recent, mean = self._means(index, jitter, past)
        drift = self.rate_filter.evidence(reference, mean, *recent)
        if self.modulation is not None:
            drift = torch.cat([drift, self.modulation.variability(index)], dim=-1)
        start, modulation = self._before_residual(mean, n_bins, past)
        std = (self.unit_stats(index)[:, None, :, 1] * (mean / reference).sqrt()).clamp_min(1e-6)
        units = self.unit_rows(index)
        of_head = self.head.of_units(units, drift)
        rows = _Rows(self.feedback.unit_rows(index), units, of_head, mean, std, start, modulation)
        last = self._standardize(counts[:, -1:], rows)[:, 0], present[:, -1]
        own = self.own_history.start(self._bounded(counts, rows), present, rows.mean)
        return _Past(context, rows, last, own)

    def _means(
        self, index: Tensor, jitter: Tensor | None, past: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Units' mean counts in the reference window, the running past, and what the means are by now."""
        reference = self.unit_stats.log_mean(index)[:, None].exp()
        if jitter is not None:  # (B, N)
            reference = reference * jitter[:, None].to(reference)
        nothing = reference.new_zeros(len(past["past"]), len(RECENT), past["past"].shape[2])
        recent = past.get("recent_spikes", nothing), past.get("recent_bins", nothing)
        return reference, recent, self.rate_filter.drifted_mean(reference, *recent)

    def _filtered(self, past: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, 1, N) what the means are by now, and (B, T, N) log-rates of the filter."""
        mean = self._means(past["unit_index"], None, past)[2]
        return mean, self.rate_filter(mean, past["past"], past["past_mask"], self.n_future)

    def _before_residual(self, mean: Tensor, n_bins: int, past: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, T, N) log-rates, and (B, T, N, C) how they were corrected, or, where they are not, the last bins."""
        start = self.rate_filter(mean, past["past"], past["past_mask"], n_bins)
        if self.modulation is None:
            return start, (start - mean.log())[..., None]
        features = self._features(mean, start, past)
        added = self.modulation(past["unit_index"], features)
        return start + self.modulation_gain * added, torch.cat([added[..., None], features[..., :_OF_CELLS]], dim=-1)

    def _features(self, mean: Tensor, start: Tensor, past: dict[str, Tensor]) -> Tensor:
        assert self.modulation is not None
        index, counts, present = past["unit_index"], past["past"], past["past_mask"]
        reference, recent, _ = self._means(index, None, past)
        evidence = self.rate_filter.evidence(reference, mean, *recent)[..., _DRIFTS]
        history = self.own_history.read(self.own_history.start(counts, present, mean)).unflatten(-1, (2, -1))
        numbers = torch.cat([history[..., _HISTORY], evidence], dim=-1)
        return self.modulation.features(index, counts, present, mean, start - reference.log(), numbers)

    def start(self, **past: Tensor) -> Tensor:
        """The forecast before the residual: what each unit's own spikes say, and what the population's past corrects.

        Args:
            **past: What :meth:`tokenize` returns, collated.

        Returns:
            (B, T, N) log of the expected counts a bin.
        """
        mean = self._means(past["unit_index"], None, past)[2]
        return self._before_residual(mean, self.n_future, past)[0]

    def _teacher_forced(self, past: _Past, future: Tensor, present: Tensor, observed: Tensor | None) -> Tensor:
        context, rows, last, own = past
        values = torch.cat([last[0][:, None], self._standardize(future[:, :-1], rows)], dim=1)
        present = torch.cat([last[1][:, None], present[:, :-1]], dim=1)
        predicted = torch.zeros(future.shape[:2], dtype=torch.bool, device=future.device)
        if observed is not None:
            predicted[:, 1:] = ~observed[:, None]
        feedback = self.feedback(values, present, predicted, rows.feedback)
        states, _ = self.decoder(feedback, self._rotary(0, future.shape[1], future), context)
        histories, counts = [own], self._bounded(future, rows)
        for step in range(1, future.shape[1]):
            own = self.own_history.step(own, counts[:, step - 1], present[:, step], rows.mean[:, 0])
            histories.append(own)
        observed_of, expected_of = (torch.stack(x, dim=1) for x in zip(*histories, strict=True))
        return self._log_rates(states, rows, self.own_history.read((observed_of, expected_of)), 0)

    def _log_rates(self, states: Tensor, rows: _Rows, own: Tensor, first: int) -> Tensor:
        """Of the bins from the ``first`` on."""
        bins = slice(first, first + states.shape[1])
        own = torch.cat([own, rows.modulation[:, bins]], dim=-1)
        gain = self.residual_gain[self.gain_parts(first, states.shape[1]), None]
        return rows.start[:, bins] + gain * self.head(states, rows.head, own, rows.of_head)

    def _standardize(self, counts: Tensor, rows: _Rows) -> Tensor:
        return ((counts - rows.mean) / rows.std).clamp_max(_LARGEST)

    @staticmethod
    def _bounded(counts: Tensor, rows: _Rows) -> Tensor:
        """Counts as input of a unit's own history: bounded, so that rolling out is, but a spike is always one."""
        return torch.minimum(counts, (rows.mean + _LARGEST * rows.std).clamp_min(1.0))

    def _rotary(self, first: int, n_bins: int, like: Tensor) -> Tensor:
        """(B, T, 2d) rotary embeddings of the middles of future bins."""
        bins = self.n_past + first + torch.arange(n_bins, device=like.device) + 0.5
        return self.encoder.rotary_emb(bins * self.bin_size).expand(len(like), -1, -1)


def _completed(module: NeuroHorizonModel, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Models from before the residual had a gain, and, of trained units, read what the filter says of the last bins."""
    state.setdefault(f"{prefix}residual_gain", torch.ones(_GAIN_PARTS))
    for name in ("own", "from_own"):
        key = f"{prefix}head.{name}.weight"
        if key in state and state[key].shape[1] == 2 * len(_OWN_TIME_CONSTANTS):
            state[key] = nn.functional.pad(state[key], (0, 1))


def _whole_bins(name: str, length: float, bin_size: float) -> int:
    bins = round(length / bin_size)
    if bins < 1 or abs(bins * bin_size - length) > 1e-6 * length:
        raise InputError(
            expected=f"a {name} of a whole number of bins",
            found=f"{length} s with bins of {bin_size} s",
            fix=f"Set it to {max(int(length / bin_size), 1) * bin_size:.6g} s, or change bin_size.",
        )
    return bins
