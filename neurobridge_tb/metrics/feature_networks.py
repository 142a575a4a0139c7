"""Which networks can judge reconstructions? Those whose weights are on disk; the others say what they need.

The standard columns (Ozcelik and VanRullen 2023; MindEye, Scotti et al. 2023): two-way identification on AlexNet layers
2 and 5, InceptionV3 and CLIP ViT-L/14, correlation distance on EfficientNet-B1 and SwAV-ResNet50; and LPIPS (Zhang et
al. 2018), which does not saturate. Nothing is downloaded here, and no network stands in for another. Any loaded timm
encoder can add columns of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.errors import InputError, first_line
from neurobridge_tb.metrics.image_arrays import resize
from neurobridge_tb.vision_imports import prepare_torchvision

Features = dict[str, np.ndarray]
Measure = Literal["two-way", "distance", "squared distance"]

EFFICIENTNET_LITE0_LAYERS: dict[str, Literal["map", "mean"]] = {"blocks.2": "map", "blocks.6": "mean"}


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature network for judging reconstructions.

    Attributes:
        columns: Names of the table columns it fills, e.g. ``("two-way AlexNet 2", "two-way AlexNet 5")``.
        measure: "two-way" (higher is better, chance 0.5), "distance" (correlation distance) or "squared distance";
            both distances: lower is better.
        extract: uint8 images ``(n, H, W, 3)`` to float32 features ``(n, d)`` by column; None without weights.
        needs: What has to be done to have it, where ``extract`` is None.
    """

    columns: tuple[str, ...]
    measure: Measure
    extract: Callable[[np.ndarray], Features] | None = None
    needs: str = ""


