"""What an experiment still has to do, and how long that will take."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from neurobridge_tb import __version__
from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.job import Cell, Expansion, Job
from neurobridge_tb.experiments.outcome import Outcome, outcome_of, starts_of
from neurobridge_tb.experiments.recipe import Recipe, TableSpec
from neurobridge_tb.files import read_json, write_json
from neurobridge_tb.progress import duration

PLAN = "plan.json"


@dataclass
class Plan:
    """An experiment in its folder.

    Attributes:
        name: Of the recipe.
        source: The recipe: of the package by its name, or a path.
        question: What it asks.
        command: The call.
        expansion: Jobs and cells.
        table: What is shown of the results.
        plot: Factor on the horizontal axis; "" for none.
        folder: Where its table, its figure and this plan lie; the jobs lie in ``jobs`` beside it, for all experiments.
    """

    name: str
    source: str
    question: str
    command: str
    expansion: Expansion
    table: TableSpec
    plot: str
    folder: Path

    @property
    def jobs(self) -> Path:
        """Folder of the jobs of all experiments of a workspace."""
        return self.folder.parent / "jobs"

    def outcomes(self) -> dict[str, Outcome | None]:
        """How each job ended; None where it was cut, or not started."""
        return {key: outcome_of(self.jobs / key) for key in self.expansion.jobs}

    def check_folder(self) -> None:
        """Refuse a folder that is of something else, or cannot be made.

        Raises:
            InputError: It is.
        """
        if found := self._occupied():
            raise InputError(
                expected=f"a new folder, or one of the experiment {self.name}, at {self.folder}",
                found=found,
                fix="Name another one with workspace=FOLDER, or call the recipe otherwise.",
            )

    def save(self) -> None:
        """Write ``plan.json``."""
        content = {
            "version": __version__,
            "name": self.name,
            "source": self.source,
            "question": self.question,
            "command": self.command,
            "table": asdict(self.table),
            "plot": self.plot,
            "jobs": [asdict(job) for job in self.expansion.jobs.values()],
            "cells": [asdict(cell) for cell in self.expansion.cells],
        }
        write_json(self.folder / PLAN, content)

    def _occupied(self) -> str:
        """What else has the folder; "" if nothing."""
        if file := next((path for path in (self.folder, *self.folder.parents) if path.is_file()), None):
            return f"a file, {file}"
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return ""
        if not (self.folder / PLAN).is_file():
            return "a folder with something else in it"
        other = read_json(self.folder / PLAN).get("source", self.source)
        return "" if other == self.source else f"the experiment of another recipe, {other}"


def plan_of(recipe: Recipe, expansion: Expansion, workspace: Path, command: str) -> Plan:
    """The plan of a recipe in a workspace."""
    if recipe.name == "jobs":
        raise InputError(expected="a recipe of another name", found="jobs", fix="Rename its file: jobs lie there.")
    return Plan(
        name=recipe.name,
        source=recipe.source,
        question=recipe.question,
        command=command,
        expansion=expansion,
        table=recipe.table,
        plot=recipe.plot,
        folder=workspace.absolute() / recipe.name,
    )


def read_plan(folder: Path) -> Plan:
    """The plan of an experiment that was started.

    Raises:
        InputError: There is none, or one of another version.
    """
    file = folder / PLAN
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        jobs = [Job(**its | {"needs": tuple(its["needs"])}) for its in content["jobs"]]
        spec = content["table"]
        return Plan(
            name=content["name"],
            source=content.get("source", content["name"]),
            question=content["question"],
            command=content["command"],
            expansion=Expansion({job.key: job for job in jobs}, [Cell(**its) for its in content["cells"]]),
            table=TableSpec(**spec | {"measures": tuple(spec["measures"])}),
            plot=content["plot"],
            folder=folder.absolute(),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            expected=f"the plan of an experiment of NeuroBridge {__version__} at {file}",
            found=f"none that can be read ({error})",
            fix="Run `neurobridge experiment` again: what is done is not done again.",
        ) from error


def dry_run(plan: Plan, workers: int = 1) -> list[str]:
    """What would be run, in lines: jobs done, to go on with and to run, with their expected time."""
    outcomes, measured = plan.outcomes(), _measured(plan.jobs)
    lines, seconds, unknown = [f"{plan.name}: {plan.question}"], 0.0, 0
    for key, job in plan.expansion.jobs.items():
        ended = outcomes[key]
        expected = _expected(job, measured)
        if ended is not None and ended.done:
            state = f"done in {duration(ended.seconds)}" + _of_version(ended)
        else:
            state = "failed, is tried again" if ended else "goes on" if starts_of(plan.jobs / key) else "to run"
            state += f", about {duration(expected)}" if expected is not None else ""
            seconds, unknown = seconds + (expected or 0), unknown + (expected is None)
        lines.append(f"  {plan.expansion.name_of(key)}: {state}")
    done = sum(its is not None and its.done for its in outcomes.values())
    cells = plan.expansion.cells
    without = sum(len(cell.jobs) for cell in cells)
    lines.append(
        f"{len(outcomes)} jobs for {len(cells)} cells ({without} without sharing), {done} done, "
        f"{len(outcomes) - done} to run: about {duration(seconds / workers)}"
        + (f" with {workers} at a time" if workers > 1 else "")
        + (f", and {unknown} jobs of kinds that were not measured here yet" if unknown else "")
    )
    return lines


def _of_version(ended: Outcome) -> str:
    return "" if ended.version == __version__ else f" by version {ended.version}"


def _measured(jobs: Path) -> dict[str, list[Outcome]]:
    """Jobs that are done, of all experiments in this workspace, by their name."""
    found: dict[str, list[Outcome]] = {}
    for folder in sorted(jobs.iterdir()) if jobs.is_dir() else ():
        ended = outcome_of(folder) if folder.is_dir() else None
        if ended is not None and ended.done:
            found.setdefault(folder.name.rpartition("-")[0], []).append(ended)
    return found


def _expected(job: Job, measured: dict[str, list[Outcome]]) -> float | None:
    """Mean seconds of the measured jobs that have the most settings in common with this one."""
    seconds: dict[int, list[float]] = {}
    for ended in measured.get(job.name, ()):
        common = sum(ended.settings.get(name) == value for name, value in job.settings.items())
        seconds.setdefault(common, []).append(ended.seconds)
    return fmean(seconds[max(seconds)]) if seconds else None


def failures(plan: Plan) -> list[str]:
    """A line for each job without a result, and why."""
    outcomes = plan.outcomes()
    lines = []
    for key, ended in outcomes.items():
        if ended is None or not ended.done:
            blocking = [need for need in plan.expansion.jobs[key].needs if not (outcomes[need] and outcomes[need].done)]  # type: ignore[union-attr]
            reason: Any = ended.error.replace("\n", " ") if ended else "not run yet"
            if blocking and not ended:
                reason = f"needs {plan.expansion.name_of(blocking[0])}"
            lines.append(f"{plan.expansion.name_of(key)} has no result: {reason} ({plan.jobs / key})")
    return lines
