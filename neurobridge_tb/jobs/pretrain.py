"""Masked pretraining of a NeuroBridgeModel."""

import time
from dataclasses import asdict
from pathlib import Path

import lightning as L
from omegaconf import DictConfig

from neurobridge_tb.engine.config import open_dataset
from neurobridge_tb.engine.masked_training import train_masked
from neurobridge_tb.engine.principal_start import start_from_principal_components
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.warm_start import warm_start


def pretrain(config: DictConfig) -> Path:
    """Run masked pretraining, or resume it; returns the run folder.

    Args:
        config: ``configs/pretrain.yaml`` with its overrides.
    """
    run, began = RunFolder(config), time.monotonic()
    L.seed_everything(config.seed, verbose=False)
    dataset = open_dataset(config)
    model = NeuroBridgeModel(**config.model)
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    if config.principal_start:
        start_from_principal_components(model, dataset, train, components=config.principal_start, known=set())
    if config.warm_start:
        write_json(run.path / "warm_start.json", asdict(warm_start(model, config.warm_start)))
    return train_masked(config, run, dataset, model, began=began)
