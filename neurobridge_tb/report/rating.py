"""People as judges: a blind two-alternative test of reconstructions on one page, and what was answered.

On each trial a reconstruction stands above two pictures, the one that was seen and another test image; which is which
cannot be told from the page. Answers are saved as a file that goes into ``ratings/`` of the run.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_replaceable, write_aside
from neurobridge_tb.metrics.retrieval import bootstrap_interval
from neurobridge_tb.report.drawing.pictures import picture
from neurobridge_tb.report.result_names import label, main_name, picture_names

FOLDER = "ratings"
_MARK = "<title>Which picture was seen?</title>"  # of the template


@dataclass(frozen=True)
class RatingTest:
    """The trials of a run's backend, the same whenever they are drawn.

    Attributes:
        backend: Whose pictures are judged.
        seen: uint8 ``(n, H, W, 3)``.
        made: uint8 ``(n, H', W', 3)``, the first sample of each image.
        order: ``(n,)`` image of each trial.
        other: ``(n,)`` the other picture of each trial.
        left: ``(n,)`` whether the seen picture stands left.
        fingerprint: Of pictures and trials; answers to others are refused.
    """

    backend: str
    seen: np.ndarray
    made: np.ndarray
    order: np.ndarray
    other: np.ndarray
    left: np.ndarray
    fingerprint: str

    @classmethod
    def of_run(cls, run: str | Path, backend: str | None = None) -> "RatingTest":
        """The test of a reconstruction run.

        Args:
            run: Folder with ``reconstructions.h5``.
            backend: Whose pictures; default: the last one that is no baseline.

        Raises:
            InputError: No reconstructions there, or fewer than two images, or no such backend.
        """
        path = Path(run) / "reconstructions.h5"
        try:
            with h5py.File(path) as file:
                names = picture_names(file)
                if backend is not None and backend not in names:
                    raise InputError(
                        expected=f"a backend among {', '.join(names)}", found=backend, fix="Correct --backend."
                    )
                backend = backend or main_name(names)
                seen, made = file["seen"][:], file[backend][:, 0]
        except (OSError, KeyError, IndexError) as error:
            raise InputError(
                expected="a run of `neurobridge reconstruct`, with reconstructions.h5",
                found=f"{path}: {error}",
                fix="Name its run folder, e.g. runs/reconstruct.",
            ) from error
        n = len(seen)
        if n < 2:
            raise InputError(
                expected="two test images or more", found=f"{n}", fix="One picture has no other beside it."
            )
        digest = hashlib.sha256(backend.encode() + seen.tobytes() + made.tobytes())
        rng = np.random.default_rng(list(digest.digest()))
        order = rng.permutation(n)
        other = (order + rng.integers(1, n, n)) % n
        return cls(backend, seen, made, order, other, rng.random(n) < 0.5, digest.hexdigest()[:16])


@dataclass(frozen=True)
class Ratings:
    """What people answered.

    Attributes:
        backend: Whose pictures were judged.
        raters: How many people.
        answers: How many answers, of all of them together.
        score: ``value``, ``low`` and ``high``: share of right answers, with a 95 % bootstrap interval over images.
    """

    backend: str
    raters: int
    answers: int
    score: dict[str, float]


def write_rating_page(run: str | Path, out: str | Path | None = None, backend: str | None = None) -> Path:
    """Write the page of a run's test; it needs no other file and no network.

    Args:
        run: Folder of a reconstruction run.
        out: HTML file; default: ``rate.html`` in the run.
        backend: See :meth:`RatingTest.of_run`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    test = RatingTest.of_run(run, backend)
    trials = []
    for image, other, left in zip(test.order, test.other, test.left, strict=True):
        pair = [picture(test.seen[image]), picture(test.seen[other])]
        trials.append({"made": picture(test.made[image]), "pair": pair if left else pair[::-1]})
    environment = Environment(
        loader=PackageLoader("neurobridge_tb.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("rate.html.j2").render(
        trials=trials, test={"run": test.fingerprint, "backend": test.backend}, folder=FOLDER
    )
    target = Path(out) if out is not None else Path(run) / "rate.html"
    check_replaceable(target, lambda page: _MARK in page.read_text(encoding="utf-8"), "a page of such a test")
    with write_aside(target) as aside:
        aside.write_text(page, encoding="utf-8")
    return target


def read_ratings(run: str | Path) -> list[Ratings]:
    """Scores of the answers in a run's ``ratings/``, one a backend.

    Raises:
        InputError: A file that holds no answers, answers of another run, or the same file twice.
    """
    files = sorted((Path(run) / FOLDER).glob("*.json"))
    found: dict[str, dict[str, tuple[Path, list[int | None]]]] = {}
    for file in files:
        content = _read(file)
        of_backend = found.setdefault(content["backend"], {})
        if content["rater"] in of_backend:
            raise InputError(
                expected="each person's answers once",
                found=f"the same answers in {of_backend[content['rater']][0]} and {file}",
                fix="Remove one of them.",
            )
        of_backend[content["rater"]] = file, content["answers"]
        _check_run(run, file, content)
    scores = []
    for backend, by_rater in found.items():
        test = RatingTest.of_run(run, backend)
        right = np.where(test.left, 0, 1)
        hits = np.array([[np.nan if a is None else a == r for a, r in zip(answers, right, strict=True)]
                         for _, answers in by_rater.values()])  # fmt: skip
        counted = ~np.isnan(hits)
        of_image = np.nansum(hits, 0)[counted.any(0)] / counted.sum(0)[counted.any(0)]
        low, high = bootstrap_interval(of_image) if len(of_image) else (0.0, 1.0)
        value = float(of_image.mean()) if len(of_image) else float("nan")
        score = {"value": value, "low": low, "high": high}
        scores.append(Ratings(backend, len(by_rater), int(counted.sum()), score))
    return scores


def people_line(ratings: Ratings) -> str:
    """One sentence of a backend's ratings."""
    people = "one person" if ratings.raters == 1 else f"{ratings.raters} people"
    score = ratings.score
    return (
        f"{label(ratings.backend)}: the seen one of two pictures was picked in {100 * score['value']:.0f} % of "
        f"{ratings.answers} trials (95 % interval {100 * score['low']:.0f}–{100 * score['high']:.0f} %, chance 50 %) "
        f"by {people}."
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        answers = content["answers"]
        fine = all(isinstance(content[key], str) for key in ("run", "backend", "rater")) and isinstance(answers, list)
        if not fine or any(answer not in (0, 1, None) for answer in answers):
            raise ValueError("other contents than the page writes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            expected="answers saved by a page of `neurobridge rate`",
            found=f"{file}: {error}",
            fix="Save them again from the page, or remove the file.",
        ) from error
    return content


def _check_run(run: str | Path, file: Path, content: dict[str, Any]) -> None:
    test = RatingTest.of_run(run, content["backend"])
    if content["run"] != test.fingerprint or len(content["answers"]) != len(test.order):
        raise InputError(
            expected=f"answers to the pictures of {run} ({test.fingerprint})",
            found=f"{file}, which answers those of another run ({content['run']})",
            fix=f"Put it into {FOLDER}/ of the run whose page was filled in; pictures drawn anew need a new page.",
        )
