"""Reading checkpoint files of trainings, ours or upstream's, without running anything that they hold."""

import typing
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

# What may be unpickled besides tensors: strings of numpy, as which upstream's vocabularies are saved (the function that
# makes them has another name in files of numpy 1), and Hydra's configs, which Lightning saves as hyperparameters.
_MAKE_SCALAR: Any = np.str_().__reduce__()[0]  # type: ignore[index]
_SAFE: list[Any] = [
    np.str_,
    np.dtype,
    np.dtypes.StrDType,
    *((_MAKE_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode),
    *(typing.Any, dict, list, int, defaultdict),
]


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of a model, and the hyperparameters saved with it.

    Args:
        path: A Lightning checkpoint whose module keeps its network as ``model``, or a saved ``state_dict()``.

    Returns:
        The network's tensors and vocabularies by name; the hyperparameters, empty for a state dict.

    Raises:
        Exception: ``torch.load`` raises a different type for each way in which a file can be bad.
    """
    with torch.serialization.safe_globals(_SAFE):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" not in content:
        return content, {}
    prefix = "model."
    state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    settings = content.get("hyper_parameters", {})
    if isinstance(settings, DictConfig):
        return state, typing.cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    return state, {k: OmegaConf.to_container(v) if isinstance(v, DictConfig) else v for k, v in settings.items()}
