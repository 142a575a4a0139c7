"""A small transformer that turns noise into the latents of a picture, given what is known of an image's features.

Flow matching (Lipman et al. 2023; Liu et al. 2023) along straight lines ``x_t = (1 - t) noise + t latents``. The
network predicts the clean latents, not the velocity: at t = 0, where the input holds nothing but noise, its output is
the mean of all pictures that fit the condition, and a sample departs from there in a few steps.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FlowNetwork(nn.Module):
    """Clean latents from noisy ones; a token a latent position.

    The condition enters twice: laid out on the grid of positions, and as a modulation of all blocks (Peebles & Xie
    2023) together with the time and with how far the condition can be trusted.

    Args:
        condition_dim: Size K of the condition.
        latent_channels: Channels C of the latents.
        grid: Latent positions G on a side.
        dim: Width; a multiple of ``heads``.
        depth: Blocks.
        heads: Attention heads.
        layout_dim: Channels of the condition laid out on the grid.
    """

    def __init__(
        self,
        *,
        condition_dim: int,
        latent_channels: int = 16,
        grid: int = 8,
        dim: int = 288,
        depth: int = 8,
        heads: int = 9,
        layout_dim: int = 24,
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "condition_dim": condition_dim,
            "latent_channels": latent_channels,
            "grid": grid,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "layout_dim": layout_dim,
        }
        self.latent_channels, self.grid = latent_channels, grid
        self.patch_in = nn.Linear(latent_channels, dim)
        self.position = nn.Parameter(torch.randn(grid * grid, dim) * 0.02)
        self.layout = nn.Linear(condition_dim, grid * grid * layout_dim)
        self.layout_in = nn.Linear(layout_dim, dim)
        self.trust = nn.Linear(condition_dim, dim)
        self.content = nn.Sequential(nn.Linear(condition_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time = nn.Sequential(nn.Linear(_TIME_DIM, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.modulation = nn.Sequential(nn.SiLU(), _zero_linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(_Block(dim, heads, grid) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.final_modulation = _zero_linear(dim, 2 * dim)
        self.patch_out = _zero_linear(dim, latent_channels)

    def forward(self, *, noisy: Tensor, time: Tensor, condition: Tensor, reliability: Tensor) -> Tensor:
        """Predict the clean latents.

        Args:
            noisy: Noisy latents ``(B, C, G, G)``.
            time: ``(B,)``, from 0 (noise) to 1 (latents).
            condition: ``(B, K)``, the best guess of each component of the condition; deviation 1 at most.
            reliability: ``(B, K)``, the share of each component's variance that the guess explains, 0 to 1.

        Returns:
            ``(B, C, G, G)``.
        """
        known = self.content(condition) + self.trust(reliability) + self.time(_waves(time))
        layout = self.layout(condition).unflatten(1, (self.grid**2, -1))
        tokens = self.patch_in(noisy.flatten(2).transpose(1, 2)) + self.layout_in(layout) + self.position
        modulation = self.modulation(known).unflatten(1, (6, -1))
        for block in self.blocks:
            tokens = block(tokens, modulation)
        gain, bias = self.final_modulation(F.silu(known))[:, None].chunk(2, -1)
        clean = self.patch_out(self.norm(tokens) * (1 + gain) + bias)
        return clean.transpose(1, 2).unflatten(2, (self.grid, self.grid))

    @torch.no_grad()
    def sample(
        self,
        *,
        noise: Tensor,
        condition: Tensor,
        reliability: Tensor,
        steps: int,
        correct: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Latents of one picture each, by Euler steps of equal length along the flow.

        Args:
            noise: ``(B, C, G, G)``, standard normal.
            condition: As for :meth:`forward`.
            reliability: As for :meth:`forward`.
            steps: 1 gives the mean of all pictures that fit; 8 a sharp sample.
            correct: Moves the clean latents that a step heads for, after the first quarter of the way. Default: none.

        Returns:
            ``(B, C, G, G)``.
        """
        x = noise
        for step in range(steps):
            time = torch.full((len(x),), step / steps, device=x.device)
            clean = self(noisy=x, time=time, condition=condition, reliability=reliability)
            if correct is not None and step >= steps / 4:
                clean = correct(clean)
            x = x + (clean - x) / (steps - step)
        return x


_TIME_DIM = 64


def _waves(time: Tensor) -> Tensor:
    """Times ``(B,)`` as cosines and sines of geometrically spaced frequencies ``(B, 64)``."""
    half = _TIME_DIM // 2
    frequency = 100 * torch.exp(torch.arange(half, device=time.device) * (-math.log(1e3) / half))
    angle = time[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Module):
    """Attention over positions, then a feed-forward layer whose hidden channels also look at their neighbours."""

    def __init__(self, dim: int, heads: int, grid: int, expansion: int = 3):
        super().__init__()
        hidden = expansion * dim
        self.heads, self.grid = heads, grid
        self.modulation = nn.Parameter(torch.zeros(6, dim))  # beside what all blocks share
        self.attention_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.head_norm = nn.RMSNorm(dim // heads, elementwise_affine=False)
        self.qkv, self.attention_out = nn.Linear(dim, 3 * dim), _zero_linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.up, self.down = nn.Linear(dim, hidden), _zero_linear(hidden, dim)
        self.neighbours = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Tokens ``(B, G*G, D)`` and modulation ``(B, 6, D)`` to tokens."""
        gain_a, bias_a, gate_a, gain_f, bias_f, gate_f = (modulation + self.modulation)[:, :, None].unbind(1)
        x = x + (1 + gate_a) * self._attend(self.attention_norm(x) * (1 + gain_a) + bias_a)
        return x + (1 + gate_f) * self._feed(self.feed_norm(x) * (1 + gain_f) + bias_f)

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(self.head_norm(query), self.head_norm(key), value)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))

    def _feed(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        map_ = hidden.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        hidden = hidden + self.neighbours(map_).permute(0, 2, 3, 1).flatten(1, 2)
        return self.down(F.gelu(hidden, approximate="tanh"))
