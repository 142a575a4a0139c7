"""What a workspace holds: the results of its stages, each read if it is there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.drawing.figures import Curve, read_curves
from neurobridge_tb.report.rating import Ratings, read_ratings
from neurobridge_tb.report.result_names import picture_names
from neurobridge_tb.report.runs import Run, find_runs, newest, read_json, unreadable

MAX_IMAGES = 100


@dataclass(frozen=True)
class Gallery:
    """Reconstructions to look at.

    Attributes:
        image_id: ``(n,)`` names of the test images.
        seen: uint8 ``(n, H, W, 3)``.
        made: For each backend its samples S, uint8 ``(n, S, H', W', 3)``, baselines first.
        cosine: ``(n,)`` cosine of the predicted to the true embedding, both less the training mean; None where the file
            does not tell.
        total: Images in the file (at most 100 are read).
    """

    image_id: list[str]
    seen: np.ndarray
    made: dict[str, np.ndarray]
    cosine: np.ndarray | None
    total: int


@dataclass(frozen=True)
class Results:
    """All results found in a workspace; None or empty where a stage was not run.

    ``gallery_by_area`` is of further reconstruction runs, of some areas each; ``without_concepts`` holds the results
    ``evaluate`` and ``reconstruct`` of runs that were trained without the test images' concepts; ``runs`` are all that
    there are.
    """

    path: Path
    pretrain: dict[str, Any] | None
    align: dict[str, Any] | None
    masked_example: dict[str, np.ndarray] | None
    retrieval: dict[str, Any] | None
    reconstruct: dict[str, Any] | None
    gallery: Gallery | None
    gallery_by_area: dict[str, Gallery]
    curves: dict[str, dict[str, Curve]]
    stages: list[dict[str, Any]]
    configs: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    without_concepts: dict[str, dict[str, Any]] = field(default_factory=dict)
    ratings: list[Ratings] = field(default_factory=list)

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """The stages' own summaries, in the order of the stages."""
        parts = (self.pretrain, self.align, self.retrieval, self.reconstruct)
        return [part for part in parts if part] or [run.result for run in self.runs if run.result]

    @property
    def has_main_job(self) -> bool:
        """Whether pictures are the aim: there are pairs with images, or nothing but pretraining."""
        return bool(self.align or self.retrieval or self.reconstruct or self.gallery) or not any(
            run.result and run.job != "pretrain" for run in self.runs
        )

    @property
    def simulated(self) -> bool:
        """Whether any result is from simulated recordings."""
        return any(part.get("simulated") for part in self.summaries)

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, without repetition."""
        return list(dict.fromkeys(str(p["dataset"]) for p in self.summaries if "dataset" in p))


def read_workspace(workspace: str | Path) -> Results:
    """Read the results of every stage that has been run.

    Args:
        workspace: A folder with runs in it, however they are called, or the folder of one run.

    Raises:
        InputError: There is no result at all, or a result file cannot be read.
    """
    path = Path(workspace)
    runs = find_runs(path)
    main = {job: newest(runs, job) for job in ("pretrain", "align", "evaluate", "reconstruct")}
    folders = {job: run.folder if run else path / "runs" / job for job, run in main.items()}
    gallery_file = folders["reconstruct"] / "reconstructions.h5"
    example_file = folders["pretrain"] / "masked_example.npz"
    results = Results(
        path=path,
        pretrain=_result(main["pretrain"]),
        align=_result(main["align"]),
        masked_example=_read_example(example_file) if example_file.is_file() else None,
        retrieval=_result(main["evaluate"]),
        reconstruct=_result(main["reconstruct"]),
        gallery=_read_gallery(gallery_file) if gallery_file.is_file() else None,
        gallery_by_area=_read_area_galleries(runs, main["reconstruct"]),
        curves={run.name: read_curves(run.folder / "metrics.csv") for run in _with_curves(runs)},
        stages=read_json(path / "stages.json", kind=list) or [],
        configs={run.name: run.config for run in runs if run.config},
        runs=runs,
        without_concepts={job: _without_concepts(runs, main[job]) for job in ("evaluate", "reconstruct")},
        ratings=read_ratings(folders["reconstruct"]),
    )
    if not (results.summaries or results.gallery or results.masked_example or any(results.curves.values()) or runs):
        raise InputError(
            expected="a folder with at least one run in it",
            found=f"none in {path}" if path.is_dir() else f"no folder {path}",
            fix="Make one with 'neurobridge demo', or run 'neurobridge pretrain' first.",
        )
    return results


def _read_example(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("values", "keep", "target", "predicted", "area", "scheme")}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise unreadable(path, "an .npz with values, keep, target, predicted, area, scheme", error) from error


def _read_gallery(path: Path) -> Gallery:
    try:
        with h5py.File(path) as file:
            total = len(file["seen"])
            shown = min(total, MAX_IMAGES)
            backends = picture_names(file)
            return Gallery(
                image_id=[value.decode() for value in file["image_id"][:shown]],
                seen=file["seen"][:shown],
                made={name: file[name][:shown] for name in backends},
                cosine=file["cosine"][:shown] if "cosine" in file else None,
                total=total,
            )
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise unreadable(path, "an HDF5 file with image_id, seen and a data set a backend", error) from error


def _result(run: Run | None) -> dict[str, Any] | None:
    return run.result or None if run else None


def _with_curves(runs: list[Run]) -> list[Run]:
    return [run for run in reversed(runs) if (run.folder / "metrics.csv").is_file()]


def _read_area_galleries(runs: list[Run], main: Run | None) -> dict[str, Gallery]:
    """Those of the main run's recording."""
    galleries = {}
    for run in runs:
        file = run.folder / "reconstructions.h5"
        if run.job == "reconstruct" and run is not main and file.is_file() and run.result.get("areas"):
            if main and run.result.get("dataset") == main.result.get("dataset"):
                galleries[", ".join(run.result["areas"])] = _read_gallery(file)
    return galleries


def _without_concepts(runs: list[Run], main: Run | None) -> dict[str, Any]:
    """The first run on the main one's recording and areas whose training had none of the tested concepts."""
    for run in runs:
        same = (
            main and run.job == main.job and all(run.result.get(k) == main.result.get(k) for k in ("dataset", "areas"))
        )
        if same and run is not main and run.result.get("test concepts in training") is False:
            return run.result
    return {}
