"""Peak memory and time of jobs on simulated files of real sizes, each in a process of its own. Run with --help."""

import os
import resource
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click
import h5py
import numpy as np

TRIALS, TEST, REPEATS, BINS, CHANNELS = 22_248, 100, 30, 30, 1024  # TVSD's trials in bins of 10 ms
UNITS, COUNT_BINS = 2_000, 36_000  # half an hour of 2,000 units in bins of 50 ms
RECORDINGS = 500
DIM = 64  # of the image embeddings


def make_trials(folder: Path, trials: int = TRIALS) -> None:
    """A recording of TVSD's trials, embeddings and pictures of its images, and an aligned model."""
    from neurobridge_tb import ImageAligner, NeuroBridgeModel
    from neurobridge_tb._upstream import Interval
    from neurobridge_tb.alignment.cache import EmbeddingCache
    from neurobridge_tb.datasets import Tvsd, build_recording, save_recording
    from neurobridge_tb.files import write_json
    from neurobridge_tb.simulation import write_procedural_images

    rng = np.random.default_rng(0)
    train = [f"train/{k // 12:04d}/{k:05d}.png" for k in range(trials)]
    test = [f"test/{k:04d}/{k:05d}.png" for k in range(TEST)]
    ids = [*train, *test]
    codes = rng.normal(size=(len(ids), DIM)).astype(np.float32)
    EmbeddingCache(ids, codes, encoder="random", preprocessing_hash="none").save(folder / "embeddings.h5")
    shown = np.array([*range(trials), *np.tile(np.arange(trials, len(ids)), REPEATS)])
    starts = np.arange(len(shown)) * 0.3
    valid = round(0.95 * trials)
    cuts = {"train": slice(0, valid), "valid": slice(valid, trials), "test": slice(trials, None)}
    data = build_recording(
        brainset_id="tvsd",
        session_id="large_trials",
        subject_id="virtual",
        units={"id": ["u0"], "area": ["V1"]},
        mua=(rng.normal(size=(len(shown) * BINS, 1)).astype(np.float32), 0.01),
        splits={name: (starts[some], starts[some] + 0.3) for name, some in cuts.items()},
        simulated=True,
    )
    data.presentations = Interval(
        start=starts, end=starts + 0.2, image_id=np.array(ids)[shown],
        repeat=np.concatenate([np.zeros(trials, int), np.repeat(np.arange(REPEATS), TEST)]), timekeys=["start", "end"],
    )  # fmt: skip
    path = folder / "processed" / "tvsd" / "large_trials.h5"
    save_recording(data, path)
    weights = (rng.normal(size=(DIM, CHANNELS)) / DIM**0.5).astype(np.float32)
    profile = np.exp(-((np.arange(BINS) - 18) ** 2) / 40).astype(np.float32)
    with h5py.File(path, "r+") as file:  # as many channels as there are, written some trials at a time
        for name, values in (("id", [f"u{k:04d}" for k in range(CHANNELS)]), ("area", ["V1"] * 512 + ["IT"] * 512)):
            del file["units"][name]
            file["units"].create_dataset(name, data=np.array(values, dtype="S"))
        del file["mua/value"]
        stored = file["mua"].create_dataset("value", (len(shown) * BINS, CHANNELS), np.float32, chunks=(300, CHANNELS))
        for k in range(0, len(shown), 500):
            drive = codes[shown[k : k + 500]] @ weights
            block = drive[:, None] * profile[:, None] + rng.normal(size=(len(drive), BINS, CHANNELS)).astype(np.float32)
            stored[k * BINS : (k + len(drive)) * BINS] = block.reshape(-1, CHANNELS)
    drawn, _ = write_procedural_images(folder / "drawn", n_concepts=4, images_per_concept=4, n_test=2, size=64, seed=0)
    for k, image_id in enumerate(ids):  # some pictures under many names
        link = folder / "images" / image_id
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "drawn" / drawn[k % len(drawn)], link)
    encoder = NeuroBridgeModel(modality="mua", sequence_length=0.3, latent_step=0.05, dim=32, depth=1, dim_head=16)
    dataset = Tvsd(root=folder / "processed", variant="trials")
    encoder.init_vocabs(dataset)
    encoder.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"), max_windows=200)
    model = ImageAligner(
        encoder=encoder.config, image_encoder="random", preprocessing_hash="none", dim_embedding=DIM, dim_hidden=64
    )
    model.set_encoder(encoder)
    model.save_pretrained(folder / "aligned" / "model")
    (folder / "aligned" / "config.yaml").write_text("train_share: 1.0\n")
    write_json(folder / "aligned" / "metrics.json", {})


def make_raw_trials(folder: Path, trials: int) -> None:
    """Raw files of TVSD, with so many presentations of 2.5 MB in the trial file."""
    from tvsd_pipeline import layouts, main_files, trials_file

    monkey = folder / "raw" / "tvsd" / "monkeyF"
    main_files(monkey)
    trials_file(monkey / "THINGS_MUA_trials.mat", trials, layouts(trials)["chunks (1, 16, 1024)"])


def prepare_trials(folder: Path) -> None:
    from tvsd_pipeline import load_pipeline

    pipeline, _ = load_pipeline(folder, "trials")
    pipeline.process(("F", "trials"))


