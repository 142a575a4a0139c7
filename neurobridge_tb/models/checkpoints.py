"""Reading checkpoint files of trainings, ours or upstream's, without running anything that they hold."""

import typing
from collections import defaultdict
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

# What may be unpickled besides tensors: strings of numpy, as which upstream's vocabularies are saved (the function that
# makes them has another name in files of numpy 1), Hydra's configs and paths, which Lightning saves as hyperparameters.
_MAKE_SCALAR: Any = np.str_().__reduce__()[0]  # type: ignore[index]
_SAFE: list[Any] = [
    np.str_,
    np.dtype,
    np.dtypes.StrDType,
    *((_MAKE_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode),
    *(typing.Any, dict, list, int, defaultdict),
    *(PosixPath, WindowsPath, PurePosixPath, PureWindowsPath),
]


_OF_MODULE = "model."  # as which a Lightning module keeps its network
_WRAPPERS = ("_orig_mod", "module")  # of torch.compile and of distributed training


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of a model, and the hyperparameters saved with it.

    Args:
        path: A Lightning checkpoint whose module keeps its network as ``model`` or is the network, compiled or not, or
            a saved ``state_dict()``.

    Returns:
        The network's tensors and vocabularies by name; the hyperparameters, empty for a state dict.

    Raises:
        Exception: ``torch.load`` raises a different type for each way in which a file can be bad.
    """
    with torch.serialization.safe_globals(_SAFE):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" not in content:
        return content, {}
    state = {_unwrapped(name): value for name, value in content["state_dict"].items()}
    of_model = {name.removeprefix(_OF_MODULE): v for name, v in state.items() if name.startswith(_OF_MODULE)}
    state = of_model or state
    settings = content.get("hyper_parameters", {})
    if isinstance(settings, DictConfig):
        return state, typing.cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    return state, {k: OmegaConf.to_container(v) if isinstance(v, DictConfig) else v for k, v in settings.items()}
