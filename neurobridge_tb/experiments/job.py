"""Jobs of an experiment, and the cells of its table that they serve."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FOLDER = re.compile(r"@\{([^}]*)\}")  # stands for the folder of a job, in settings


@dataclass(frozen=True)
class Job:
    """One run of a job.

    Attributes:
        key: Its name and the start of the SHA-256 of its settings and inputs; also the name of its folder.
        name: The job, e.g. ``"align"``.
        settings: By full name. ``@{key}`` stands for the folder of another job.
        needs: Keys of the jobs that have to be done before.
    """

    key: str
    name: str
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()

    def settings_in(self, jobs: Path) -> dict[str, Any]:
        """Settings with the folders of other jobs below ``jobs``, and its own."""
        output = {"out": str(jobs / self.key / "embeddings.h5")} if self.name == "embed" else {}
        output = output or {"run_dir": str(jobs / self.key)}
        return {name: _in_place(value, jobs) for name, value in self.settings.items()} | output


@dataclass(frozen=True)
class Cell:
    """A combination of levels, with one seed.

    Attributes:
        levels: Label of each factor's level.
        seed: The seed.
        jobs: Key of each step's job.
    """

    levels: dict[str, str]
    seed: int
    jobs: dict[str, str]


@dataclass
class Expansion:
    """All jobs of a recipe, each once and after those that it needs, and the cells that they serve."""

    jobs: dict[str, Job] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    def name_of(self, key: str) -> str:
        """A job in words: its name, and the levels that all of its cells share."""
        cells = [cell for cell in self.cells if key in cell.jobs.values()]
        facts = [{**cell.levels, "seed": cell.levels.get("seed", str(cell.seed))} for cell in cells]
        shared = {name: value for name, value in facts[0].items() if all(f[name] == value for f in facts)}
        return " ".join([self.jobs[key].name, *(f"{name}={value}" for name, value in shared.items())])


def refers(value: str) -> bool:
    """Whether a setting refers to the folder of a job."""
    return bool(_FOLDER.search(value))


def _in_place(value: Any, jobs: Path) -> Any:
    if isinstance(value, list):
        return [_in_place(inner, jobs) for inner in value]
    return _FOLDER.sub(lambda match: str(jobs / match[1]), value) if isinstance(value, str) else value
