"""Masked pretraining of a NeuroBridgeModel."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L

from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.engine.factor_start import start_from_factor_analysis
from neurobridge_tb.engine.masked_training import train_masked
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.warm_start import warm_start


def pretrain(config: PretrainConfig | None = None, /, **settings: Any) -> Path:
    """Run masked pretraining, or resume it; returns the run folder.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`PretrainConfig`.
        **settings: Settings by name, e.g. ``dataset="binned", root="processed", max_epochs=50``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(PretrainConfig, config, settings)
    run, began = RunFolder(config), time.monotonic()
    L.seed_everything(config.seed, verbose=False)
    dataset = open_dataset(config.dataset)
    model = NeuroBridgeModel(**asdict(config.model))
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    if config.factor_start and not run.last_checkpoint.exists():
        errors = start_from_factor_analysis(model, dataset, train, seed=config.seed)
        write_json(run.path / "factors.json", errors)
    if config.warm_start:
        write_json(run.path / "warm_start.json", asdict(warm_start(model, config.warm_start)))
    return train_masked(config, run, dataset, model, began=began)
