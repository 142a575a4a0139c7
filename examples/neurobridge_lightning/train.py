"""A behaviour decoded by NeuroBridgeModel in Lightning, as POYO's training does it.

python train.py data_root=processed/my_lab behavior=hand.velocity
"""

from collections.abc import Callable

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader
from torch_brain.batching import collate, pad8, track_mask8
from torch_brain.data import Data
from torch_brain.samplers import RandomFixedWindowSampler, SequentialFixedWindowSampler
from torch_brain.transforms import Compose, UnitDropout

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.vision_imports import prepare_torchvision

prepare_torchvision()  # Lightning imports torchvision, whose build for GPUs needs help beside a torch without

import lightning as L  # noqa: E402
from torchmetrics.regression import R2Score  # noqa: E402


class Decoding(L.LightningModule):
    """Mean squared error of a standardised behaviour; R2 in validation."""

    def __init__(self, cfg: dict, model: NeuroBridgeModel):
        super().__init__()
        self.save_hyperparameters(cfg)  # with it, NeuroBridgeModel.load_pretrained reads the checkpoint
        self.model, self.lr = model, cfg["lr"]
        self.r2 = R2Score(multioutput="uniform_average")

    def predict(self, batch: tuple[dict, dict]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = batch
        prediction = self.model(**x, output_timestamps=y["timestamps"])
        return prediction[y["mask"]], y["values"][y["mask"]]

    def training_step(self, batch: tuple[dict, dict], _: int) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(*self.predict(batch))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[dict, dict], _: int) -> None:
        self.r2(*self.predict(batch))
        self.log("val/r2", self.r2, on_epoch=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.lr)


class Pairs:
    """A transform: the model's inputs, and the behaviour of the window with its times."""

    def __init__(self, model: NeuroBridgeModel, behavior: str, mean: np.ndarray, deviation: np.ndarray):
        self.model, self.behavior, self.mean, self.deviation = model, behavior, mean, deviation

    def __call__(self, window: Data) -> tuple[dict, dict]:
        series, _, column = self.behavior.rpartition(".")
        times = window.get_nested_attribute(f"{series}.timestamps").astype(np.float32)
        values = (window.get_nested_attribute(f"{series}.{column}") - self.mean) / self.deviation
        return self.model.tokenize(window), {
            "timestamps": pad8(times),
            "values": pad8(values.astype(np.float32)),
            "mask": track_mask8(times),
        }


def make_loader(cfg: DictConfig, model: NeuroBridgeModel, transform: Callable, split: str) -> DataLoader:
    dataset = instantiate(cfg.dataset, root=cfg.data_root, transform=transform)
    intervals, length = dataset.get_sampling_intervals(split), model.sequence_length
    sampler = (
        RandomFixedWindowSampler(
            sampling_intervals=intervals, window_length=length, generator=torch.Generator().manual_seed(cfg.seed)
        )
        if split == "train"
        else SequentialFixedWindowSampler(sampling_intervals=intervals, window_length=length)
    )
    return DataLoader(
        dataset, sampler=sampler, batch_size=cfg.batch_size, collate_fn=collate, num_workers=cfg.num_workers
    )


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    L.seed_everything(cfg.seed)
    dataset = instantiate(cfg.dataset, root=cfg.data_root)
    training = [
        dataset.get_recording(recording).select_by_interval(intervals).get_nested_attribute(cfg.behavior)
        for recording, intervals in dataset.get_sampling_intervals("train").items()
    ]
    values = np.concatenate(training)
    model: NeuroBridgeModel = instantiate(cfg.model, dim_out=values.shape[1])
    model.init_vocabs(dataset)
    pairs = Pairs(model, cfg.behavior, values.mean(0), values.std(0))
    train = make_loader(cfg, model, Compose([UnitDropout(**cfg.unit_dropout), pairs]), "train")
    valid = make_loader(cfg, model, pairs, "valid")
    trainer = L.Trainer(**cfg.trainer)
    trainer.fit(Decoding(OmegaConf.to_container(cfg, resolve=True), model), train, valid)


if __name__ == "__main__":
    main()
