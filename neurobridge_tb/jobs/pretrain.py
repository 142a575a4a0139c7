"""Masked pretraining of a NeuroBridgeModel."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.engine.config import files_of, open_dataset, settle
from neurobridge_tb.engine.masked_training import train_masked
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.sizes import settle_size
from neurobridge_tb.engine.starts.factor_start import errors_of, fit_factors, set_factors
from neurobridge_tb.engine.starts.response_start import fit_rate_response
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.warm_start import warm_start
from neurobridge_tb.progress import say


def pretrain(config: PretrainConfig | None = None, /, **settings: Any) -> Path:
    """Run masked pretraining, or resume it; returns the run folder.

    With ``model="auto"``, the default, the network's size follows from the number of training windows.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`PretrainConfig`.
        **settings: Settings by name, e.g. ``dataset="binned", root="processed", max_epochs=50``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(PretrainConfig, config, settings)
    began = time.monotonic()
    dataset = open_dataset(config.dataset)
    config = settle_size(config, dataset, group="model", seconds=config.model.sequence_length)
    run = RunFolder(config, files_of(dataset))
    L.seed_everything(config.seed, verbose=False)
    resumed = run.resumed is not None
    model = NeuroBridgeModel.load_pretrained(run.start) if resumed else _new_model(config, dataset, run)
    return train_masked(config, run, dataset, model, began=began)


def _new_model(config: PretrainConfig, dataset: Dataset, run: RunFolder) -> NeuroBridgeModel:
    """With units' statistics, and with as many factors as the closed-form start uses, set to it."""
    model = NeuroBridgeModel(**asdict(config.model))
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    say("Reading the units' statistics")
    model.fit_unit_statistics(dataset, train)
    if config.factor_start and model.factors is not None:
        say("Fitting factors in closed form")
        fits = fit_factors(model, dataset, train, most=config.model.num_factors, seed=config.seed)
        used = max((fit.model.loadings.shape[1] for fit in fits), default=0)
        if used == config.model.num_factors:
            say(f"All {used} factors are used; more (model.num_factors) may fill in hidden units better")
        statistics = model.unit_stats.state_dict()
        model = NeuroBridgeModel(**model.config | {"num_factors": max(used, 1)})
        model.init_vocabs(dataset)
        model.unit_stats.load_state_dict(statistics)
        set_factors(model, fits)
        fit_rate_response(model, dataset, train, dataset.get_sampling_intervals("valid"), config)
        run.note("factors.json", errors_of(fits))
    if config.warm_start:
        run.note("warm_start.json", asdict(warm_start(model, config.warm_start)))
    return model
