"""From a recipe to jobs. A job is addressed by what it computes, so that equal ones are run once."""

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from neurobridge_tb.configs.catalog import JOBS
from neurobridge_tb.engine.config import check_settings
from neurobridge_tb.engine.saved_settings import described_settings
from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.inputs import Inputs
from neurobridge_tb.experiments.job import Cell, Expansion, Job, refers
from neurobridge_tb.experiments.recipe import Recipe

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_OUTPUTS = ("run_dir", "out", "command")
# How a job runs, not what it computes: such settings are no part of its address.
_MANNER = {
    "device", "loader.num_workers", "num_workers", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "trainer.logger", "trainer.profiler",
}  # fmt: skip


def expand(recipe: Recipe, inputs: Inputs) -> Expansion:
    """Jobs and cells of a recipe.

    Args:
        recipe: With all settings given.
        inputs: Knows the contents of files.

    Raises:
        InputError: A reference to nothing, an unknown job or setting, a value that does not fit, an input that is not
            there, or steps that need one another.
    """
    expansion = Expansion()
    for labels in product(*recipe.factors.values()):
        levels = dict(zip(recipe.factors, labels, strict=True))
        steps = _steps_of(recipe, levels)
        for seed in recipe.seeds:
            values = {**recipe.settings, **{f: recipe.factors[f][label] for f, label in levels.items()}, "seed": seed}
            keys: dict[str, str] = {}
            for step in steps:
                _make(recipe, step, steps, values, keys, expansion.jobs, inputs, ())
            expansion.cells.append(Cell(levels, seed, {step: keys[step] for step in steps}))
    return expansion


def _steps_of(recipe: Recipe, levels: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Settings of the steps, with those that the levels bring."""
    steps = {step: dict(settings) for step, settings in recipe.steps.items()}
    for factor, label in levels.items():
        level = recipe.factors[factor][label]
        for name, value in level.items() if isinstance(level, Mapping) else ():
            step, _, setting = name.partition(".")
            if not setting or step not in steps:
                raise InputError(
                    expected=f"STEP.SETTING with one of the steps {', '.join(steps)}",
                    found=f"{name} in the level {label} of {factor}",
                    fix="Correct it in the recipe.",
                )
            steps[step][setting] = value
    return steps


def _make(
    recipe: Recipe,
    step: str,
    steps: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
    keys: dict[str, str],
    jobs: dict[str, Job],
    inputs: Inputs,
    path: tuple[str, ...],
) -> str:
    """The key of a step's job, which is made with those that it needs."""
    if step in path:
        raise _circle(recipe, " -> ".join([*path, step]))
    if step in keys:
        return keys[step]
    needs: list[str] = []

    def value_of(name: str) -> Any:
        if name in steps:
            needs.append(_make(recipe, name, steps, values, keys, jobs, inputs, (*path, step)))
            return f"@{{{needs[-1]}}}"
        if name not in values or isinstance(values[name], Mapping):
            raise InputError(
                expected=f"${{NAME}} with one of {', '.join([*values, *steps])}",
                found=f"${{{name}}} in the step {step}",
                fix=f"Correct it in the recipe {recipe.name}.",
            )
        return values[name]

    try:
        settings = {name: _resolved(value, value_of) for name, value in steps[step].items() if name != "job"}
    except RecursionError as error:
        raise _circle(recipe, f"settings that refer to one another, in the step {step}") from error
    job = _job(str(steps[step].get("job", step)).replace("-", "_"), settings, tuple(dict.fromkeys(needs)), inputs)
    jobs.setdefault(job.key, job)
    keys[step] = job.key
    return job.key


def _circle(recipe: Recipe, found: str) -> InputError:
    return InputError(
        expected="steps and settings that do not need one another in a circle",
        found=found,
        fix=f"Correct the references in the recipe {recipe.name}.",
    )


def _job(name: str, settings: dict[str, Any], needs: tuple[str, ...], inputs: Inputs) -> Job:
    if given := [output for output in _OUTPUTS if output in settings]:
        raise InputError(
            expected=f"a step {name} without {given[0]}: an experiment gives each job a folder of its own",
            found=f"{given[0]}={settings[given[0]]}",
            fix="Remove it from the recipe.",
        )
    checked = check_settings(name, settings | ({"out": ""} if name == "embed" else {}))
    if several := [n for n in ("trainer.devices", "trainer.num_nodes") if _many(checked.get(n, 1))]:
        raise InputError(
            expected="jobs of one process: an experiment runs many side by side, each on a device of its own",
            found=f"{several[0]}={checked[several[0]]} for {name}",
            fix="Remove it, and set launcher.gpus; a training on many devices is a run of its own (docs/cluster.md).",
        )
    checked = {setting: value for setting, value in checked.items() if setting not in _OUTPUTS}
    address: dict[str, Any] = {}
    paths = {setting for setting, _, metadata in described_settings(JOBS[name]()) if metadata["path"]}
    for setting, value in checked.items():
        if setting in paths and isinstance(value, str) and not refers(value):
            checked[setting] = str(Path(value).absolute())
            address[setting] = inputs.digest(Path(value), setting, checked.get("dataset.recording_ids"))
        elif setting not in _MANNER:
            address[setting] = value
    text = json.dumps([name, address], sort_keys=True, default=str)
    return Job(f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", name, checked, needs)


def _many(devices: Any) -> bool:
    """Whether a setting asks for more than one device or node."""
    return len(devices) > 1 if isinstance(devices, list) else devices not in (1, "1", "auto")


def _resolved(value: Any, value_of: Any) -> Any:
    """A value in which ``${name}`` stands for something; where it is all of a text, of any type."""
    if isinstance(value, Mapping):
        return {name: _resolved(inner, value_of) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, value_of) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _resolved(value_of(whole[1]), value_of)
    return _REFERENCE.sub(lambda match: str(_resolved(value_of(match[1]), value_of)), value)
