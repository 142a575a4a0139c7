"""A small U-Net that removes noise from pictures or latents, told by an image embedding what they show.

The embedding is reduced to its main components (the *code*; zeros mean "nothing known"), which enter
as a class embedding, as a few cross-attention tokens, and as a *layout*: a linear read-out of a
blurred picture, fitted before training. Blocks of pixels are folded into channels, turned onto the
principal axes of what the layout leaves open, so that the network runs on a coarse grid and most
channels carry little. Each channel is scaled to unit variance at every noise level and starts at the
best linear guess: the preconditioning of Karras et al. 2022, around a mean and one axis at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.errors import require
from neurobridge_tb.vision_imports import prepare_torchvision


class ConditionalUNet(nn.Module):
    """Velocity prediction (Salimans & Ho 2022) for pictures in [-1, 1] or latents, given an image embedding.

    Args:
        embedding_dim: Size E of the image embedding.
        data_channels: Channels C of what is denoised: 3 for pictures, more for the latents of an autoencoder.
        image_size: Its side, in pixels or latent positions; a multiple of ``patch * 2**(levels - 1)``.
        patch: Side of the pixel blocks that are folded into channels.
        channels: Channels of each level; multiples of 32.
        layers: Residual blocks a level.
        code_dim: Number K of main components of the embedding that are used.
        tokens: Cross-attention tokens.
        token_dim: Size of a token.
    """

    mean: Tensor
    components: Tensor
    spread: Tensor
    layout_weight: Tensor
    layout_bias: Tensor
    axes: Tensor
    residual: Tensor
    signal: Tensor

    def __init__(
        self,
        *,
        embedding_dim: int,
        data_channels: int = 3,
        image_size: int = 64,
        patch: int = 4,
        channels: Sequence[int] = (64, 96, 128),
        layers: int = 1,
        code_dim: int = 256,
        tokens: int = 4,
        token_dim: int = 128,
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "data_channels": data_channels,
            "image_size": image_size,
            "patch": patch,
            "channels": list(channels),
            "layers": layers,
            "code_dim": code_dim,
            "tokens": tokens,
            "token_dim": token_dim,
        }
        self.data_channels, self.image_size, self.patch, self.tokens = data_channels, image_size, patch, tokens
        self.side = image_size // patch
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("components", torch.zeros(embedding_dim, code_dim))
        self.register_buffer("spread", torch.ones(code_dim))
        self.to_tokens = nn.Linear(code_dim, tokens * token_dim)
        self.register_buffer("layout_weight", torch.zeros(data_channels * self.side**2, code_dim))
        self.register_buffer("layout_bias", torch.zeros(data_channels * self.side**2))
        self.register_buffer("axes", torch.eye(data_channels * patch**2))
        self.register_buffer("residual", torch.full((data_channels * patch**2,), 0.5))
        self.register_buffer("signal", noise_schedule().alphas_cumprod.sqrt(), persistent=False)
        prepare_torchvision()
        plain = len(channels) - 1
        self.unet = require("diffusers", extra="vision").UNet2DConditionModel(
            sample_size=self.side,
            in_channels=data_channels * (patch**2 + 1),
            out_channels=data_channels * patch**2,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
            cross_attention_dim=token_dim,
            attention_head_dim=32,
            norm_num_groups=16,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=code_dim,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    @torch.no_grad()
    def fit_condition(self, embeddings: Tensor, images: Tensor, penalty: float = 1e-2) -> None:
        """Fit the code, the layout (ridge regression) and the axes of the rest to training data.

        Args:
            embeddings: Training embeddings ``(n, E)``, any scale.
            images: Their pictures ``(n, 3, size, size)``, uint8, or their latents ``(n, C, size, size)``.
            penalty: Ridge penalty, relative to the codes' mean variance.
        """
        self.mean.copy_(embeddings.mean(0))
        centred = (embeddings - self.mean).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        code_dim = self.components.shape[1]
        axes, variances = axes[:, -code_dim:].flip(1), variances[-code_dim:].flip(0).clamp(min=0)
        scale = variances.mean().sqrt()
        self.components.copy_(axes / scale)
        self.spread.copy_(variances.sqrt() / scale)
        codes = self.code(embeddings)
        small = F.adaptive_avg_pool2d(images.float(), self.side).flatten(1)
        if images.dtype == torch.uint8:
            small = small / 127.5 - 1
        gram = codes.T @ codes / len(codes) + penalty * torch.eye(code_dim)
        self.layout_bias.copy_(small.mean(0))
        cross = codes.T @ (small - self.layout_bias) / len(codes)
        self.layout_weight.copy_(torch.linalg.solve(gram, cross).T)
        some = slice(None, None, max(1, len(codes) // 1000))
        left = self._fold(to_signed(images[some])) - self._fold(self._enlarge(self.layout(codes[some])))
        variances, axes = torch.linalg.eigh(torch.einsum("nihw,njhw->ij", left, left) / left[:, 0].numel())
        self.axes.copy_(axes.T)
        self.residual.copy_(variances.clamp(min=1e-6).sqrt())

    def code(self, embeddings: Tensor) -> Tensor:
        """Main components ``(B, K)`` of embeddings ``(B, E)``; variance about one on average."""
        return (embeddings - self.mean) @ self.components

    def layout(self, code: Tensor) -> Tensor:
        """Blurred pictures ``(B, C, size/patch, size/patch)`` read out of codes ``(B, K)``."""
        flat = F.linear(code, self.layout_weight, self.layout_bias).float()
        return flat.unflatten(1, (self.data_channels, self.side, self.side))

    def difficulty(self, step: Tensor) -> Tensor:
        """Mean squared error ``(B,)`` of the best linear guess of the velocity at each step."""
        signal, total = self._levels(step)
        return (self.residual.view(-1, 1, 1) / total).square().mean((1, 2, 3))

    def covary(self, pictures: Tensor, step: Tensor) -> Tensor:
        """Pictures ``(B, C, size, size)`` times the covariance, given a noisy picture, of a Gaussian's clean ones.

        The Gaussian is that of :meth:`difficulty`: what the layout leaves open has the variance of its axis.
        """
        signal, total = self._levels(step.reshape(1))
        left = self.residual.view(-1, 1, 1)
        return self._unfold(left**2 * (1 - signal**2) / total**2 * self._fold(pictures))

    def _levels(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the picture in a noisy one, and the standard deviation of each channel."""
        signal = self.signal[step].view(-1, 1, 1, 1)
        return signal, (signal**2 * self.residual.view(-1, 1, 1) ** 2 + 1 - signal**2).sqrt()

    def _fold(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return torch.einsum("kc,bchw->bkhw", self.axes, F.pixel_unshuffle(images, self.patch))

    def _unfold(self, channels: Tensor) -> Tensor:
        with torch.autocast(channels.device.type, enabled=False):
            return F.pixel_shuffle(torch.einsum("kc,bkhw->bchw", self.axes, channels), self.patch)

    def _enlarge(self, layout: Tensor) -> Tensor:
        return F.interpolate(layout, scale_factor=self.patch, mode="bilinear")

    def forward(self, *, noisy: Tensor, step: Tensor, code: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: Noisy pictures ``(B, C, size, size)``.
            step: Diffusion step ``(B,)``, integers in [0, 1000).
            code: Codes ``(B, K)`` of the embeddings; zeros where nothing is known.

        Returns:
            Velocity ``(B, C, size, size)``.
        """
        layout = self.layout(code)
        guess = self._fold(self._enlarge(layout))
        signal, total = self._levels(step)
        deviation = self._fold(noisy) - signal * guess
        tokens = self.to_tokens(code).unflatten(1, (self.tokens, -1))
        seen = torch.cat([deviation / total, layout], 1)
        out = self.unet(seen, step, tokens, class_labels=code).sample.float()
        left = self.residual.view(-1, 1, 1)
        linear = signal * (1 - left**2) / total**2 * deviation - guess
        return self._unfold((1 - signal**2).sqrt() * linear + left / total * out)


def to_signed(images: Tensor) -> Tensor:
    """uint8 pictures to float in [-1, 1]; latents, which are float, stay as they are."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()


def to_uint8(values: Tensor) -> Tensor:
    """Pictures in [-1, 1] to uint8; values beyond are clipped."""
    return ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def noise_schedule(bound: float = 1.0):
    """1,000 cosine steps with zero terminal signal (Nichol & Dhariwal 2021; Lin et al. 2024).

    Args:
        bound: Clean data lie in [-bound, bound].
    """
    prepare_torchvision()
    return require("diffusers", extra="vision").DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=True,
        clip_sample_range=bound,
    )
