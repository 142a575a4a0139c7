"""The settings of a job in lines, for its help."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from neurobridge_tb.configs.presets import GROUPS
from neurobridge_tb.configs.settings import REQUIRED, JobConfig

Lines = list[tuple[str, str]]


def presets(kind: type[JobConfig]) -> dict[str, str]:
    """Of each group that can be chosen, its presets, the default in brackets."""
    return {
        group: ", ".join(f"[{name}]" if name == default else name for name in GROUPS[group][0])
        for group, default in kind.groups.items()
        if not default.startswith("$")
    }


def setting_lines(kind: type[JobConfig]) -> dict[str, Lines]:
    """For each part of a job's config (``""``: what belongs to none), lines ``("name=default", meaning)``.

    Defaults are those of the default presets.
    """
    preset: dict[str, Any] = {}
    for group, default in kind.groups.items():
        choices, package = GROUPS[group]
        chosen = choices[kind.groups["dataset"] if default == "${dataset}" else default]
        _merge(preset, {package: chosen} if package else chosen)
    parts: dict[str, Lines] = {"": []}
    for part, name, default, help in _settings(kind(), preset):
        parts.setdefault(part, []).append((f"{name}={_text(default)}", help))
    return parts


def _settings(config: Any, preset: Mapping[str, Any], part: str = "") -> Iterator[tuple[str, str, Any, str]]:
    for field in fields(config):
        if field.name in ("command", "_target_"):
            continue
        value, name = getattr(config, field.name), f"{part}.{field.name}" if part else field.name
        if is_dataclass(value):
            yield from _settings(value, preset.get(field.name, {}), name)
        else:
            yield part, name, preset.get(field.name, value), field.metadata["help"]


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if value == REQUIRED:
        return "(required)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return str(value)
