"""A small image autoencoder, in whose latents the small diffusion model can draw.

The layers are those of TAEF2 (github.com/madebyollin/taesd, MIT): a distilled image autoencoder with 32 channels at an
eighth of the side. Its weights are not part of this package; :meth:`Autoencoder.load` reads them from a folder.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from neurobridge_tb.errors import InputError

FACTOR = 8  # pixels a latent position
CHANNELS = 32
BOUND = 4.0  # scaled latents lie in [-BOUND, BOUND]
_SCALE = 2.0  # raw latents have a standard deviation near one, pictures in [-1, 1] near one half
_FILES = ("taef2_encoder.safetensors", "taef2_decoder.safetensors")
_WIDTH = 64


class _Block(nn.Module):
    """Three convolutions beside the identity; ``pool`` adds statistics of the whole picture first."""

    def __init__(self, *, pool: bool = False):
        super().__init__()
        w = _WIDTH
        self.conv = nn.Sequential(_conv(w, w), nn.ReLU(), _conv(w, w), nn.ReLU(), _conv(w, w))
        self.pool = None
        if pool:
            narrow, wide = nn.Conv2d(w, 4 * w, 1, bias=False), nn.Conv2d(4 * w, w, 1, bias=False)
            self.pool = nn.Sequential(narrow, nn.GroupNorm(4, 4 * w), nn.ReLU(), wide)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(x + self.conv(x))


class _SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, _WIDTH), _Block()]
    for pool in (False, False, True):
        layers += [_conv(_WIDTH, _WIDTH, stride=2, bias=False), *(_Block(pool=pool) for _ in range(3))]
    return nn.Sequential(*layers, _conv(_WIDTH, CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_SoftClamp(), _conv(CHANNELS, _WIDTH), nn.ReLU()]
    for pool, blocks in ((True, 3), (False, 3), (False, 3)):
        layers += [*(_Block(pool=pool) for _ in range(blocks)), nn.Upsample(scale_factor=2)]
        layers += [_conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(), _conv(_WIDTH, 3))


class Autoencoder(nn.Module):
    """Pictures to latents and back; frozen.

    Attributes:
        folder: Where its weights were read.
        fingerprint: SHA-256 of its weights, so that a model trained in its latents finds the same one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(), _decoder()
        self.folder, self.fingerprint = Path(), ""
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 pictures ``(B, 3, H, W)``, H and W multiples of 8, to scaled latents ``(B, 32, H/8, W/8)``."""
        return (self.encoder(images.to(self._device).float() / 255) / _SCALE).clamp(-BOUND, BOUND)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents ``(B, 32, h, w)`` to pictures ``(B, 3, 8h, 8w)`` in [0, 255]; lets gradients through."""
        return self.decoder(latents.to(self._device) * _SCALE).clamp(0, 1) * 255

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @classmethod
    def load(cls, folder: str | Path) -> "Autoencoder":
        """Read ``taef2_encoder.safetensors`` and ``taef2_decoder.safetensors`` of a folder.

        Raises:
            InputError: A file is missing, or holds other layers.
        """
        from safetensors.torch import load_file

        model, digest = cls(), hashlib.sha256()
        try:
            for half, name in zip((model.encoder, model.decoder), _FILES, strict=True):
                state = load_file(Path(folder) / name)
                half.load_state_dict({key: value.float() for key, value in state.items()})
                digest.update((Path(folder) / name).read_bytes())
        except Exception as error:  # safetensors and torch each raise their own kinds
            raise InputError(
                expected=f"an autoencoder: {_FILES[0]} and {_FILES[1]}",
                found=f"{folder}: {str(error)[:200]}",
                fix="Name the folder that holds both files, as published with TAEF2 (github.com/madebyollin/taesd).",
            ) from error
        model.folder, model.fingerprint = Path(folder).resolve(), digest.hexdigest()[:16]
        return model
