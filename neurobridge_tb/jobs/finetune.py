"""Fine-tuning on a behaviour, beside the same network from scratch and other decoders on the same labels."""

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from neurobridge_tb._upstream import Dataset, Interval
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.configs.finetune import FinetuneConfig
from neurobridge_tb.data.activity import sampling_intervals
from neurobridge_tb.data.behavior import check_known, raw_samples, read_windows
from neurobridge_tb.data.targets import series_spec
from neurobridge_tb.data.windows import batch_size_for, window_loader
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import files_of, open_dataset, settle
from neurobridge_tb.engine.epoch_seeds import EpochSeeds
from neurobridge_tb.engine.modules.decoding import DecodingModule, LabelledTokenizer, fit_readout, predict_behavior
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.files import write_json
from neurobridge_tb.metrics.spikes import r2
from neurobridge_tb.models import BehaviorDecoder, NeuroBridgeModel
from neurobridge_tb.models.decoding_baselines import GRUDecoder, POYODecoder
from neurobridge_tb.processes import is_first_process
from neurobridge_tb.registry_ext import ModalitySpec
from neurobridge_tb.scoring.decoding.series_decoding import window_scores

_CHECKS = 20  # validations in a run


def finetune(config: FinetuneConfig | None = None, /, **settings: Any) -> Path:
    """Train and score every decoder of ``config.rows``; returns the run folder with ``metrics.json``.

    Each sees the same labelled windows, keeps its weights of least validation loss, and is scored once: R^2 over all
    bins of the test windows, with a 95 % bootstrap interval over windows. Run again to resume.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`FinetuneConfig`.
        **settings: Settings by name, e.g. ``root="processed", labels=21``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(FinetuneConfig, config, settings)
    dataset = open_dataset(config.dataset)
    spec = series_spec(dataset, config.target)
    if spec is None:
        raise InputError(
            expected="a series, e.g. target=hand.velocity",
            found=f"{config.target}, a column of a table",
            fix="Use `neurobridge decode`.",
        )
    reader = NeuroBridgeModel.from_pretrained(config.pretrained).eval()
    splits = {
        split: sampling_intervals(reader, dataset, split, windows=config.windows)
        for split in ("train", "valid", "test")
    }
    splits["train"] = first_intervals(splits["train"], config.labels)
    layout: dict[str, Any] = {"windows": config.windows, "window_length": reader.sequence_length}
    windows = {split: read_windows(dataset, intervals, **layout) for split, intervals in splits.items()}
    samples = {split: raw_samples(reader, windows[split], spec, config.history) for split in splits}
    for split, (_, behavior) in samples.items():
        check_known(split, config.target, behavior)
    observed = samples["test"][1]

    def ridge() -> list[np.ndarray]:
        fitted = fit_ridge(*(np.concatenate(part) for split in ("train", "valid") for part in samples[split]))
        return [fitted.predict(x) for x in samples["test"][0]]

    scale = Standardizer.fit(np.concatenate(samples["train"][1]))

    def predictions(decoder: nn.Module, split: str) -> list[np.ndarray]:
        tokenizer = LabelledTokenizer(decoder, spec, scale)
        return [scale.inverse(p) for p in predict_behavior(place(decoder.eval(), config), tokenizer, windows[split])]

    def valid_r2(decoder: nn.Module) -> float:
        predicted, true = (np.concatenate(x) for x in (predictions(decoder, "valid"), samples["valid"][1]))
        return float(r2(predicted, true).mean())

    @functools.cache
    def frozen() -> BehaviorDecoder:
        decoder = BehaviorDecoder(encoder=reader.config, dim_out=spec.dim)
        decoder.encoder = copy.deepcopy(reader)
        place(decoder, config)
        return fit_readout(decoder, LabelledTokenizer(decoder, spec, scale), windows["train"], windows["valid"])

    def trained(name: str, build: Callable[[], nn.Module], lr: float) -> list[np.ndarray]:
        run = RunFolder(replace(config, run_dir=f"{config.run_dir}/{name}"), files_of(dataset))
        L.seed_everything(config.seed, verbose=False)
        decoder = build()
        start, start_r2 = copy.deepcopy(decoder.state_dict()), valid_r2(decoder)
        decoder.train()
        tokenizers = {
            "train": LabelledTokenizer(decoder, spec, scale, unit_dropout=config.unit_dropout),
            "valid": LabelledTokenizer(decoder, spec, scale),
        }
        processes = run.processes(config.trainer)
        n_windows = len(windows["train"])
        size = min(config.loader.batch_size or batch_size_for(n_windows), n_windows // processes)
        batches = {**layout, **asdict(config.loader), "batch_size": size}
        train, valid = (
            window_loader(dataset, t, splits[split], shuffle=split == "train", seed=config.seed, **batches)
            for split, t in tokenizers.items()
        )
        drawn: Any = train.sampler
        epochs = math.ceil(config.steps / (len(drawn) // processes // size))
        module = DecodingModule(decoder, spec.loss_fn, lr=lr, weight_decay=config.optimizer.weight_decay)
        trainer = run.trainer(
            replace(config.trainer, max_epochs=epochs),
            [EpochSeeds(config.seed, train)],
            monitor="val/loss",
            every_n_epochs=max(1, epochs // _CHECKS),
            some_unused=True,
        )
        run.fit(trainer, module, train, valid)
        best = torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        if valid_r2(decoder) < start_r2:
            decoder.load_state_dict(start)
        if isinstance(decoder, BehaviorDecoder) and is_first_process():
            decoder.save_pretrained(run.model)
        return predictions(decoder, "test")

    lr, pretrained_lr = config.optimizer.lr, config.optimizer.pretrained_lr
    decoders: dict[str, Callable[[], list[np.ndarray]]] = {
        "pretrained": lambda: trained("pretrained", lambda: copy.deepcopy(frozen()), pretrained_lr),
        "frozen": lambda: predictions(frozen(), "test"),
        "scratch": lambda: trained("scratch", lambda: _scratch(reader, dataset, spec), lr),
        "gru": lambda: trained("gru", lambda: GRUDecoder(reader, dataset, dim_out=spec.dim), lr),
        "poyo": lambda: trained("poyo", lambda: POYODecoder(reader, dataset, dim_out=spec.dim), lr),
        "ridge": ridge,
    }
    unknown = [name for name in config.rows if name not in decoders]
    if unknown or not config.rows:
        raise InputError(
            expected=f"rows among {', '.join(decoders)}", found=", ".join(unknown) or "none", fix="Correct rows=[…]."
        )
    n_bins = sum(len(reader.bin_times(window)) for window in windows["test"])
    n_left_out = n_bins - sum(map(len, observed))
    rows = [{"decoder": name, **window_scores(decoders[name](), observed, config.seed)} for name in config.rows]
    content = {
        "dataset": ", ".join(dataset.recording_ids),
        "simulated": is_simulated(dataset),
        "command": config.command,
        "target": config.target,
        "labelled windows": len(windows["train"]),
        "notes": [f"{n_left_out:,} of {n_bins:,} test bins are left out: {config.target} is not known there."]
        * (n_left_out > 0),
        "rows": rows,
    }
    if is_first_process():
        write_json(Path(config.run_dir) / "metrics.json", content)
    return Path(config.run_dir)


def first_intervals(intervals: dict[str, Interval], count: int | None) -> dict[str, Interval]:
    """The first ``count`` intervals of each recording (None: all), as if only these had been labelled."""
    if count is not None and count < 1:
        raise InputError(expected="labels=1 or more", found=f"labels={count}", fix="Use labels=null for all of them.")
    return {rid: Interval(i.start[:count], i.end[:count]) for rid, i in intervals.items()}


def _scratch(reader: NeuroBridgeModel, dataset: Dataset, spec: ModalitySpec) -> BehaviorDecoder:
    decoder = BehaviorDecoder(encoder=reader.config, dim_out=spec.dim)
    decoder.init_vocabs(dataset)
    decoder.encoder.unit_stats.load_state_dict(reader.unit_stats.state_dict())
    return decoder
