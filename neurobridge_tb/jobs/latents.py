"""Latents of whole recordings, for work of one's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, Dataset
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.latents import LatentsConfig
from neurobridge_tb.data.row_features import count_features, latent_features, row_windows
from neurobridge_tb.data.targets import Examples, read_examples, series_spec
from neurobridge_tb.datasets.provenance import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError, require
from neurobridge_tb.files import write_aside, write_folder, write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.report.drawing.figure_style import save_figure
from neurobridge_tb.report.drawing.filled_figures import filled_raster, unit_map
from neurobridge_tb.report.drawing.latent_figures import dissimilarity_matrices, scatter_maps
from neurobridge_tb.scoring.decoding.latent_series import (
    Dissimilarity,
    agreements,
    columns_at,
    dissimilarity,
    latent_series,
    principal_components,
    umap_embedding,
)
from neurobridge_tb.scoring.masked.filled_in import FilledIn, fill_in

_FEWEST_UNITS = 5  # of an area that has a matrix of its own


def latents(config: LatentsConfig | None = None, /, **settings: Any) -> Path:
    """Write the latents of each recording, and pictures of them; returns the folder.

    ``<recording>.npz`` (or ``.zarr``) holds ``latents`` (steps, J * D), ``times`` (steps,) in s, and of a table
    ``<table>.<column>`` (steps,); ``<recording>_units.csv`` how well each unit is filled in from the others. The
    pictures: principal components (and UMAP) of the steps in the order of time, or with ``colour`` of the table's rows,
    coloured by a column; how dissimilar its conditions are in latents, images, spike counts and each area; the raster
    beside the one that is filled in; and the units and areas, by how well they are.

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
    images = EmbeddingCache.load(config.embeddings) if config.embeddings else None
    if config.umap:
        require("umap", extra="umap")
    model = place(NeuroBridgeModel.from_pretrained(config.pretrained).eval(), config)
    run_dir, rows, notes = Path(config.run_dir), [], []
    for recording_id in dataset.recording_ids:
        say(f"Latents of {recording_id}")
        recording = dataset.get_recording(recording_id)
        series, times = latent_series(model, recording)
        columns = columns_at(_table(recording, config.table), times) if config.table else {}
        arrays: dict[str, Any] = {"latents": series, "times": times} | {
            f"{config.table}.{k}": v for k, v in columns.items()
        }
        path = run_dir / f"{recording_id}.{config.file_format}"
        _save(path, arrays)
        points: NDArray[np.floating] = series
        colours = None
        if examples is not None and (examples.recording == recording_id).any():
            its, bounds = row_windows(dataset, examples.only(examples.recording == recording_id), config.window)
            notes += [f"{recording_id}: left out {line}" for line in its.dropped]
            points, colours = latent_features(model, dataset, recording_id, bounds), its.label
            if its.are_classes:
                matrices = _dissimilarities(model, dataset, recording_id, points, its, bounds, images)
                save_figure(dissimilarity_matrices(matrices), run_dir / "figures" / f"{recording_id}_dissimilarity")
                notes += [f"{recording_id}: {line}" for line in agreements(matrices)]
        say("Principal components" + (" and UMAP" if config.umap else ""))
        scores, shares = principal_components(points)
        maps = {f"principal components, {shares[0]:.0%} and {shares[1]:.0%}": scores}
        if config.umap:
            maps["UMAP"] = umap_embedding(points, seed=config.seed)
        figure = scatter_maps(maps, colours, config.colour or "time")
        save_figure(figure, run_dir / "figures" / f"{recording_id}_components")
        say("Filling in each unit from the others")
        found = fill_in(model, dataset, recording_id, seed=config.seed)
        rate = _rates(found)
        _write_units(run_dir / f"{recording_id}_units.csv", recording, found, rate)
        raster = filled_raster(found.recorded, found.filled, found.area, found.metric, found.bin_size)
        save_figure(raster, run_dir / "figures" / f"{recording_id}_filled_in")
        units = unit_map(found.scores, rate, found.area, found.metric)
        save_figure(units, run_dir / "figures" / f"{recording_id}_units")
        rows.append(
            {
                "recording": recording_id,
                "steps": len(times),
                "width": series.shape[1],
                "file": path.name,
                f"filled in, median {found.metric} of units ({found.split})": float(np.nanmedian(found.scores)),
            }
        )
    write_json(
        run_dir / "metrics.json",
        {
            "job": "latents",
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "latent step (s)": model.latent_step,
            "notes": notes,
            "rows": rows,
        },
    )
    return run_dir


def _dissimilarities(
    model: NeuroBridgeModel,
    dataset: Dataset,
    recording_id: str,
    points: NDArray,
    examples: Examples,
    bounds: NDArray,
    images: EmbeddingCache | None,
) -> dict[str, Dissimilarity]:
    """Of the model, the stimulus where embeddings of its images are given, all units, and each area."""
    counts = count_features(dataset, recording_id, bounds)
    areas = model.areas(dataset.get_recording(recording_id))
    features = {"latents": points}
    if images is not None:
        features["stimulus"] = images.lookup(examples.label.tolist()).numpy()
    features["spike counts" if model.predicts_log_rates else "activity"] = counts
    for name in np.unique(areas[areas != ""]):
        if _FEWEST_UNITS <= (areas == name).sum() < len(areas):
            features[str(name)] = counts[:, areas == name]
    return {name: dissimilarity(x, examples.label) for name, x in features.items()}


def _rates(found: FilledIn) -> NDArray[np.float64]:
    """(N,) Hz, or of values the deviation."""
    flat = found.recorded.reshape(-1, len(found.area))
    return np.nanmean(flat, 0) / found.bin_size if found.metric == "bits/spike" else np.nanstd(flat, 0)


def _write_units(path: Path, recording: Data, found: FilledIn, rate: NDArray[np.float64]) -> None:
    table = pd.DataFrame({"id": recording.units.id.astype(str), "area": found.area})
    table["rate (Hz)" if found.metric == "bits/spike" else "deviation"] = rate
    table[found.metric] = found.scores
    with write_aside(path) as aside:
        table.to_csv(aside, index=False)


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
    if path.suffix == ".npz":
        with write_aside(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)
        return
    zarr = require("zarr", extra="readers")
    ours = {name.split("/")[0] for name in arrays} | {"zarr.json", ".zgroup", ".zattrs", ".zmetadata"}
    with write_folder(path, ours, is_ours=lambda folder: True) as aside:
        group = zarr.open_group(str(aside), mode="w")
        for name, values in arrays.items():
            group[name] = values
