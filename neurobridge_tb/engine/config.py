"""A job's settings, from Python, from the command line or from a Hydra script: one way for all three.

Importing this file puts every job's config and every preset into Hydra's ConfigStore.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.catalog import JOBS
from neurobridge_tb.configs.parts import DatasetConfig
from neurobridge_tb.configs.presets import GROUPS
from neurobridge_tb.configs.ranges import check_range, check_ranges
from neurobridge_tb.configs.settings import JobConfig, RunConfig
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.datasets.validation.examination import refuse_faulty
from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.engine.saved_settings import check_run_folder
from neurobridge_tb.errors import InputError, NeuroBridgeError, first_line
from neurobridge_tb.masking.schemes import SCHEMES
from neurobridge_tb.progress import say

Config = TypeVar("Config", bound=JobConfig)


_OTHER = object()  # unlike every value


class _Text(str):
    """A value as it was typed."""


def _fill_store() -> None:
    store = ConfigStore.instance()
    for group, (presets, package) in GROUPS.items():
        for name, preset in presets.items():
            node = preset
            for key in filter(None, package.split(".")):
                node = {key: node}
            store.store(group=group, name=name, node=node, package="_global_")
    for job in JOBS:
        _store_job(job)


def _store_job(job: str) -> None:
    store, kind = ConfigStore.instance(), JOBS[job]
    defaults = [{group: choice} for group, choice in kind.groups.items()]
    store.store(name=f"{job}_settings", node=kind)
    store.store(name=job, node={"defaults": [f"{job}_settings", *defaults, "_self_"]})


_fill_store()


def settle(kind: type[Config], config: Config | DictConfig | None, settings: Mapping[str, Any]) -> Config:
    """The settings of a call of a job.

    Args:
        kind: The job's dataclass.
        config: Complete settings, as :func:`compose_config`, ``@hydra.main`` or a run's ``config.yaml`` give them; or
            None.
        settings: Settings by name, beside those of ``config`` or of the defaults: ``root="processed"`` or
            ``model={"depth": 2}``. A name may be dotted, and its first parts may be left out where one setting only
            ends so. The name of a group takes a preset's name: ``dataset="binned"``.

    Raises:
        InputError: A setting that does not exist, a value that does not fit it, a required one without a value, or a
            run folder that another run holds.
    """
    job = next(name for name, its in JOBS.items() if its is kind)
    if config is None:
        config = _compose(job, settings)
        config.command = f"{job}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    else:
        config = _merged(job, kind, config)
        _assign(job, config, settings)
        config.command = config.command or " ".join(["python", *sys.argv])
    finished = _finished(job, config)
    if isinstance(finished, RunConfig) and finished.is_locked:
        lock_run(Path(finished.run_dir))
    return finished


def compose_config(job: str, arguments: Iterable[str]) -> Any:
    """Settings of a job from NAME=VALUE, e.g. ``compose_config("pretrain", ["model=tiny", "trainer.max_epochs=2"])``.

    A value of a text setting stands for itself, whatever characters are in it; other values are in Hydra's notation.

    Args:
        job: Its name.
        arguments: As in the command; ``+NAME=VALUE`` is the same.

    Returns:
        An instance of the job's dataclass, with the command that it belongs to under ``command``.

    Raises:
        InputError: As :func:`settle` does.
    """
    arguments = list(arguments)
    check_name(job.replace("-", "_"), JOBS, what=f"a job among {', '.join(JOBS)}", fix="Choose one of these.")
    settings = dict(_typed(job, argument) for argument in arguments)
    config = _compose(job.replace("-", "_"), settings)
    config.command = " ".join(["neurobridge", job.replace("_", "-"), *arguments])
    return _finished(job.replace("-", "_"), config)


def check_settings(job: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a job by their full names, checked as :func:`settle` does, without making its config.

    A value that is the default is left out, so that equal jobs have equal settings. Fast for many calls: a job's
    defaults are composed once for each choice of presets, a value is tried once.

    Args:
        job: Its name.
        settings: As for :func:`settle`; nested ones come out dotted.

    Raises:
        InputError: No such job, and as :func:`settle` does; also a setting that is given twice.
    """
    check_name(job, JOBS, what="a job", fix=f"Jobs are {', '.join(JOBS)}.")
    chosen = {name: value for name, value in settings.items() if name in JOBS[job].groups and isinstance(value, str)}
    base = _base(job, tuple(sorted(chosen.items())))
    checked: dict[str, Any] = dict(chosen)
    for name, value in _flat({name: value for name, value in settings.items() if name not in chosen}):
        full = _full_name(job, name, base.names)
        if full in checked:
            raise InputError(expected=f"one value for {full}", found=f"another under {name}", fix="Remove one of them.")
        if (full, repr(value)) not in base.tried:
            _update(job, base.config, full, value, base.names.get(full))
            _check_masking(job, [full.removeprefix("masking.")] if full.startswith("masking.") else [])
            check_range(full, value)
            base.tried.add((full, repr(value)))
        checked[full] = value
    if missing := sorted(base.missing - checked.keys()):
        raise InputError(expected=f"a value for {', '.join(missing)}", found="none", fix=_see_help(job))
    return {name: value for name, value in checked.items() if base.defaults.get(name, _OTHER) != value}


