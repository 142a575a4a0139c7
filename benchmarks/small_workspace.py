"""A workspace of small simulated recordings and images, on which every training job runs in seconds."""

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

BIN, SECONDS, UNITS = 0.05, 100.0, 16
_TIMES = ("seconds", "command", "dir", "peak_memory_mb")  # what differs between equal runs

# Settings of each job, in which {w} is the workspace; {b} the batch size, of each process.
JOBS: dict[str, list[str]] = {
    "pretrain": ["dataset=binned", "dataset.root={w}/binned/first", "model=tiny", "trainer.max_epochs=4"]
    + ["ema=0.9"],
    "adapt": ["dataset=binned", "dataset.root={w}/binned/second", "pretrained={w}/model", "trainer.max_epochs=4"],
    "finetune": ["dataset.root={w}/binned/first", "windows=trial", "pretrained={w}/model", "target=hand.velocity"]
    + ["steps=40", "history=2", "unit_dropout=0", "rows=[pretrained, scratch]"],
    "forecast": ["dataset.root={w}/binned/first", "forecaster=tiny", "model.bin_size=0.05", "model.history=0.5"]
    + ["model.horizon=0.5", "unit_dropout=0", "trainer.max_epochs=3"],
    "align": ["dataset.root={w}/shown", "pretrained={w}/shown_model", "embeddings={w}/embeddings.h5"]
    + ["stage1.epochs=3", "stage2.epochs=3", "stage2.free_layers=1", "stage2.replay_batch={b}", "readout.dim_hidden=32"]
    + ["readout.dropout=0", "augment.unit_dropout=0"],
    "train-decoder": ["images={w}/images", "embeddings={w}/features.h5", "steps=12", "batch_size=4"],
    "embed": ["images={w}/many_images", "image_size=32"],
}  # fmt: skip


def settings(job: str, workspace: Path, run: Path, *, batch_size: int = 16) -> list[str]:
    """NAME=VALUE of a job, with its folder or file."""
    chosen = [text.format(w=workspace, b=batch_size) for text in JOBS[job]]
    if job == "embed":
        return [*chosen, f"out={run}/embeddings.h5"]
    trained = [] if job == "train-decoder" else [f"loader.batch_size={batch_size}", "trainer.enable_progress_bar=false"]
    return [*chosen, *trained, f"run_dir={run}", "device=cpu"]


def make_workspace(folder: Path) -> None:
    """Write recordings, images, their embeddings, and pretrained models."""
    from neurobridge_tb.engine.config import compose_config
    from neurobridge_tb.jobs.embed import embed

    make_shown(folder)
    for k in range(12):  # as many as are embedded in three parts
        shutil.copytree(folder / "images", folder / "many_images" / str(k), copy_function=os.link)
    for seed, name in enumerate(("first", "second")):
        _binned(folder / "binned" / name / f"{name}.h5", seed)
    _pretrain(folder, "binned", "binned/first", "model")
    embed(
        compose_config("embed", [f"images={folder}/images", f"out={folder}/features.h5", "image_size=32", "device=cpu"])
    )


def _pretrain(folder: Path, dataset: str, root: str, model: str) -> None:
    from neurobridge_tb.engine.config import compose_config
    from neurobridge_tb.jobs.pretrain import pretrain

    data = [f"dataset={dataset}", f"dataset.root={folder}/{root}", f"run_dir={folder}/runs/{model}"]
    short = ["trainer.max_epochs=2", "trainer.enable_progress_bar=false", "device=cpu", "model=tiny"]
    (pretrain(compose_config("pretrain", [*data, *short, "loader.batch_size=16"])) / "model").rename(folder / model)


