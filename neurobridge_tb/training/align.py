"""Alignment of a pretrained encoder with image embeddings, in two stages."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.losses import Temperature, info_nce, regression_loss
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.evaluation.retrieval import cosine_similarity, topk_hits
from neurobridge_tb.models import ImageAligner, NeuroBridgeModel
from neurobridge_tb.training.config import open_dataset
from neurobridge_tb.training.masked_scores import masked_scores
from neurobridge_tb.training.optim import Group, adamw_with_warmup
from neurobridge_tb.training.pairs import PairTokenizer
from neurobridge_tb.training.pretrain import masked_loaders
from neurobridge_tb.training.responses import collect_responses
from neurobridge_tb.training.run_folder import RunFolder
from neurobridge_tb.training.windows import EpochSeeds, window_loader


class AlignmentModule(L.LightningModule):
    """Symmetric InfoNCE and regression to the image embedding.

    Stage 1: the encoder is frozen. Stage 2: its last layers are free, and the masked loss is replayed so that they do
    not forget what pretraining taught them.

    Args:
        model: Encoder, read-out and projector.
        embeddings: Image embeddings of every training and validation image.
        config: ``configs/align.yaml``.
        stage1_model: Folder to which the model is exported after stage 1.
    """

    def __init__(self, model: ImageAligner, embeddings: EmbeddingCache, config: DictConfig, stage1_model: Path):
        super().__init__()
        self.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
        self.model, self.embeddings, self.config, self.stage1_model = model, embeddings, config, stage1_model
        self.temperature = Temperature()
        self.model.encoder.requires_grad_(False)
        self.free_layers = self.model.encoder.proc_layers[-config.stage2.free_layers :]
        self.free_layers.requires_grad_(True)

    @property
    def in_stage2(self) -> bool:
        """Whether the encoder's last layers are trained in this epoch."""
        return self.current_epoch >= self.config.stage1.epochs

    def on_train_epoch_start(self) -> None:
        self.model.encoder.train(self.in_stage2)
        self.free_layers.requires_grad_(self.in_stage2)

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self._pair_loss(batch, "train")
        if self.in_stage2 and self.config.stage2.replay_weight:
            encoder, masked = self.model.encoder, batch["masked"]
            replay = encoder.masked_loss(encoder(**masked["model_inputs"]), masked)
            self.log("train/replay", replay, on_step=False, on_epoch=True, batch_size=len(batch["image_id"]))
            loss = loss + self.config.stage2.replay_weight * replay
        return loss

    def validation_step(self, batch: dict, batch_index: int) -> None:
        self._pair_loss(batch, "val")

    def on_train_epoch_end(self) -> None:
        if self.current_epoch + 1 == self.config.stage1.epochs:
            self.model.save_pretrained(self.stage1_model)

    def configure_optimizers(self) -> Any:
        total = int(self.trainer.estimated_stepping_batches)
        stage1, stage2 = self.config.stage1, self.config.stage2
        first = round(total * stage1.epochs / (stage1.epochs + stage2.epochs))
        head = [(n, p) for n, p in self.named_parameters() if not n.startswith("model.encoder.")]
        return adamw_with_warmup(
            Group(head, stage1.lr),
            Group(self.free_layers.named_parameters(), stage2.lr, first),
            weight_decay=self.config.weight_decay,
            total_steps=total,
        )

    def _pair_loss(self, batch: dict, split: str) -> torch.Tensor:
        ids = batch["image_id"]
        target = self.embeddings.lookup(ids).to(self.device)
        contrastive, regression = self.model(**batch["window"]["model_inputs"])
        contrast = info_nce(contrastive, self.model.center(target), temperature=self.temperature(), image_ids=ids)
        std = self.model.embedding_std
        error = regression_loss(regression / std, target / std)
        loss = contrast + self.config.regression_weight * error
        values = {"loss": loss, "info_nce": contrast, "regression": error}
        if split == "val":
            similarity = cosine_similarity(contrastive.detach().float().cpu(), self.model.center(target).cpu())
            values["top5"] = torch.tensor(topk_hits(similarity, min(5, len(ids))).mean())
        for name, value in values.items():
            self.log(
                f"{split}/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", batch_size=len(ids)
            )
        return loss


def align(config: DictConfig) -> Path:
    """Run both stages, or resume them; returns the run folder.

    Args:
        config: ``configs/align.yaml`` with its overrides.
    """
    run, began = RunFolder(config), time.monotonic()
    L.seed_everything(config.seed, verbose=False)
    dataset = open_dataset(config)
    encoder = NeuroBridgeModel.load_pretrained(config.pretrained)
    embeddings = EmbeddingCache.load(config.embeddings)
    model = ImageAligner(
        encoder=encoder.config,
        image_encoder=embeddings.encoder,
        preprocessing_hash=embeddings.preprocessing_hash,
        dim_embedding=embeddings.dim,
        **config.readout,
    )
    model.encoder = encoder
    train_ids = [
        image_id
        for recording_id in dataset.recording_ids
        for image_id in np.unique(collect_responses(dataset, encoder, recording_id, "train").image_ids)
    ]
    model.fit_embedding_statistics(embeddings.lookup(train_ids))

    schemes = {name: float(weight) for name, weight in config.masking.items() if weight}
    common = dict(windows=config.windows, window_length=encoder.sequence_length, seed=config.seed, **config.loader)
    train = window_loader(
        dataset,
        PairTokenizer(
            encoder,
            schemes=schemes if config.stage2.replay_weight else None,
            masked_from=config.stage1.epochs,
            unit_dropout=config.unit_dropout,
            seed=config.seed,
        ),
        dataset.get_sampling_intervals("train"),
        shuffle=True,
        **common,
    )
    valid = window_loader(dataset, PairTokenizer(encoder), dataset.get_sampling_intervals("valid"), **common)
    _, masked = masked_loaders(config, dataset, encoder)
    before = masked_scores(encoder.eval(), masked)

    module = AlignmentModule(model, embeddings, config, run.path / "model_stage1")
    settings = dict(config.trainer) | {"max_epochs": config.stage1.epochs + config.stage2.epochs}
    trainer = run.trainer(settings, [EpochSeeds(config.seed, train)], monitor="val/loss")
    run.fit(trainer, module, train, valid)

    final = ImageAligner.load_pretrained(run.last_checkpoint).eval()
    final.save_pretrained(run.model)
    after = masked_scores(final.encoder, masked)
    run.write_metrics(
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "forgetting": [
                {"scheme": b["scheme"], "metric": b["metric"], "before": b["model"], "after": a["model"]}
                for b, a in zip(before, after, strict=True)
            ],
            "seconds": time.monotonic() - began,
        }
    )
    return run.path