def open_dataset(config: DatasetConfig) -> Dataset:
    """The Dataset that is described.

    Raises:
        InputError: It cannot be opened, a recording has what ``neurobridge validate`` calls a fault, or one that is to
            be left out is not there, or no other is.
    """
    say(f"Opening the recordings{f' in {config.root}' if config.root else ''}")
    dataset = _instantiated(config)
    if config.leave_out:
        found = dataset.recording_ids
        rest = [r for r in found if r not in config.leave_out]
        if not rest or not set(config.leave_out) <= set(found):
            raise InputError(
                expected=f"dataset.leave_out with some, not all, of {', '.join(found)}",
                found=", ".join(config.leave_out),
                fix="Correct it.",
            )
        dataset = _instantiated(replace(config, recording_ids=rest))
    if isinstance(dataset, BinnedRecordings):
        refuse_faulty(dataset.paths)
    return dataset


def files_of(dataset: Dataset) -> list[Path]:
    """Files of its recordings; none where a Dataset of another package does not name them."""
    return list(getattr(dataset, "paths", []))


def _instantiated(config: DatasetConfig) -> Dataset:
    arguments = {name: value for name, value in asdict(config).items() if name not in ("arguments", "leave_out")}
    try:
        return instantiate({**arguments, **config.arguments})
    except InstantiationException as error:
        if isinstance(error.__cause__, NeuroBridgeError):
            raise error.__cause__ from None
        raise InputError(
            expected="a dataset that can be opened",
            found=f"{config._target_}: {error.__cause__}",
            fix="Set dataset.root=<folder given to `brainsets prepare` as --processed-dir>.",
        ) from error


def check_name(name: str, names: Iterable[str], *, what: str, fix: str) -> None:
    """Refuse a name that is not among others, and say which is nearest.

    Args:
        name: What was given.
        names: Those that there are.
        what: What they are names of.
        fix: What to do where none is near.

    Raises:
        InputError: The name is not among them.
    """
    names = list(names)
    if name in names:
        return
    ends = {other.rpartition(".")[2]: other for other in names}
    near = get_close_matches(name, names, n=2) or [ends[e] for e in get_close_matches(name.rpartition(".")[2], ends)]
    near = list(dict.fromkeys(near))
    raise InputError(expected=what, found=name, fix=f"Did you mean {' or '.join(near)}? {fix}" if near else fix)


def _typed(job: str, argument: str) -> tuple[str, _Text]:
    name, equals, value = argument.partition("=")
    if not equals or name.startswith(("-", "~")):
        raise InputError(
            expected="settings as NAME=VALUE",
            found=argument,
            fix=f"`neurobridge {job.replace('_', '-')} --help` lists them.",
        )
    return name.lstrip("+"), _Text(value)


def _compose(job: str, settings: Mapping[str, Any]) -> DictConfig:
    """The job's defaults with the chosen presets, and then the other settings."""
    groups, store = JOBS[job].groups, ConfigStore.instance()
    _store_job(job)  # one that was added to the catalog since
    chosen = {name: value for name, value in settings.items() if name in groups and isinstance(value, str)}
    for group, preset in chosen.items():
        names = [str(entry).removesuffix(".yaml") for entry in store.list(group)]
        check_name(preset, names, what=f"{group}=<one of {', '.join(names)}>", fix="Choose one of these.")
    try:
        with initialize(config_path=None, version_base="1.3"):
            config = compose(job, [f"{group}={preset}" for group, preset in chosen.items()])
    except HydraException as error:
        raise InputError(
            expected=f"presets that fit `{job}`",
            found=f"{chosen} ({first_line(error)})",
            fix=_see_help(job),
        ) from error
    _assign(job, config, {name: value for name, value in settings.items() if name not in chosen})
    return config


