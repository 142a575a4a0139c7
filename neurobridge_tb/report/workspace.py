"""What a workspace holds: the results of its stages, each read if it is there."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.figures import Curve, read_curves
from neurobridge_tb.report.result_names import is_baseline

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

    ``gallery_by_area`` is of further reconstruction runs, of some areas each: ``runs/reconstruct_<any>``.
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

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """The stages' own summaries, in the order of the stages."""
        parts = (self.pretrain, self.align, self.retrieval, self.reconstruct)
        return [part for part in parts if part]

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
        workspace: Folder with ``runs/pretrain``, ``runs/align``, ``runs/evaluate``, ``runs/reconstruct``, or some.

    Raises:
        InputError: There is no result at all, or a result file cannot be read.
    """
    path = Path(workspace)
    runs = path / "runs"
    gallery_file = runs / "reconstruct" / "reconstructions.h5"
    example_file = runs / "pretrain" / "masked_example.npz"
    reconstruct = _read_json(runs / "reconstruct" / "metrics.json")
    results = Results(
        path=path,
        pretrain=_read_json(runs / "pretrain" / "metrics.json"),
        align=_read_json(runs / "align" / "metrics.json"),
        masked_example=_read_example(example_file) if example_file.is_file() else None,
        retrieval=_read_json(runs / "evaluate" / "retrieval.json"),
        reconstruct=reconstruct,
        gallery=_read_gallery(gallery_file) if gallery_file.is_file() else None,
        gallery_by_area=_read_area_galleries(runs, (reconstruct or {}).get("dataset")),
        curves={file.parent.name: read_curves(file) for file in sorted(runs.glob("*/metrics.csv"), reverse=True)},
        stages=_read_json(path / "stages.json", kind=list) or [],
        configs={file.parent.name: file.read_text(encoding="utf-8") for file in sorted(runs.glob("*/config.yaml"))},
    )
    if not (results.summaries or results.gallery or results.masked_example or any(results.curves.values())):
        raise InputError(
            expected="a workspace with at least one run under runs/ (pretrain, align, evaluate, reconstruct)",
            found=f"none in {path}" if path.is_dir() else f"no folder {path}",
            fix="Make one with 'neurobridge demo', or run 'neurobridge pretrain' first.",
        )
    return results


def _read_json(path: Path, kind: type = dict) -> Any:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, "a JSON file", error) from error
    if not isinstance(content, kind):
        raise _unreadable(path, f"a JSON {kind.__name__}", f"a {type(content).__name__}")
    return content


def _read_example(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("values", "keep", "target", "predicted", "area", "scheme")}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise _unreadable(path, "an .npz with values, keep, target, predicted, area, scheme", error) from error


def _read_gallery(path: Path) -> Gallery:
    try:
        with h5py.File(path) as file:
            total = len(file["seen"])
            shown = min(total, MAX_IMAGES)
            backends = sorted(
                set(file) - {"image_id", "seen", "cosine"}, key=lambda name: (not is_baseline(name), name)
            )
            return Gallery(
                image_id=[value.decode() for value in file["image_id"][:shown]],
                seen=file["seen"][:shown],
                made={name: file[name][:shown] for name in backends},
                cosine=file["cosine"][:shown] if "cosine" in file else None,
                total=total,
            )
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise _unreadable(path, "an HDF5 file with image_id, seen and a data set a backend", error) from error


def _read_area_galleries(runs: Path, dataset: str | None) -> dict[str, Gallery]:
    """Those of the recording ``dataset``."""
    galleries = {}
    for file in sorted(runs.glob("reconstruct_*/reconstructions.h5")):
        metrics = _read_json(file.parent / "metrics.json") or {}
        if metrics.get("areas") and metrics.get("dataset") == dataset:
            galleries[", ".join(metrics["areas"])] = _read_gallery(file)
    return galleries


def _unreadable(path: Path, expected: str, found: object) -> InputError:
    return InputError(
        expected=expected,
        found=f"{path}: {found}",
        fix="Run the stage that writes it again, or remove its folder.",
    )
