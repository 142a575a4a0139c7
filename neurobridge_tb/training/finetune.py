"""Fine-tuning on a behaviour, beside the same network from scratch and other decoders on the same labels."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from neurobridge_tb._upstream import Data, Dataset, Interval, collate, pad, track_mask
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.errors import InputError
from neurobridge_tb.evaluation.ridge import Standardizer, fit_ridge
from neurobridge_tb.evaluation.spikes import r2
from neurobridge_tb.files import write_json
from neurobridge_tb.models import BehaviorDecoder, NeuroBridgeModel
from neurobridge_tb.registry_ext import ModalitySpec
from neurobridge_tb.training.behavior import behavior_at, behavior_spec, raw_samples, read_windows
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.decoding_baselines import GRUDecoder, POYODecoder
from neurobridge_tb.training.optim import Group, adamw_with_warmup
from neurobridge_tb.training.run_folder import RunFolder
from neurobridge_tb.training.windows import EpochSeeds, window_loader

_RESAMPLES = 2000  # of the bootstrap
_CHECKS = 20  # validations in a run


class LabelledTokenizer:
    """Tokenize a window together with its standardised behaviour.

    Args:
        decoder: Its ``tokenize`` makes the inputs.
        spec: The behaviour.
        scale: Mean and standard deviation of the behaviour.
        unit_dropout: A random share of the units, at most this, is hidden. Default 0.
    """

    def __init__(self, decoder: Any, spec: ModalitySpec, scale: Standardizer, *, unit_dropout: float = 0.0):
        self.decoder, self.spec, self.scale, self.unit_dropout = decoder, spec, scale, unit_dropout

    def __call__(self, data: Data) -> dict[str, Any]:
        keep = torch.rand(len(data.units)).numpy() >= self.unit_dropout * float(torch.rand(()))
        inputs = self.decoder.tokenize(data, keep)
        times = np.asarray(inputs["output_timestamps"].obj)
        behavior = behavior_at(data, self.spec, times + (times[1] - times[0]) / 2)
        return {
            "model_inputs": inputs,
            "target_values": pad(torch.from_numpy(self.scale(behavior).astype(np.float32))),
            "target_mask": track_mask(times),
        }


class DecodingModule(L.LightningModule):
    """Train a decoder with the behaviour's loss.

    Args:
        decoder: A :class:`BehaviorDecoder` or a baseline.
        loss_fn: The modality's loss.
        lr: Highest learning rate.
        encoder_lr: Highest learning rate of a pretrained encoder; None: all learn at ``lr``.
        weight_decay: AdamW's weight decay.
    """

    def __init__(
        self, decoder: nn.Module, loss_fn: Callable, *, lr: float, encoder_lr: float | None, weight_decay: float
    ):
        super().__init__()
        self.decoder, self.loss_fn = decoder, loss_fn
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: dict, batch_index: int) -> None:
        self._loss(batch, "val")

    def _loss(self, batch: dict, split: str) -> Tensor:
        asked = batch["target_mask"]
        loss = self.loss_fn(self.decoder(**batch["model_inputs"])[asked], batch["target_values"][asked])
        self.log(f"{split}/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=int(asked.sum()))
        return loss

    def configure_optimizers(self) -> Any:
        named = list(self.decoder.named_parameters())
        slow = [(n, p) for n, p in named if self.encoder_lr is not None and n.startswith("encoder.")]
        names = {n for n, _ in slow}
        groups = [Group([(n, p) for n, p in named if n not in names], self.lr)]
        if self.encoder_lr is not None:
            groups.append(Group(slow, self.encoder_lr))
        total = int(self.trainer.estimated_stepping_batches)
        return adamw_with_warmup(*groups, weight_decay=self.weight_decay, total_steps=total)


def finetune(config: DictConfig) -> Path:
    """Train and score every decoder of ``config.rows``; returns the run folder with ``metrics.json``.

    Each sees the same labelled windows, keeps its weights of least validation loss, and is scored once: R^2 over all
    bins of the test windows, with a 95 % bootstrap interval over windows. Run again to resume.

    Args:
        config: ``configs/finetune.yaml`` with its overrides.
    """
    dataset, spec = open_dataset(config), behavior_spec(config.target)
    reader = NeuroBridgeModel.load_pretrained(config.pretrained).eval()
    splits = {split: dataset.get_sampling_intervals(split) for split in ("train", "valid", "test")}
    splits["train"] = first_intervals(splits["train"], config.labels)
    layout = dict(windows=config.windows, window_length=reader.sequence_length)
    windows = {split: read_windows(dataset, intervals, **layout) for split, intervals in splits.items()}
    samples = {split: raw_samples(reader, windows[split], spec, config.history) for split in splits}
    observed = samples["test"][1]

    def ridge() -> list[np.ndarray]:
        fitted = fit_ridge(*(np.concatenate(part) for split in ("train", "valid") for part in samples[split]))
        return [fitted.predict(x) for x in samples["test"][0]]

    def trained(name: str, build: Callable[[], nn.Module]) -> list[np.ndarray]:
        run = RunFolder(OmegaConf.merge(config, {"run_dir": f"{config.run_dir}/{name}"}))  # type: ignore[arg-type]
        L.seed_everything(config.seed, verbose=False)
        decoder = build().train()
        scale = Standardizer.fit(np.concatenate(samples["train"][1]))
        tokenizers = {
            "train": LabelledTokenizer(decoder, spec, scale, unit_dropout=config.unit_dropout),
            "valid": LabelledTokenizer(decoder, spec, scale),
        }
        settings = dict(config.loader) | {"batch_size": min(config.loader.batch_size, len(windows["train"]))}
        train, valid = (
            window_loader(dataset, t, splits[split], shuffle=split == "train", seed=config.seed, **layout, **settings)
            for split, t in tokenizers.items()
        )
        epochs = math.ceil(config.steps / len(train))
        module = DecodingModule(
            decoder,
            spec.loss_fn,
            lr=config.optimizer.lr,
            encoder_lr=config.optimizer.encoder_lr if name == "pretrained" else None,
            weight_decay=config.optimizer.weight_decay,
        )
        trainer = run.trainer(
            dict(config.trainer) | {"max_epochs": epochs},
            [EpochSeeds(config.seed, train)],
            monitor="val/loss",
            every_n_epochs=max(1, epochs // _CHECKS),
        )
        run.fit(trainer, module, train, valid)
        best = torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        if isinstance(decoder, BehaviorDecoder):
            decoder.save_pretrained(run.model)
        return [scale.inverse(p) for p in _predict(decoder.eval(), tokenizers["valid"], windows["test"])]

    decoders: dict[str, Callable[[], list[np.ndarray]]] = {
        "pretrained": lambda: trained("pretrained", lambda: _pretrained(reader, spec)),
        "scratch": lambda: trained("scratch", lambda: _scratch(reader, dataset, spec)),
        "gru": lambda: trained("gru", lambda: GRUDecoder(reader, dataset, dim_out=spec.dim)),
        "poyo": lambda: trained("poyo", lambda: POYODecoder(reader, dataset, dim_out=spec.dim)),
        "ridge": ridge,
    }
    if unknown := [name for name in config.rows if name not in decoders]:
        raise InputError(
            expected=f"rows among {', '.join(decoders)}", found=", ".join(unknown), fix="Correct rows=[…]."
        )
    rows = [{"decoder": name, **_scores(decoders[name](), observed, config.seed)} for name in config.rows]
    write_json(
        Path(config.run_dir) / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "target": config.target,
            "labelled windows": len(windows["train"]),
            "rows": rows,
        },
    )
    return Path(config.run_dir)


def first_intervals(intervals: dict[str, Interval], count: int | None) -> dict[str, Interval]:
    """The first ``count`` intervals of each recording (None: all), as if only these had been labelled."""
    return {rid: Interval(i.start[:count], i.end[:count]) for rid, i in intervals.items()}


def _pretrained(encoder: NeuroBridgeModel, spec: ModalitySpec) -> BehaviorDecoder:
    decoder = BehaviorDecoder(encoder=encoder.config, dim_out=spec.dim)
    decoder.encoder = copy.deepcopy(encoder)
    return decoder


def _scratch(reader: NeuroBridgeModel, dataset: Dataset, spec: ModalitySpec) -> BehaviorDecoder:
    decoder = BehaviorDecoder(encoder=reader.config, dim_out=spec.dim)
    decoder.init_vocabs(dataset)
    decoder.encoder.unit_stats.load_state_dict(reader.unit_stats.state_dict())
    return decoder


@torch.no_grad()
def _predict(decoder: nn.Module, tokenizer: LabelledTokenizer, windows: list[Data]) -> list[np.ndarray]:
    """Standardised behaviour (T, dim) of each window."""
    predicted = []
    for start in range(0, len(windows), 64):
        batch = collate([tokenizer(window) for window in windows[start : start + 64]])
        outputs = decoder(**batch["model_inputs"])
        predicted += [o[mask].numpy() for o, mask in zip(outputs, batch["target_mask"], strict=True)]
    return predicted


def _scores(predicted: list[np.ndarray], observed: list[np.ndarray], seed: int) -> dict[str, Any]:
    """R^2 of each column and their mean, with a bootstrap interval of the mean over windows."""
    rng, n = np.random.default_rng(seed), len(observed)
    error = np.stack([((p - o) ** 2).sum(0) for p, o in zip(predicted, observed, strict=True)])
    moments = [np.stack([(o**k).sum(0) for o in observed]) for k in (0, 1, 2)]
    draws = rng.integers(0, n, (_RESAMPLES, n))
    count, total, square = (m[draws].sum(1) for m in moments)
    resampled = (1 - error[draws].sum(1) / (square - total**2 / count)).mean(1)
    score = r2(np.concatenate(predicted), np.concatenate(observed))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"R2": score.tolist(), "mean R2": float(score.mean()), "low": float(low), "high": float(high)}
