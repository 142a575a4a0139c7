"""Align single trials of one population to embeddings made of other populations: no image is needed.

Hénaff, Bai et al. (Nat. Commun. 2021): five populations of anaesthetised macaque V1, each shown frames of natural
videos up to 50 times. The responses of the *other* four populations, averaged over trials, z-scored and reduced by PCA
on the training images, are the embedding of an image; a single trial of the population must find it among the images
that were held out. Also an example of an :class:`EmbeddingCache` from an array.

The script first checks that the units of the population were recorded together: on the same repeat their residuals
must be correlated, and must not be once each unit's repeats are shuffled. A unit that was not held on a trial is absent
(NaN) from it.

    python examples/align_henaff_v1.py henaff_v1 --out henaff --population ay3_u002 --seed 0
"""

import argparse
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch_brain.data import Interval

from neurobridge_tb.alignment import EmbeddingCache
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_json
from neurobridge_tb.jobs.align import align
from neurobridge_tb.jobs.evaluate import evaluate
from neurobridge_tb.jobs.pretrain import pretrain

WINDOW = 0.2  # s, in which spikes were counted
PRETRAINING = 3  # epochs
_CATEGORIES, _SCALES = ("natural", "synthetic", "contrast"), ("zoom1x", "zoom2x")


def read(folder: Path) -> dict[str, NDArray]:
    """Counts (repeats, units, images) of each population, NaN where a unit was not held, and ``"ids"`` of the images.

    A natural movie shares its first and last image with its synthetic version, and its last one with its contrast
    version. The copies hold the same numbers; one is kept.
    """
    populations: dict[str, NDArray] = {}
    for path in sorted(folder.glob("*_image_sequences.mat")):
        with h5py.File(path) as file:
            counts = file["naturalStruct/sortedResponses"][()]  # (repeat, unit, frame, movie, category, scale)
        natural, copies = counts[:, :, :, :, 0], [(0, 1), (-1, 1), (-1, 2)]  # frame, category
        for frame, category in copies:
            copy = counts[:, :, frame, :, category]
            if not (np.isnan(copy) | (copy == natural[:, :, frame])).all():
                raise InputError(
                    expected=f"frame {frame} of {_CATEGORIES[category]} movies as in natural ones",
                    found=f"other numbers in {path}",
                    fix="Give the files as published.",
                )
            copy[:] = np.nan
        populations[path.name.removesuffix("_image_sequences.mat")] = counts.reshape(*counts.shape[:2], -1)
    if len(populations) < 2:
        raise InputError(
            expected=f"two or more *_image_sequences.mat in {folder}",
            found=f"{len(populations)}",
            fix="Check the path.",
        )
    names = np.array(
        [
            f"movie{movie:02d}/{_CATEGORIES[category]}_{_SCALES[scale]}_{frame:02d}"
            for frame in range(11)
            for movie in range(10)
            for category in range(3)
            for scale in range(2)
        ]
    )
    shown = np.all([~np.isnan(counts).all((0, 1)) for counts in populations.values()], axis=0)
    return {name: counts[..., shown] for name, counts in populations.items()} | {"ids": names[shown]}


def noise_correlation(counts: NDArray, seed: int | None = None) -> float:
    """Mean correlation of units' residuals around each image's mean; with ``seed``, after shuffling repeats by unit."""
    z = np.nan_to_num(Standardizer.fit(counts)(counts))  # of each unit and image over repeats
    if seed is not None:
        generator = np.random.default_rng(seed)
        z = np.stack([z[generator.permutation(len(z)), unit] for unit in range(z.shape[1])], axis=1)
    correlation = np.corrcoef(z.swapaxes(0, 1).reshape(z.shape[1], -1))
    return float(correlation[np.triu_indices(len(correlation), 1)].mean())


def deal(ids: NDArray, by_movie: bool, seed: int) -> dict[str, NDArray]:
    """Image numbers of each split: 100 test, 44 validation and the other images, or 2, 1 and 7 movies."""
    generator = np.random.default_rng(seed)
    if by_movie:
        movies = np.array([id_.partition("/")[0] for id_ in ids])
        order = generator.permutation(np.unique(movies))
        parts = {"test": order[:2], "valid": order[2:3], "train": order[3:]}
        return {split: np.flatnonzero(np.isin(movies, part)) for split, part in parts.items()}
    order = generator.permutation(len(ids))
    return {"test": order[:100], "valid": order[100:144], "train": order[144:]}


def embed(others: list[NDArray], train: NDArray, dims: int) -> NDArray:
    """Embeddings (images, dims): principal components of the other populations' trial averages, by training images."""
    means = np.concatenate([np.nanmean(np.sqrt(counts), axis=0) for counts in others]).T  # (images, units)
    z = Standardizer.fit(means[train])(means)
    center = z[train].mean(0)
    _, _, directions = np.linalg.svd(z[train] - center, full_matrices=False)
    return (z - center) @ directions[:dims].T