def feature_networks(
    *,
    encoder: ImageEncoder | None = None,
    layers: Mapping[str, Literal["map", "mean"]] = EFFICIENTNET_LITE0_LAYERS,
    weights_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> list[FeatureNetwork]:
    """``encoder``'s columns, then the standard networks, each usable or saying what it needs.

    Args:
        encoder: A loaded timm encoder to add as "two-way <model> <layer>" columns; default: none.
        layers: Its layers, each as the whole map or as its mean over positions; default: an early and a late layer of
            EfficientNet-Lite0.
        weights_dir: Where the standard networks' weights lie; default: torch hub's cache, where torchvision's go.
        device: Where the standard networks run.
    """
    folder = Path(weights_dir or Path(torch.hub.get_dir()) / "checkpoints")
    own = [] if encoder is None else [_from_encoder(encoder, layers)]
    return own + [_from_weights(entry, folder, device) for entry in (*_STANDARD, _LPIPS)]


def _from_encoder(encoder: ImageEncoder, layers: Mapping[str, Literal["map", "mean"]]) -> FeatureNetwork:
    model = encoder.name.partition(":")[2].partition("@")[0]

    def extract(images: np.ndarray) -> Features:
        pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        maps = encoder.features(pictures, list(layers), grid=None)
        return {f"two-way {model} {layer}": _flat(maps[layer], mean=kept == "mean") for layer, kept in layers.items()}

    return FeatureNetwork(tuple(f"two-way {model} {layer}" for layer in layers), "two-way", extract)


@dataclass(frozen=True)
class _Standard:
    """A standard network: its columns' layers, its input size, its weights file, and how it is built from that."""

    columns: dict[str, str | None]  # column -> submodule, None for the network's output
    image_size: int
    weights: str
    source: str
    build: Callable[[Path, int, str | torch.device], ImageEncoder]
    measure: Measure = "two-way"


def _from_weights(entry: _Standard, folder: Path, device: str | torch.device) -> FeatureNetwork:
    columns, path = tuple(entry.columns), folder / entry.weights
    if not path.is_file():
        place = str(folder).replace(str(Path.home()), "~", 1)
        needs = f"needs the file {entry.weights} (from {entry.source}) in {place}"
        return FeatureNetwork(columns, entry.measure, needs=needs)

    @cache
    def load() -> ImageEncoder:
        return entry.build(path, entry.image_size, device)

    def extract(images: np.ndarray) -> Features:
        resized = (resize(images, entry.image_size) * 255).round().to(torch.uint8)
        if entry.measure == "squared distance":
            return {columns[0]: perceptual_features(load(), resized)}
        layers = [layer for layer in entry.columns.values() if layer is not None]
        if not layers:
            return {columns[0]: load().encode(resized).numpy()}
        maps = load().features(resized, layers, grid=None)
        return {column: _flat(maps[layer]) for column, layer in entry.columns.items() if layer}

    return FeatureNetwork(columns, entry.measure, extract)


def perceptual_features(alexnet: ImageEncoder, images: Tensor) -> np.ndarray:
    """Features (n, d) whose squared distance is LPIPS with AlexNet (Zhang et al. 2018, version 0.1).

    Each place of five layers is scaled to unit length over channels; channels are weighted as people's judgements of
    likeness are best met, and places averaged. The weights come with torchmetrics.

    Args:
        alexnet: torchvision's, with ImageNet's weights and standardisation.
        images: uint8 (n, 3, H, W).
    """
    from importlib.resources import files

    path = str(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth")
    heads = torch.load(path, map_location="cpu", weights_only=True)
    parts = []
    for k, maps in enumerate(alexnet.features(images, _LPIPS_LAYERS, grid=None).values()):
        unit = maps / (maps.square().sum(1, keepdim=True) + 1e-8).sqrt()
        weight = heads[f"lin{k}.model.1.weight"] / (maps.shape[2] * maps.shape[3])
        parts.append((unit * weight.sqrt()).flatten(1))
    return torch.cat(parts, 1).numpy()


def _flat(values: Tensor, *, mean: bool = False) -> np.ndarray:
    return (values.flatten(2).mean(2) if mean else values.flatten(1)).numpy()


def _torchvision(model: str, **settings: Any) -> Callable[..., ImageEncoder]:
    """A builder of a torchvision model as an encoder with ImageNet's standardisation."""

    def build(path: Path, image_size: int, device: str | torch.device) -> ImageEncoder:
        prepare_torchvision()
        from torchvision import models

        network = getattr(models, model)(weights=None, **settings)
        if model == "resnet50":
            network.fc = nn.Identity()  # SwAV's heads are others, and the features are taken before them
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = {name.removeprefix("module."): value for name, value in state.items()}
            missing = network.load_state_dict(state, strict=False).missing_keys
        except Exception as error:  # unpickling errors share no base class
            missing = [first_line(error)]
        if missing:
            raise InputError(
                expected=f"weights of torchvision's {model} as a state dict",
                found=f"{path}, which does not fit: {missing[0]}",
                fix="Remove the file, or download it again.",
            )
        return ImageEncoder(
            network,
            name=f"torchvision:{model}",
            image_size=image_size,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            device=device,
            batch_size=32,
        )

    return build


def _clip(path: Path, image_size: int, device: str | torch.device) -> ImageEncoder:
    return load_image_encoder(f"open_clip:ViT-L-14-quickgelu/{path}", device=device)


_TORCHVISION_SOURCE = "download.pytorch.org/models"
_STANDARD = (
    _Standard(
        {"two-way AlexNet 2": "features.4", "two-way AlexNet 5": "features.11"},
        256,
        "alexnet-owt-7be5be79.pth",
        _TORCHVISION_SOURCE,
        _torchvision("alexnet"),
    ),
    _Standard(
        {"two-way Inception": "avgpool"},
        342,
        "inception_v3_google-0cc3c7bd.pth",
        _TORCHVISION_SOURCE,
        _torchvision("inception_v3", transform_input=True, init_weights=False),
    ),
    _Standard(
        {"two-way CLIP": None},
        224,
        "open_clip_model.safetensors",
        "huggingface.co/timm/vit_large_patch14_clip_224.openai",
        _clip,
    ),
    _Standard(
        {"distance EffNet-B1": "avgpool"},
        255,
        "efficientnet_b1-c27df63c.pth",
        _TORCHVISION_SOURCE,
        _torchvision("efficientnet_b1"),
        "distance",
    ),
    _Standard(
        {"distance SwAV": "avgpool"},
        224,
        "swav_800ep_pretrain.pth.tar",
        "dl.fbaipublicfiles.com/deepcluster",
        _torchvision("resnet50"),
        "distance",
    ),
)
_LPIPS_LAYERS = ("features.1", "features.4", "features.7", "features.9", "features.11")
_LPIPS = _Standard(
    {"distance LPIPS": None},
    128,
    "alexnet-owt-7be5be79.pth",
    _TORCHVISION_SOURCE,
    _torchvision("alexnet"),
    "squared distance",
)
