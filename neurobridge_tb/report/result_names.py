"""What the names of rows and backends say: which are baselines, and how people read them."""

from collections.abc import Iterable

_BASELINES = ("chance", "shuffled", "mean", "ridge", "linear", "mlp", "plain mlp", "nearest", "noise ceiling", "random")


def is_baseline(name: str) -> bool:
    """Whether a row of results is a baseline by its name, e.g. ``ridge_pixels``, ``plain MLP``, ``nearest``."""
    return label(name).lower().startswith(_BASELINES)


def main_name(names: Iterable[str]) -> str:
    """The model among the names: the last one that is not a baseline, or the last of all."""
    names = list(names)
    return ([name for name in names if not is_baseline(name)] or names)[-1]


def label(name: str) -> str:
    """A backend's or model's name as people read it: ``ridge pixels`` for ``ridge_pixels``."""
    return name.replace("_", " ")