def make_counts(folder: Path) -> None:
    """Half an hour of 2,000 units, and a model of them."""
    from neurobridge_tb import NeuroBridgeModel
    from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording

    rng = np.random.default_rng(0)
    signals = np.sin(np.arange(COUNT_BINS)[:, None] * np.array([0.05, 0.11, 0.23]))
    counts = np.empty((COUNT_BINS, UNITS), dtype=np.uint8)
    weights = rng.normal(0, 0.6, (3, UNITS))
    for k in range(0, COUNT_BINS, 4000):
        counts[k : k + 4000] = rng.poisson(0.2 * np.exp(signals[k : k + 4000] @ weights))
    edges = np.array([0.7, 0.8, 1.0]) * COUNT_BINS * 0.05
    data = build_recording(
        brainset_id="large", session_id="counts", subject_id="virtual",
        units={"id": [f"u{k:04d}" for k in range(UNITS)]}, counts=(counts, 0.05),
        splits={"train": ([0.0], [edges[0]]), "valid": ([edges[0]], [edges[1]]), "test": ([edges[1]], [edges[2]])},
        simulated=True,
    )  # fmt: skip
    save_recording(data, folder / "counts" / "counts.h5")
    model = NeuroBridgeModel(
        modality="spike_counts", sequence_length=1.0, latent_step=0.25, dim=32, depth=1, dim_head=16
    )
    dataset = BinnedRecordings(root=folder / "counts")
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"), max_windows=200)
    model.save_pretrained(folder / "counts_model")


def make_recordings(folder: Path) -> None:
    """500 recordings of 100 units, ten minutes each."""
    from neurobridge_tb.datasets import build_recording, save_recording

    rng = np.random.default_rng(0)
    for k in range(RECORDINGS):
        data = build_recording(
            brainset_id="many", session_id=f"s{k:03d}", subject_id="virtual",
            units={"id": [f"s{k:03d}/u{u:03d}" for u in range(100)]},
            counts=(rng.poisson(0.3, (12_000, 100)).astype(np.uint8), 0.05),
            splits={"train": ([0.0], [420.0]), "valid": ([420.0], [480.0]), "test": ([480.0], [600.0])}, simulated=True,
        )  # fmt: skip
        save_recording(data, folder / "many" / f"s{k:03d}.h5")


def sample_recordings(folder: Path) -> None:
    """Open and validate 500 recordings, and draw 2,000 windows from them."""
    from neurobridge_tb import NeuroBridgeModel
    from neurobridge_tb.data.windows import window_loader
    from neurobridge_tb.engine.config import compose_config, open_dataset

    config = compose_config("pretrain", ["dataset=binned", f"dataset.root={folder}/many", "model=tiny"])
    dataset = open_dataset(config.dataset)  # refuses what `validate` calls a fault
    model = NeuroBridgeModel(**vars(config.model))
    model.init_vocabs(dataset)
    loader = window_loader(
        dataset, model.tokenize, dataset.get_sampling_intervals("train"), windows="continuous", window_length=1.0,
        batch_size=50, shuffle=True,
    )  # fmt: skip
    for _, _ in zip(range(40), loader, strict=False):
        pass


def job(name: str, folder: Path, *arguments: str) -> None:
    from neurobridge_tb.engine.config import compose_config
    from neurobridge_tb.estimators.mlp import fit_mlp
    from neurobridge_tb.scoring import retrieval_tables

    # The MLP's memory does not depend on how long it is trained.
    retrieval_tables.fit_mlp = partial(fit_mlp, max_epochs=2)  # type: ignore[attr-defined]
    config = compose_config(name, [*arguments, f"run_dir={folder}/runs/{name}", "device=cpu"])
    getattr(__import__(f"neurobridge_tb.jobs.{name}", fromlist=[name]), name)(config)


SHOWN = ["dataset=tvsd_trials", "dataset.root={f}/processed", "embeddings={f}/embeddings.h5", "aligned={f}/aligned"]
CASES = {
    "evaluate": (make_trials, lambda f: job("evaluate", f, *_in(f, SHOWN), "permutations=1000")),
    "reconstruct": (
        make_trials,
        lambda f: job("reconstruct", f, *_in(f, SHOWN), f"images={f}/images", "backends=[nearest, ridge_pixels]"),
    ),
    "score": (
        make_counts,
        lambda f: job("score", f, f"dataset.root={f}/counts", f"pretrained={f}/counts_model", "tasks=[co_smoothing]"),
    ),
    "500 recordings": (make_recordings, sample_recordings),
    "prepare": (make_raw_trials, prepare_trials),
}
_OF_TRIALS = (make_trials, make_raw_trials)


def _in(folder: Path, arguments: list[str]) -> list[str]:
    return [argument.format(f=folder) for argument in arguments]


@click.command(context_settings={"show_default": True})
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True, default=list(CASES)[:-1])
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where files of 4 GB can be made.")
@click.option("--trials", default=TRIALS, help="Trials of the first two and the last; fewer show how memory grows.")
@click.option("--child", hidden=True)
def main(cases: tuple[str, ...], folder: Path, trials: int, child: str | None) -> None:
    """Print seconds and peak memory of each case; files are made once in --folder.

    `prepare` reads a trial file of TVSD, which has 62 GB with all its trials: it is done where it is asked for.
    """
    if child:
        CASES[child][1](folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # KB on Linux
        print(f"PEAK {peak:.2f}")
        return
    print("| case | seconds | peak memory, GB |\n| --- | --- | --- |")
    for case in cases:
        make = CASES[case][0]
        size = [trials] if make in _OF_TRIALS else []
        place = folder / "_".join(map(str, [make.__name__, *size]))
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            make(place, *size)
            (place / "done").touch()
        began = time.monotonic()
        command = [sys.executable, __file__, "--folder", str(place), "--child", case]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise click.ClickException(result.stderr[-3000:])
        peak = result.stdout.rpartition("PEAK ")[2].strip()
        name = ", ".join([case, *(f"{n:,} trials" for n in size)])
        print(f"| {name} | {time.monotonic() - began:.0f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
