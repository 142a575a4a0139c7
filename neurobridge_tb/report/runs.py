"""The runs below a folder, found by what they hold, whatever their folders are called."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError, NeuroBridgeError, first_line, remedy
from neurobridge_tb.files import visible

RESULTS = ("metrics.json", "retrieval.json")
_MARKS = (*RESULTS, "config.yaml", "metrics.csv", "masked_example.npz", "reconstructions.h5")
_DEPTH = 4  # folders below the one that is named
_COMMAND = re.compile(r"^command: *['\"]?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: Where it lies.
        name: Its path below the folder that was searched.
        job: ``"pretrain"``, ``"decode"`` and so on; ``""`` where nothing tells.
        result: Content of its ``metrics.json`` or ``retrieval.json``; empty before it has ended.
        config: Text of its ``config.yaml``; may be empty.
        changed: When it last wrote a file, in s since 1970.
    """

    folder: Path
    name: str
    job: str
    result: dict[str, Any]
    config: str
    changed: float


def find_runs(path: str | Path) -> list[Run]:
    """All runs at or below a folder, in the order of their names.

    Raises:
        InputError: A result that cannot be read.
    """
    root, seen = Path(path), set[Path]()
    return [_read(root, folder) for folder in sorted(_folders(root, _DEPTH, seen))]


def newest(runs: list[Run], job: str) -> Run | None:
    """The run of a job: that in a folder of the job's name, else the one that wrote last."""
    its = [run for run in runs if run.job == job]
    return next((run for run in its if run.folder.name == job), max(its, key=lambda run: run.changed, default=None))


def read_json(path: Path, kind: type = dict) -> Any:
    """Content of a JSON file; None where there is none.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, "a JSON file", error) from error
    if not isinstance(content, kind):
        raise unreadable(path, f"a JSON {kind.__name__}", f"a {type(content).__name__}")
    return content


def unreadable(path: Path, expected: str, found: object) -> InputError:
    """The error for a result that cannot be read."""
    fix = "Run the stage that writes it again, or remove its folder."
    return InputError(
        expected=expected,
        found=f"{path}: {found}",
        fix=remedy(found, fix) if isinstance(found, Exception) else fix,
    )


@contextmanager
def reading_results(place: str | Path) -> Iterator[None]:
    """Results that hold something else than jobs write are an error that names their place.

    Raises:
        InputError: The body stumbled over them.
    """
    try:
        yield
    except NeuroBridgeError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise InputError(
            expected=f"results as the jobs of this version write them, in {place}",
            found=f"{type(error).__name__}: {first_line(error)}",
            fix="Run the stage that wrote them again, or remove its folder.",
        ) from error


def _folders(folder: Path, depth: int, seen: set[Path]) -> Iterator[Path]:
    """Links are followed, after what they may lead to: each run is found once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    if any((folder / mark).is_file() for mark in _MARKS):
        yield folder
    if depth and folder.is_dir():
        for inner in sorted(visible(folder, "*"), key=lambda path: path.is_symlink()):
            if (
                inner.is_dir()
                and inner.name != "jobs"  # of experiments, each of which is a run itself
                and not inner.name.startswith(("checkpoints", "logs", "model"))
            ):
                yield from _folders(inner, depth - 1, seen)


def _read(root: Path, folder: Path) -> Run:
    result: dict = next((read_json(folder / name) for name in RESULTS if (folder / name).is_file()), {})
    config_file = folder / "config.yaml"
    config = config_file.read_text(encoding="utf-8", errors="replace") if config_file.is_file() else ""
    noted = _COMMAND.search(config)
    command = str(result.get("command") or (noted[1] if noted else ""))
    match = re.match(r"(?:neurobridge +)?([a-z][a-z_-]*)(?=[ (]|$)", command)
    job = str(result.get("job") or ("evaluate" if (folder / "retrieval.json").is_file() else ""))
    job = job or (match[1].replace("-", "_") if match and not command.startswith("python") else folder.name)
    written = [file.stat().st_mtime for mark in _MARKS if (file := folder / mark).is_file()]
    name = folder.relative_to(root).as_posix()
    return Run(folder, root.resolve().name if name == "." else name, job, result, config, max(written))
