"""A convolutional image autoencoder: pictures to latents at an eighth of their side, and back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FACTOR = 8  # pixels a latent position, on a side
_GROUPS = 8


class Autoencoder(nn.Module):
    """Encoder and decoder; latents are scaled to mean 0 and deviation 1 by :meth:`fit_scale`.

    Args:
        latent_channels: Channels C of the latents.
        encoder_channels: At a half, a quarter and an eighth of the side; multiples of 8.
        decoder_channels: At the full side, a half, a quarter and an eighth of it; multiples of 8.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        latent_channels: int = 16,
        encoder_channels: Sequence[int] = (48, 96, 128),
        decoder_channels: Sequence[int] = (32, 64, 112, 160),
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_channels": latent_channels,
            "encoder_channels": list(encoder_channels),
            "decoder_channels": list(decoder_channels),
        }
        self.encoder = _encoder(latent_channels, encoder_channels)
        self.decoder = _decoder(latent_channels, decoder_channels)
        self.register_buffer("shift", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(latent_channels, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [0, 255], H and W multiples of 8, to latents ``(B, C, H/8, W/8)``."""
        return (self.encoder(to_signed(pictures)) - self.shift) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, C, h, w)`` to pictures ``(B, 3, 8h, 8w)``, float; values may leave [0, 255] a little."""
        return (self.decoder(latents * self.scale + self.shift) + 1) * 127.5

    @torch.no_grad()
    def fit_scale(self, pictures: Tensor) -> None:
        """Give the latents of these pictures mean 0 and deviation 1 in each channel.

        Args:
            pictures: ``(n, 3, H, W)``, values in [0, 255].
        """
        raw = torch.cat([self.encoder(to_signed(batch)) for batch in pictures.split(256)])
        self.shift.copy_(raw.mean((0, 2, 3)).view(-1, 1, 1))
        self.scale.copy_(raw.std((0, 2, 3)).clamp_min(1e-6).view(-1, 1, 1))


def to_signed(pictures: Tensor) -> Tensor:
    """Pictures in [0, 255] of any type as float in [-1, 1]."""
    return pictures.float() / 127.5 - 1


class _Residual(nn.Sequential):
    """Two convolutions beside the identity, at which the block starts."""

    def __init__(self, channels: int):
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        super().__init__(
            nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(_GROUPS, channels), nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Upsample(nn.Module):
    """A convolution whose channels are laid out as 2 x 2 blocks of pixels (Shi et al. 2016)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def _output(channels: int, outputs: int) -> list[nn.Module]:
    return [nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, outputs, 3, padding=1)]


def _encoder(latent_channels: int, channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, *channels), channels, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), _Residual(outputs)]
    return nn.Sequential(*layers, *_output(channels[-1], latent_channels))


def _decoder(latent_channels: int, channels: Sequence[int]) -> nn.Sequential:
    coarse_first = channels[::-1]
    layers: list[nn.Module] = [nn.Conv2d(latent_channels, coarse_first[0], 3, padding=1)]
    for inputs, outputs in zip(coarse_first, coarse_first[1:], strict=False):
        layers += [_Residual(inputs), _Residual(inputs), _Upsample(inputs, outputs)]
    return nn.Sequential(*layers, _Residual(channels[0]), *_output(channels[0], 3))
