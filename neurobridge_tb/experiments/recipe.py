"""A recipe: what an experiment varies and which jobs it runs, as a YAML file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from neurobridge_tb.errors import InputError, did_you_mean

RECIPES = Path(__file__).parent / "recipes"
REQUIRED = "???"
_KEYS = {"question", "settings", "factors", "seeds", "steps", "table", "plot"}
_TABLE_KEYS = {"step", "rows", "where", "measures", "compare", "lower_is_better"}


@dataclass(frozen=True)
class TableSpec:
    """What a table shows.

    Attributes:
        step: Whose runs are read. Default: the last step.
        rows: Name of the list of rows in the runs' results.
        where: Rows that are taken: the value, or the values, of each of their text columns.
        measures: Numbers of a row to show, dotted where they are nested; the first one decides what is best.
        compare: Factor whose levels are compared with its first one, the others being equal. Default: the first factor.
        lower_is_better: Whether results get better as the measures fall.
    """

    step: str = ""
    rows: str = "rows"
    where: Mapping[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    compare: str = ""
    lower_is_better: bool = False


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        name: The file's name.
        source: The name of a recipe of the package, or the path of another.
        question: What it asks, in a sentence.
        settings: Values that steps refer to as ``${name}``; ``???`` where the user has to give one.
        factors: For each factor its levels, label -> value; one level ``???`` where the user has to give them.
            ``${factor}`` is the value; a mapping holds settings of steps instead, ``STEP.SETTING: value``.
        seeds: Each cell runs once with each; ``${seed}``.
        steps: For each step its settings, and under ``job`` the job that it is (default: the step's name). ``${step}``
            is the folder of another step's run.
        table: What is shown of the results.
        plot: Factor on the horizontal axis of the figure; "" for none.
    """

    name: str
    source: str
    question: str
    settings: Mapping[str, Any]
    factors: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    steps: Mapping[str, Mapping[str, Any]]
    table: TableSpec
    plot: str = ""


def names_of_recipes() -> list[str]:
    """Recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """A recipe of the package by its name, or one of your own by its path.

    Raises:
        InputError: There is none, or it is not a recipe.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            expected=f"a recipe: {', '.join(names_of_recipes())}, or the path of a .yaml file",
            found=name,
            fix=did_you_mean(name, names_of_recipes()) or "Name one of these, or write your own (docs/experiments.md).",
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(expected="a recipe in YAML", found=f"{path}: {error}", fix="Correct it there.") from error
    if not isinstance(content, dict):
        raise _wrong(path, "a mapping with steps", type(content).__name__)
    _check_names(path, content, _KEYS, "keys of a recipe")
    steps = _mapping(path, content, "steps")
    if not steps:
        raise _wrong(path, "at least one step under `steps`", "none")
    factors = {name: _levels(path, name, its) for name, its in _mapping(path, content, "factors").items()}
    settings = _mapping(path, content, "settings")
    names = [*settings, *factors, *steps, "seed", "seeds", "workspace", "launcher"]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _wrong(path, "another name for each setting, factor and step", f"{twice} for two things")
    plot = str(content.get("plot", ""))
    _check_names(path, [plot] if plot else [], factors, "factors to plot")
    return Recipe(
        name=path.stem,
        source=name if path.parent == RECIPES else str(path.absolute()),
        question=str(content.get("question", "")),
        settings=settings,
        factors=factors,
        seeds=_seeds(content.get("seeds", [0])),
        steps={step: _mapping(path, steps, step) for step in steps},
        table=_table(path, _mapping(path, content, "table"), steps, factors),
        plot=plot,
    )


