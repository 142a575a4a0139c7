"""Many runs of one job, from a command line with commas: a recipe of one step."""

from collections.abc import Iterable
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.recipe import Recipe, TableSpec


def recipe_of_sweep(job: str, arguments: Iterable[str]) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of one step, and what is left for the launcher.

    Args:
        job: Its name.
        arguments: NAME=VALUE. In Hydra's notation, ``0,1,2``, ``choice(a,b)`` and ``range(0,3)`` are several values.
            ``run_dir`` is the folder of all runs.

    Raises:
        InputError: An argument of another form.
    """
    settings: dict[str, Any] = {}
    factors: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {"workspace": f"runs/{job}_multirun"}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name.startswith(("-", "~")):
            raise InputError(expected="settings as NAME=VALUE", found=argument, fix="Write NAME=VALUE or NAME=A,B.")
        name = name.lstrip("+")
        if name == "run_dir":
            rest["workspace"] = text
        elif name.partition(".")[0] == "launcher":
            rest[name] = yaml.safe_load(text)
        elif len(values := _values(text)) > 1:
            factors[name] = {str(value): {f"{job}.{name}": value} for value in values}
        else:
            settings[name] = values[0]
    recipe = Recipe(f"{job}_multirun", f"{job} --multirun", "", {}, factors, (0,), {job: settings}, TableSpec(step=job))
    return recipe, rest


def _values(text: str) -> list[Any]:
    """Several values of a sweep; else one, as YAML reads it."""
    try:
        override = OverridesParser.create().parse_override(f"x={text}")
    except HydraException:  # a text with signs that mean something to Hydra
        return [yaml.safe_load(text)]
    if not override.is_sweep_override():
        return [yaml.safe_load(text)]
    return [yaml.safe_load(str(value)) for value in override.sweep_iterator()]