def _merged(job: str, kind: type[JobConfig], config: Any) -> DictConfig:
    """The settings with their types, also those read from a file, which have none."""
    try:
        return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(kind), config))
    except OmegaConfBaseException as error:
        found = first_line(error)
        raise InputError(expected=f"settings of `{job}`", found=found, fix=_see_help(job)) from error


def _assign(job: str, config: DictConfig, settings: Mapping[str, Any]) -> None:
    names = dict(_names(config))
    for name, value in _flat(settings):
        found = _full_name(job, name, names)
        _update(job, config, found, value, names.get(found))


def _update(job: str, config: DictConfig, name: str, value: Any, node: Any) -> None:
    try:
        OmegaConf.update(config, name, _parsed(name, value, node), force_add=node is None)
    except (OmegaConfBaseException, HydraException) as error:
        raise InputError(
            expected=f"a value that fits {name}",
            found=f"{value!r} ({first_line(error)})",
            fix=_see_help(job),
        ) from error


class _Base(NamedTuple):
    """A job's defaults with its presets, and what has been tried on them."""

    config: DictConfig
    names: dict[str, Any]
    defaults: dict[str, Any]
    missing: set[str]
    tried: set[tuple[str, str]]


@cache
def _base(job: str, presets: tuple[tuple[str, str], ...]) -> _Base:
    config = _compose(job, dict(presets))
    names, defaults = dict(_names(config)), dict(JOBS[job].groups)
    defaults |= _flat(cast(dict[str, Any], OmegaConf.to_container(config)))
    return _Base(config, names, defaults, OmegaConf.missing_keys(config), set())


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        value = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(value, Mapping) and value:
            yield from ((f"{name}.{inner}", x) for inner, x in _flat(value))
        else:
            yield name, value


def _names(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of all settings, with their nodes."""
    for key in map(str, config):
        node: Any = config._get_node(key)
        yield f"{prefix}{key}", node
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _names(node, f"{prefix}{key}.")


def _full_name(job: str, name: str, names: Mapping[str, Any]) -> str:
    """A setting's dotted name, where the first parts may be missing."""
    if name in names or any(_is_open(names.get(parent)) for parent in _parents(name)):
        return name
    ending = [full for full in names if full.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise InputError(expected=f"one of {', '.join(ending)}", found=name, fix="Write the name in full.")
    check_name(name, [*names, *JOBS[job].groups], what=f"a setting of `{job}`", fix=_see_help(job))
    return name


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


def _is_open(node: Any) -> bool:
    """Whether a part of the config takes any names, as ``masking`` does."""
    return isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict


def _parsed(name: str, value: Any, node: Any) -> Any:
    if not isinstance(value, _Text):
        return value
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if isinstance(node, StringNode) and value != "null" and not quoted:
        return str(value)
    return OverridesParser.create().parse_override(f"{name}={value}").value()


def _finished(job: str, config: DictConfig) -> Any:
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise InputError(expected=f"a value for {', '.join(missing)}", found="none", fix=_see_help(job))
        finished = cast(JobConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:  # of what a value refers to, too
        raise InputError(expected=f"a config of `{job}`", found=first_line(error), fix=_see_help(job)) from error
    masking = getattr(finished, "masking", {})
    _check_masking(job, masking)
    if masking and not (min(masking.values()) >= 0 and sum(masking.values()) > 0):
        raise InputError(
            expected="weights of masking schemes of 0 or more, some above 0",
            found=", ".join(f"masking.{scheme}={weight:g}" for scheme, weight in masking.items()),
            fix="Raise one of them; those of weight 0 are not used.",
        )
    check_ranges(finished)
    _expand_home(finished)
    if isinstance(finished, RunConfig):
        check_run_folder(finished.run_dir)
        if not 0 <= finished.seed < 2**32:
            raise InputError(expected="a seed from 0 to 2**32 - 1", found=f"{finished.seed}", fix=_see_help(job))
    return finished


def _expand_home(config: Any) -> None:
    """Have paths begin at the home folder where they begin with "~", which shells leave after a dotted name."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _expand_home(value)
        elif field.metadata.get("path") and isinstance(value, str) and value.startswith("~"):
            setattr(config, field.name, os.path.expanduser(value))


def _check_masking(job: str, schemes: Iterable[str]) -> None:
    for scheme in schemes:
        check_name(f"masking.{scheme}", [f"masking.{s}" for s in SCHEMES], what="a masking scheme", fix=_see_help(job))


def _see_help(job: str) -> str:
    return f"Give settings as NAME=VALUE; `neurobridge {job.replace('_', '-')} --help` lists them."
