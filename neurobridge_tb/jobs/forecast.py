"""Training of a NeuroHorizonModel, and its scores on the test split."""

import copy
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.datasets.reference_features import recording_features, reference_window
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import files_of, open_dataset, settle
from neurobridge_tb.engine.epoch_seeds import EpochSeeds
from neurobridge_tb.engine.forecast_fits import fit_rate_filter, fit_residual_gain
from neurobridge_tb.engine.modules.forecasting import ForecastModule
from neurobridge_tb.engine.moving_references import MovingReferences
from neurobridge_tb.engine.references import Reference
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.sizes import settle_size
from neurobridge_tb.engine.strangers import SimulatedStrangers
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.progress import say
from neurobridge_tb.report.drawing.figure_style import save_figure
from neurobridge_tb.report.drawing.forecast_figures import decay_curves, rasters, unit_scatter
from neurobridge_tb.scoring.forecasts import DRIFTING, check_scoring, fit_baselines, forecast_scores, rolled_out_loss
from neurobridge_tb.scoring.leave_one_out import leave_one_out_rows


def forecast(config: ForecastConfig | None = None, /, **settings: Any) -> Path:
    """Train a forecaster, or resume its training, and score it; returns the run folder.

    With ``forecaster="auto"``, the default, the network's size follows from the number of training windows.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`ForecastConfig`.
        **settings: Settings by name, e.g. ``root="processed", bin_size=0.05``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(ForecastConfig, config, settings)
    if config.unseen == "each":
        return _forecast_each(config)
    began = time.monotonic()
    trained, unseen = _open(config)
    config = settle_size(config, trained, group="forecaster", seconds=config.model.history + config.model.horizon)
    run = RunFolder(config, files_of(trained))
    L.seed_everything(config.seed, verbose=False)
    model = NeuroHorizonModel(**asdict(config.model))
    model.init_vocabs(trained)
    intervals = trained.get_sampling_intervals("train")
    known = _references(trained, config) if model.identity is not None else {}
    features = {r: reference.features for r, reference in known.items()}
    model.fit_units(trained, intervals, features or None, seconds=config.reference_seconds)
    check_scoring(model, [trained] if unseen is None else [trained, unseen], config)
    strange = {} if unseen is None else _references(unseen, config)
    for recording_id, reference in strange.items():
        ForecastLoaders(config, unseen, model).of_reference({recording_id: reference.window})  # or it is told now
    loaders = ForecastLoaders(config, trained, model)
    train, valid = loaders.of_split("train"), loaders.of_split("valid")
    strangers = None
    if known and config.strangers:
        sampler: Any = train.sampler
        strangers = SimulatedStrangers(model, trained, sampler.sampler, known, config.seed)
    say("Fitting the baselines and the rates' filter")
    baselines = fit_baselines(model, trained, config, loaders)
    processes = run.processes(config.trainer)
    fit_rate_filter(model, train, valid, baselines[DRIFTING], strangers, processes=processes)
    if strangers is not None:
        strangers.fit_modulation(loaders, valid)
    start = copy.deepcopy(model)

    module = ForecastModule(
        model, **asdict(config.optimizer), unit_dropout=config.unit_dropout, rate_jitter=config.rate_jitter
    )
    callbacks: list[L.Callback] = [EpochSeeds(config.seed, train, {"valid": valid})]
    callbacks += [] if strangers is None else [strangers]
    trainer = run.trainer(config.trainer, callbacks, monitor="val/loss", some_unused=True)
    run.fit(trainer, module, train, valid)
    if not trainer.is_global_zero:
        return run.path  # the first process alone goes on

    say("Scoring beside the baselines")
    best = NeuroHorizonModel.load_pretrained(run.best_checkpoint).eval()
    fit_residual_gain(place(best, config), valid)
    losses = {
        name: rolled_out_loss(place(its.eval(), config), valid) for name, its in (("trained", best), ("start", start))
    }
    if losses["start"] <= losses["trained"]:
        best = start
    best.save_pretrained(run.model)
    rows, arrays = forecast_scores(best, trained, config, loaders, group="trained", baselines=baselines)
    _write_figures(arrays, run.path, "trained")
    if unseen is not None and best.identity is not None:
        loaders = ForecastLoaders(config, unseen, best.cpu())
        moving = MovingReferences(best, unseen, loaders)
        for recording_id, reference in strange.items():
            if config.strangers:
                moving.introduce(recording_id, reference, seconds=config.reference_seconds)
            else:
                ids = unseen.get_recording(recording_id).units.id.astype(str).tolist()
                best.add_units(ids, reference.features, seconds=reference.seconds)
        place(best, config)
        follow = moving.follow if config.strangers else iter
        more, arrays = forecast_scores(
            best, unseen, config, loaders, group="unseen", baselines=baselines, follow=follow
        )
        rows += more
        _write_figures(arrays, run.path, "unseen")
    run.note(
        "metrics.json",
        {
            "dataset": ", ".join(trained.recording_ids),
            "unseen": list(config.unseen),
            "simulated": is_simulated(trained),
            "command": config.command,
            "validation loss": losses,
            "residual gain": [] if best is start else best.residual_gain.tolist(),
            "rows": rows,
            "seconds": time.monotonic() - began,
        },
    )
    return run.path


def _forecast_each(config: ForecastConfig) -> Path:
    """Every recording is the unseen one once: a run each, in folders of its own, and one table."""
    run, began = RunFolder(config), time.monotonic()
    dataset = open_dataset(config.dataset)
    if len(dataset.recording_ids) < 2 or config.model.unit_identity != "features":
        raise InputError(
            expected="unseen=each with at least two recordings and model.unit_identity=features",
            found=f"{len(dataset.recording_ids)} recordings; {config.model.unit_identity}",
            fix="Add recordings; units that are not trained are identified by their features.",
        )
    unseen = {}
    for recording_id in dataset.recording_ids:
        path = forecast(replace(config, unseen=[recording_id], run_dir=str(run.path / recording_id)))
        with np.load(path / "forecast_unseen.npz", allow_pickle=False) as arrays:
            unseen[recording_id] = dict(arrays)
    run.note(
        "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "unseen": "each",
            "simulated": is_simulated(dataset),
            "command": config.command,
            "rows": leave_one_out_rows(unseen),
            "seconds": time.monotonic() - began,
        },
    )
    return run.path


def _write_figures(arrays: dict[str, np.ndarray], folder: Path, group: str) -> None:
    """``forecast_<group>.npz`` and its figures."""
    with write_aside(folder / f"forecast_{group}.npz") as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    for name, draw in (("rasters", rasters), ("decay", decay_curves), ("units", unit_scatter)):
        save_figure(draw(arrays), folder / f"forecast_{group}_{name}")


def _open(config: ForecastConfig) -> tuple[Dataset, Dataset | None]:
    """The recordings to train on, and those left out of it."""
    dataset = open_dataset(config.dataset)
    if not config.unseen:
        return dataset, None
    missing = sorted(set(config.unseen) - set(dataset.recording_ids))
    rest = [r for r in dataset.recording_ids if r not in config.unseen]
    if missing or not rest or config.model.unit_identity != "features":
        raise InputError(
            expected="unseen=[recordings of the dataset], some others to train on, and model.unit_identity=features",
            found=f"not in the dataset: {missing}; to train on: {rest}; {config.model.unit_identity}",
            fix="Correct unseen or dataset.recording_ids; units that are not trained are identified by their features.",
        )

    def only(recordings: list[str]) -> Dataset:
        return open_dataset(replace(config.dataset, recording_ids=recordings))

    return only(rest), only(list(config.unseen))


def _references(dataset: Dataset, config: ForecastConfig) -> dict[str, Reference]:
    """Each recording's reference, from the start of its training intervals."""
    found = {}
    for recording_id, intervals in dataset.get_sampling_intervals("train").items():
        features = recording_features(dataset.get_recording(recording_id), intervals, seconds=config.reference_seconds)
        found[recording_id] = Reference(features, reference_window(intervals, config.reference_seconds))
    return found