def override(recipe: Recipe, arguments: Mapping[str, Any]) -> Recipe:
    """The recipe with a user's values.

    Args:
        recipe: As it was read.
        arguments: By name: of a setting its value, of a factor the labels to keep or a list of new levels, ``seeds``,
            or ``STEP.SETTING`` a setting of a step.

    Raises:
        InputError: A name that the recipe does not know, a factor without levels, or a setting without a value.
    """
    settings, factors, seeds = dict(recipe.settings), dict(recipe.factors), recipe.seeds
    steps = {step: dict(its) for step, its in recipe.steps.items()}
    for name, value in arguments.items():
        step, _, inner = name.partition(".")
        if name in settings:
            settings[name] = value
        elif name in factors:
            labels = value if isinstance(value, list) else [value]
            if not labels or None in labels:
                raise InputError(expected=f"levels of {name}", found=repr(value), fix="Name one at least.")
            known = {str(label): (label, of) for label, of in factors[name].items()}
            kept = [known.get(str(label), (label, label)) for label in labels]
            of_settings = any(isinstance(of, Mapping) for of in factors[name].values())
            if of_settings and not set(map(str, labels)) <= set(known):
                raise InputError(expected=f"levels of {name}: {', '.join(known)}", found=str(value), fix="Name some.")
            factors[name] = {str(label): of for label, of in kept}
        elif name == "seeds":
            seeds = _seeds(value)
        elif inner and step in steps:
            steps[step][inner] = value
        else:
            names = [*settings, *factors, "seeds", *(f"{step}.SETTING" for step in steps)]
            fix = did_you_mean(name, names) or "Name one."
            raise InputError(expected=f"one of {', '.join(names)}", found=name, fix=fix)
    empty = [name for name, its in recipe.settings.items() if settings[name] is None and its is not None]
    missing = [name for name, value in settings.items() if value == REQUIRED or name in empty]
    missing += [name for name, levels in factors.items() if REQUIRED in levels]
    if missing:
        raise InputError(
            expected=f"a value for {', '.join(missing)}",
            found="none",
            fix=f"neurobridge experiment {recipe.name} {' '.join(f'{name}=…' for name in missing)}",
        )
    return replace(recipe, settings=settings, factors=factors, seeds=seeds, steps=steps)


def _levels(path: Path, factor: str, levels: Any) -> dict[str, Any]:
    if isinstance(levels, list) and levels:
        return {str(level): level for level in levels}
    if isinstance(levels, dict) and levels:
        return {str(label): value for label, value in levels.items()}
    raise _wrong(path, f"levels of the factor {factor}, as a list or by name", repr(levels))


def _table(path: Path, content: dict, steps: Mapping[str, Any], factors: Mapping[str, Any]) -> TableSpec:
    _check_names(path, content, _TABLE_KEYS, "keys of `table`")
    measures = content.get("measures", [])
    if not isinstance(measures, list):
        raise _wrong(path, "a list under table.measures", repr(measures))
    spec = TableSpec(
        step=str(content.get("step", list(steps)[-1])),
        rows=str(content.get("rows", "rows")),
        where=_mapping(path, content, "where"),
        measures=tuple(map(str, measures)),
        compare=str(content.get("compare", next(iter(factors), ""))),
        lower_is_better=bool(content.get("lower_is_better", False)),
    )
    _check_names(path, [spec.step], steps, "steps")
    _check_names(path, [spec.compare] if spec.compare else [], factors, "factors")
    return spec


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not seeds or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        raise InputError(expected="seeds, e.g. seeds=[0,1,2]", found=repr(value), fix="Give whole numbers from 0 on.")
    return tuple(dict.fromkeys(seeds))


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(path, f"names and values under `{key}`", repr(value))
    return {str(name): inner for name, inner in value.items()}


def _check_names(path: Path, names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            fix = did_you_mean(str(name), known) or "Correct it there."
            raise InputError(expected=f"{what}: {', '.join(known)}", found=f"{name} in {path}", fix=fix)


def _wrong(path: Path, expected: str, found: str) -> InputError:
    return InputError(expected=expected, found=f"{found} in {path}", fix="See docs/experiments.md for the form.")
