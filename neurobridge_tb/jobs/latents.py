"""Latents of whole recordings, for work of one's own."""

from pathlib import Path
from typing import Any

import numpy as np

from neurobridge_tb._upstream import Data
from neurobridge_tb.configs.latents import LatentsConfig
from neurobridge_tb.data.row_features import count_features, latent_features, row_windows
from neurobridge_tb.data.targets import Examples, read_examples, series_spec
from neurobridge_tb.datasets.provenance import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError, require
from neurobridge_tb.files import write_aside, write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.report.latent_figures import save_latent_figures
from neurobridge_tb.scoring.latent_series import columns_at, dissimilarity, latent_series, principal_components


def latents(config: LatentsConfig | None = None, /, **settings: Any) -> Path:
    """Write the latents of each recording, and pictures of them; returns the folder.

    ``<recording>.npz`` (or ``.zarr``) holds ``latents`` (steps, J * D), ``times`` (steps,) in s, and of a table
    ``<table>.<column>`` (steps,). The pictures: principal components of the steps in the order of time, or with
    ``colour`` of the table's rows, coloured by a column; and how dissimilar its conditions are in latents and in spike
    counts.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`LatentsConfig`.
        **settings: Settings by name, e.g. ``root="processed", table="trials"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(LatentsConfig, config, settings)
    dataset = open_dataset(config.dataset)
    if config.file_format not in ("npz", "zarr"):
        raise InputError(expected="file_format=npz or zarr", found=config.file_format, fix="Choose one of them.")
    if config.colour is not None and config.table is None:
        raise InputError(expected="table=…, to which colour belongs", found="none", fix="Name the table, e.g. trials.")
    examples: Examples | None = None
    if config.colour is not None:
        series_spec(dataset, f"{config.table}.{config.colour}")  # refuses what is not there
        examples = read_examples(dataset, f"{config.table}.{config.colour}", align=config.align)
    model = place(NeuroBridgeModel.from_pretrained(config.pretrained).eval(), config)
    run_dir, rows = Path(config.run_dir), []
    for recording_id in dataset.recording_ids:
        recording = dataset.get_recording(recording_id)
        series, times = latent_series(model, recording)
        columns = columns_at(_table(recording, config.table), times) if config.table else {}
        arrays: dict[str, Any] = {"latents": series, "times": times} | {
            f"{config.table}.{k}": v for k, v in columns.items()
        }
        path = run_dir / f"{recording_id}.{config.file_format}"
        _save(path, arrays)
        rows.append({"recording": recording_id, "steps": len(times), "width": series.shape[1], "file": path.name})
        pictures: dict[str, Any] = {"label": config.colour, "colours": None}
        points: Any = series
        if examples is not None:
            its = examples.only(examples.recording == recording_id)
            bounds = row_windows(its, config.window)
            points = latent_features(model, dataset, recording_id, bounds)
            pictures["colours"] = its.label
            if its.are_classes:
                counts = count_features(dataset, recording_id, bounds)
                pictures["dissimilarity"] = {
                    "latents": dissimilarity(points, its.label),
                    "spike counts": dissimilarity(counts, its.label),
                }
        pictures["scores"], pictures["shares"] = principal_components(points)
        save_latent_figures(pictures, run_dir / "figures", recording_id)
    write_json(
        run_dir / "metrics.json",
        {
            "job": "latents",
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "latent step (s)": model.latent_step,
            "rows": rows,
        },
    )
    return run_dir


def to_pynapple(path: str | Path) -> Any:
    """The latents of an ``.npz`` file as a pynapple ``TsdFrame``; pynapple has to be installed."""
    nap = require("pynapple", extra="readers")
    with np.load(path, allow_pickle=False) as file:
        return nap.TsdFrame(t=file["times"], d=file["latents"])


def _table(recording: Data, name: str) -> Any:
    if name not in recording.keys() or not hasattr(getattr(recording, name), "start"):
        tables = [key for key in recording.keys() if hasattr(getattr(recording, key), "start")]
        raise InputError(
            expected=f"a table '{name}' in recording {recording.session.id}",
            found=", ".join(key for key in tables if not key.endswith("domain")) or "no table",
            fix="Name one of them.",
        )
    return getattr(recording, name)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside:
        if path.suffix == ".npz":
            with aside.open("wb") as file:
                np.savez(file, **arrays)
        else:
            group = require("zarr", extra="readers").open_group(str(aside), mode="w")
            for name, values in arrays.items():
                group[name] = values
