"""NeuroHorizonModel in a plain loop: spikes forecast from the population's past.

python train.py data_root=processed/my_lab modality=spikes
python train.py data_root=processed/my_lab modality=spike_counts model.bin_size=0.05 model.horizon=0.5
"""

import logging

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from torch_brain.batching import collate
from torch_brain.samplers import RandomFixedWindowSampler, SequentialFixedWindowSampler

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb.metrics.spikes import BitsPerSpike

log = logging.getLogger(__name__)


def to_device(batch: dict, device: torch.device) -> dict:
    """Tensors on the device, times in float32; names as they are."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, torch.Tensor):
        return batch.to(device, torch.float32 if batch.dtype == torch.float64 else batch.dtype)
    return batch


def make_loader(cfg: DictConfig, model: NeuroHorizonModel, split: str) -> DataLoader:
    """Windows of ``history + horizon`` seconds: at random to train, one after the other to score."""
    dataset = instantiate(cfg.dataset, root=cfg.data_root, transform=model.tokenize_with_targets)
    intervals, length = dataset.get_sampling_intervals(split), model.history + model.horizon
    sampler = (
        RandomFixedWindowSampler(
            sampling_intervals=intervals, window_length=length, generator=torch.Generator().manual_seed(cfg.seed)
        )
        if split == "train"
        else SequentialFixedWindowSampler(sampling_intervals=intervals, window_length=length)
    )
    return DataLoader(
        dataset, sampler=sampler, batch_size=cfg.batch_size, num_workers=cfg.num_workers, collate_fn=collate
    )


@torch.no_grad()
def score(model: NeuroHorizonModel, loader: DataLoader, device: torch.device) -> float:
    """Bits per spike, over each unit's training mean, of forecasts that see nothing of the future."""
    model.eval()
    scorer = BitsPerSpike(model.unit_stats.weight[:, 0].clamp_min(1e-6).cpu())  # one rate for each known unit
    for batch in loader:
        batch = to_device(batch, device)
        rates = model.generate(**batch["model_inputs"]).exp()
        units = batch["model_inputs"]["unit_index"][:, None].expand_as(rates)
        scorer.update(rates.cpu(), batch["target_values"].cpu(), mask=batch["target_mask"].cpu(), units=units.cpu())
    return scorer.compute().spike_weighted


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    torch.manual_seed(cfg.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = instantiate(cfg.dataset, root=cfg.data_root)
    model: NeuroHorizonModel = instantiate(cfg.model, _convert_="all")
    model.init_vocabs(dataset)
    model.fit_units(dataset, dataset.get_sampling_intervals("train"))
    model.to(device)
    train_loader, valid_loader = (make_loader(cfg, model, split) for split in ("train", "valid"))

    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    best = -np.inf
    for epoch in range(cfg.epochs):
        model.train()
        losses = []
        for batch in train_loader:
            loss = model.training_loss(to_device(batch, device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            optimizer.step()
            losses.append(loss.item())
        bits = score(model, valid_loader, device)
        log.info(f"epoch {epoch}: train loss {np.mean(losses):.4f}, validation {bits:.3f} bits/spike")
        if bits > best:
            best = bits
            model.save_pretrained(cfg.out)  # NeuroHorizonModel.load_pretrained(cfg.out)
    log.info(f"Best validation {best:.3f} bits/spike, model in {cfg.out}")


if __name__ == "__main__":
    main()