def save_trials(
    counts: NDArray, ids: NDArray, splits: dict[str, NDArray], name: str, out: Path, most_repeats: int
) -> None:
    """A recording of single trials, laid end to end, split by split; its values are square roots of counts."""
    trials, domains, start = [], {}, 0
    for split, images in splits.items():
        held = (~np.isnan(counts[:, :, images])).mean(1) >= 0.5  # (repeats, images): at least half of the units
        n_repeats = min(most_repeats, int(held.sum(0).min()))
        rows = [(r, image) for k, image in enumerate(images) for r in np.flatnonzero(held[:, k])[:n_repeats]]
        trials += [(r, image, i % n_repeats) for i, (r, image) in enumerate(rows)]
        edges = WINDOW * np.arange(start, start + len(rows) + 1)
        domains[split], start = (edges[:-1], edges[1:]), start + len(rows)
    recording = build_recording(
        brainset_id="henaff_v1",
        session_id=name,
        subject_id=name.partition("_")[0],
        units={"id": [f"{name}/u{n:02d}" for n in range(counts.shape[1])], "area": ["V1"] * counts.shape[1]},
        mua=(np.sqrt([counts[r, :, image] for r, image, _ in trials]).astype(np.float32), WINDOW),
        splits=domains,
    )
    starts = WINDOW * np.arange(len(trials))
    recording.presentations = Interval(
        start=starts,
        end=starts + WINDOW,
        image_id=np.array([ids[image] for _, image, _ in trials]),
        repeat=np.array([number for *_, number in trials]),
        timekeys=["start", "end"],
    )
    save_recording(recording, out)


def run(
    folder: Path,
    out: Path,
    population: str = "ay3_u002",
    *,
    seed: int = 0,
    dims: int = 20,
    by_movie: bool = False,
    repeats: int = 50,
    epochs: int = 15,
) -> dict[str, Any]:
    """Everything for one population, as the arguments of the script say; returns what ``evaluate`` writes."""
    populations = read(folder)
    ids = populations.pop("ids")
    if population not in populations:
        raise InputError(expected=f"one of {', '.join(populations)}", found=population, fix="Correct --population.")
    counts = populations.pop(population)
    together, shuffled = noise_correlation(counts), noise_correlation(counts, seed=seed)
    print(f"noise correlation {together:.3f}; with each unit's repeats shuffled {shuffled:.3f}")
    if together < 10 * abs(shuffled):
        raise InputError(
            expected="a population whose units were recorded together",
            found=f"noise correlation {together:.3f}, {shuffled:.3f} for shuffled repeats",
            fix="Take another population: its single trials would be made up of several.",
        )
    splits = deal(ids, by_movie, seed)
    EmbeddingCache(
        ids.tolist(), embed(list(populations.values()), splits["train"], dims), encoder=f"V1 without {population}"
    ).save(out / "embeddings.h5")
    save_trials(counts, ids, splits, population, out / "processed" / f"{population}.h5", repeats)

    data = ["dataset=binned", f"dataset.root={out}/processed", f"seed={seed}"]
    training = ["windows=trial", "masking.temporal=0", "trainer.enable_progress_bar=false"]
    model = ["model=tiny", "model.modality=mua", f"model.sequence_length={WINDOW}", f"model.latent_step={WINDOW}"]
    pretrain(
        compose_config(
            "pretrain", [*data, *training, *model, f"run_dir={out}/pretrain", f"trainer.max_epochs={PRETRAINING}"]
        )
    )
    paths = [f"embeddings={out}/embeddings.h5"]
    align(
        compose_config(
            "align",
            [*data, *training, *paths, f"pretrained={out}/pretrain/model", f"run_dir={out}/align"]
            + ["readout.dim_hidden=512", "loader.batch_size=256"]
            + [f"stage1.epochs={epochs}", "stage1.lr=1e-3", "stage2.epochs=0"],
        )
    )
    evaluate(compose_config("evaluate", [*data, *paths, f"aligned={out}/align", f"run_dir={out}/evaluate"]))
    result = json.loads((out / "evaluate" / "retrieval.json").read_text(encoding="utf-8"))
    write_json(
        out / "henaff_v1.json",
        {"population": population, "seed": seed, "split": "movies" if by_movie else "images"}
        | {"dims": dims, "repeats": repeats, "epochs": epochs}
        | {"noise correlation": together, "noise correlation, shuffled repeats": shuffled}
        | {key: result[key] for key in ("n_candidates", "chance", "rows")},
    )
    return result


def main() -> None:
    """Run the example as its arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the *_image_sequences.mat files")
    parser.add_argument("--out", type=Path, required=True, help="everything is written below it")
    parser.add_argument("--population", default="ay3_u002")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of all trainings")
    parser.add_argument("--dims", type=int, default=20, help="principal components of the other populations")
    parser.add_argument("--by-movie", action="store_true", help="hold out whole movies, not images")
    parser.add_argument("--repeats", type=int, default=50, help="trials of each image, at most")
    parser.add_argument("--epochs", type=int, default=15, help="of alignment")
    args = parser.parse_args()
    result = run(**vars(args))
    print(f"{'':28s} {'':15s} top-1  [95 %]       top-5  [95 %]       p   (chance {result['chance']})")
    for row in result["rows"]:
        if row["direction"] != "image to neural":
            scores = "  ".join("{value:.3f} [{low:.3f}, {high:.3f}]".format(**row[k]) for k in ("top1", "top5"))
            print(f"{row['model']:28s} {row['trials']:15s} {scores}  {row.get('p', float('nan')):.4f}")


if __name__ == "__main__":
    main()