def _binned(path: Path, seed: int) -> None:
    """Counts of units that share three slow signals, in trials, with a hand that follows two of them."""
    from neurobridge_tb.datasets import build_recording, save_recording

    rng, n = np.random.default_rng(seed), round(SECONDS / BIN)
    time = np.arange(n)[:, None] * BIN
    signals = np.sin(2 * np.pi * time / np.array([0.9, 1.7, 3.1]) + rng.uniform(0, 6, 3))
    rates = np.exp(signals @ rng.normal(0, 0.8, (3, UNITS)) + rng.uniform(-0.5, 0.8, UNITS))
    starts = np.arange(0.0, SECONDS, 1.0)
    splits = {"train": slice(0, 70), "valid": slice(70, 80), "test": slice(80, 100)}
    data = build_recording(
        brainset_id="small",
        session_id=path.stem,
        subject_id="virtual",
        units={"id": [f"{path.stem}/{i:02d}" for i in range(UNITS)], "area": ["A", "B"] * (UNITS // 2)},
        counts=(rng.poisson(rates).astype(np.uint8), BIN),
        behavior={"hand.velocity": (time[:, 0] + BIN / 2, signals[:, :2])},
        splits={name: (starts[some], starts[some] + 1.0) for name, some in splits.items()},
        simulated=True,
    )
    save_recording(data, path)


def make_shown(folder: Path) -> None:
    """Write a recording of drawn images (one value a channel and presentation, linear in random embeddings), these, and
    a pretrained model."""
    from neurobridge_tb._upstream import Interval
    from neurobridge_tb.alignment.cache import EmbeddingCache
    from neurobridge_tb.datasets import build_recording, save_recording
    from neurobridge_tb.simulation import write_procedural_images

    train, test = write_procedural_images(
        folder / "images", n_concepts=12, images_per_concept=8, n_test=12, size=64, seed=0
    )
    ids, rng = [*train, *test], np.random.default_rng(0)
    cache = EmbeddingCache(
        ids, rng.normal(size=(len(ids), 6)).astype(np.float32), encoder="random", preprocessing_hash="none"
    )
    cache.save(folder / "embeddings.h5")
    shown = [*train, *test, *test]
    drive = cache.lookup(shown).numpy() @ rng.normal(size=(6, UNITS)) * 0.4
    starts = np.arange(len(shown)) * 0.4
    splits = {"train": slice(0, 80), "valid": slice(80, 96), "test": slice(96, len(shown))}
    data = build_recording(
        brainset_id="tvsd",
        session_id="tiny_norm",
        subject_id="virtual",
        units={"id": [f"u{i}" for i in range(UNITS)], "area": ["V1", "IT"] * (UNITS // 2)},
        mua=((drive + rng.normal(size=drive.shape)).astype(np.float32), 0.4),
        splits={name: (starts[some], starts[some] + 0.4) for name, some in splits.items()},
        simulated=True,
    )
    data.presentations = Interval(
        start=starts, end=starts + 0.2, image_id=np.array(shown),
        repeat=np.repeat([0, 0, 1], [len(train), 12, 12]), timekeys=["start", "end"],
    )  # fmt: skip
    save_recording(data, folder / "shown" / "tvsd" / "tiny_norm.h5")
    _pretrain(folder, "tvsd", "shown", "shown_model")


def figures(run: Path) -> dict[str, float]:
    """Every number that a run left in its tables and curves, and the means of the arrays that it stored."""
    found = {}
    for path in sorted(path for name in ("metrics.json", "retrieval.json") for path in run.rglob(name)):
        found |= dict(_numbers(json.loads(path.read_text()), str(path.relative_to(run))))
    for path in sorted(run.rglob("metrics.csv")):
        if "logs" not in path.parts:  # those of one start
            found |= dict(_numbers(pd.read_csv(path).to_dict(), str(path.relative_to(run))))
    for path in sorted(path for name in ("*.h5", "model.safetensors") for path in run.rglob(name)):
        found |= {f"{path.relative_to(run)}: {name}": mean for name, mean in _means(path)}
    return found


def _numbers(content: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in _TIMES:
                yield from _numbers(value, f"{name}.{key}")
    elif isinstance(content, list):
        for k, value in enumerate(content):
            yield from _numbers(value, f"{name}[{k}]")
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, float(content)


def _means(path: Path) -> Iterator[tuple[str, float]]:
    """The name of each array in a file and the mean of its absolute values, or a checksum where they are no numbers."""
    arrays: dict[str, np.ndarray] = {}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            file.visititems(lambda name, it: arrays.update({name: it[()]}) if isinstance(it, h5py.Dataset) else None)
    else:
        arrays = load_file(path)
    for name, values in arrays.items():
        if values.dtype.kind in "biuf":
            finite = np.abs(values.astype(np.float64)[np.isfinite(values)])
            yield name, float(finite.mean()) if finite.size else 0.0
        else:
            yield name, float(zlib.crc32(repr(values.tolist()).encode()))


def largest_difference(one: dict[str, float], other: dict[str, float]) -> float:
    """Between figures of the same names, NaN being equal to NaN; infinite where names differ."""
    if one.keys() != other.keys():
        return math.inf
    return max(
        (abs(x - other[name]) for name, x in one.items() if not (math.isnan(x) and math.isnan(other[name]))), default=0
    )
