"""Masked pretraining of NeuroBridgeModel in a plain loop, with upstream's dataset, samplers and collate.

python train.py data_root=processed dataset=tvsd
python train.py data_root=processed dataset=spikes model.depth=4 epochs=100
"""

import logging
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from torch_brain.batching import collate
from torch_brain.samplers import RandomFixedWindowSampler, SequentialFixedWindowSampler, TrialSampler

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.masking import MaskedTokenizer

log = logging.getLogger(__name__)


def make_loader(cfg: DictConfig, model: NeuroBridgeModel, split: str) -> tuple[DataLoader, MaskedTokenizer]:
    """Windows of a split, masked. In validation a window has the same mask in every epoch."""
    training = split == "train"
    transform = MaskedTokenizer(model, cfg.schemes, seed=cfg.seed, fixed=not training)
    dataset = instantiate(cfg.dataset, root=cfg.data_root, transform=transform)
    intervals = dataset.get_sampling_intervals(split)
    generator = torch.Generator().manual_seed(cfg.seed)
    if cfg.windows == "trial":  # one interval is one window, e.g. a presentation
        sampler = TrialSampler(sampling_intervals=intervals, shuffle=training, generator=generator)
    elif training:
        sampler = RandomFixedWindowSampler(
            sampling_intervals=intervals, window_length=model.sequence_length, generator=generator
        )
    else:
        sampler = SequentialFixedWindowSampler(sampling_intervals=intervals, window_length=model.sequence_length)
    loader = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=cfg.batch_size,
        drop_last=training,
        num_workers=cfg.num_workers,
        persistent_workers=cfg.num_workers > 0,
        collate_fn=collate,
    )
    return loader, transform


def to_device(batch: dict, device: torch.device) -> dict:
    """Tensors on the device, times in float32; names and schemes as they are."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, torch.Tensor):
        return batch.to(device, torch.float32 if batch.dtype == torch.float64 else batch.dtype)
    return batch


@torch.no_grad()
def validate(model: NeuroBridgeModel, loader: DataLoader, device: torch.device) -> float:
    """Mean loss over the masked cells of all windows."""
    model.eval()
    losses, cells = [], []
    for batch in loader:
        batch = to_device(batch, device)
        losses.append(model.masked_loss(model(**batch["model_inputs"]), batch).item())
        cells.append(batch["model_inputs"]["output_mask"].sum().item())
    return float(np.average(losses, weights=cells))


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    torch.manual_seed(cfg.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # Model: as POYO, it gets its vocabularies from a dataset; grid values are standardised besides.
    dataset = instantiate(cfg.dataset, root=cfg.data_root)
    model: NeuroBridgeModel = instantiate(cfg.model)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    model.to(device)
    log.info(f"{len(dataset.recording_ids)} recordings, {len(dataset.get_unit_ids())} units")

    train_loader, masks = make_loader(cfg, model, "train")
    valid_loader, _ = make_loader(cfg, model, "valid")

    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, cfg.lr, total_steps=cfg.epochs * len(train_loader), pct_start=0.05
    )

    best, out = float("inf"), Path(cfg.out)
    for epoch in range(cfg.epochs):
        masks.set_epoch(epoch)  # each epoch draws its own masks
        model.train()
        losses = []
        for batch in train_loader:
            batch = to_device(batch, device)
            loss = model.masked_loss(model(**batch["model_inputs"]), batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())

        valid = validate(model, valid_loader, device)
        log.info(f"epoch {epoch}: train {np.mean(losses):.4f}, valid {valid:.4f}")
        if valid < best:
            best = valid
            model.save_pretrained(out)  # NeuroBridgeModel.load_pretrained(out)
    log.info(f"Best validation loss {best:.4f}, model in {out}")


if __name__ == "__main__":
    main()
