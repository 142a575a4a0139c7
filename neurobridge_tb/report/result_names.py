"""What the names of rows and backends say: which are baselines or ceilings, and how people read them."""

from collections.abc import Iterable

_NOT_PICTURES = {"image_id", "seen", "cosine", "nearest_training_cosine"}
_BASELINES = (
    "chance",
    "shuffled",
    "mean",
    "ridge",
    "linear",
    "mlp",
    "plain mlp",
    "nearest",
    "noise ceiling",
    "random",
    "factor analysis",
)


def is_baseline(name: str) -> bool:
    """Whether a row of results is a baseline by its name, e.g. ``ridge_pixels``, ``plain MLP``, ``nearest``."""
    return label(name).lower().startswith(_BASELINES)


def is_ceiling(name: str) -> bool:
    """Whether a row is what a generator draws of true features or embeddings: its ceiling, which saw the image."""
    return "true " in label(name).lower()


def is_model(name: str) -> bool:
    """Whether a row is a model's own: neither a baseline nor a ceiling."""
    return not (is_baseline(name) or is_ceiling(name))


def main_name(names: Iterable[str]) -> str:
    """The model among the names: the last one that is neither a baseline nor a ceiling, or the last of all."""
    names = list(names)
    return ([name for name in names if is_model(name)] or names)[-1]


def picture_names(stored: Iterable[str]) -> list[str]:
    """Backends among the data sets of a reconstructions.h5, baselines first."""
    return sorted(set(stored) - _NOT_PICTURES, key=lambda name: (not is_baseline(name), name))


def label(name: str) -> str:
    """A backend's or model's name as people read it: ``ridge pixels`` for ``ridge_pixels``."""
    return name.replace("_", " ")
