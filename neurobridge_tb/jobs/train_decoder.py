"""Train decoders on any pictures and the embeddings of any image encoder; here, the small diffusion model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.train_decoder import TrainDecoderConfig
from neurobridge_tb.datasets.image_binding import held_out_images
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images
from neurobridge_tb.engine.adapter_training import BACKENDS, train_adapter
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.denoising import Schedule, train_denoiser
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import CHANNELS, FACTOR, Autoencoder
from neurobridge_tb.generation.conditional_unet import ConditionalUNet, to_signed
from neurobridge_tb.generation.conditions import degrade
from neurobridge_tb.generation.small_diffusion import SmallDiffusion
from neurobridge_tb.progress import progress_bars

_IMAGE_SIZE = 64
DEFAULT_NETWORK: dict[str, Any] = {"channels": (80, 96, 96), "code_dim": 192}  # 9 MB in half precision
LATENT_NETWORK: dict[str, Any] = {"patch": 1, "channels": (128, 192), "code_dim": 192}


def train_decoder(config: TrainDecoderConfig | None = None, /, **settings: Any) -> Path:
    """Train a decoder from embeddings to pictures on a folder of images, or resume it; returns its folder.

    See :func:`train_small_diffusion` and :func:`~neurobridge_tb.engine.adapter_training.train_adapter`.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`TrainDecoderConfig`.
        **settings: Settings by name, e.g. ``images="images", embeddings="embeddings.h5", steps=2000``; see
            :func:`~neurobridge_tb.engine.config.settle`.

    Raises:
        InputError: A backend that cannot be trained, or an option that it does not have.
    """
    config = settle(TrainDecoderConfig, config, settings)
    _check_options(config)
    cache = EmbeddingCache.load(config.embeddings)
    left_out = held_out_images(config.images, config.exclude) if config.exclude is not None else set()
    ids = [image_id for image_id in find_images(config.images) if image_id not in left_out]
    stimuli = StimulusImages(config.images, ids)
    common: dict[str, Any] = {"device": config.device, "seed": config.seed}
    with progress_bars() as progress:
        if config.backend != "small_diffusion":
            train_adapter(
                config.backend,
                stimuli,
                cache,
                config.run_dir,
                Schedule(max_steps=config.steps, lr=config.lr or 1e-4),
                weights=config.weights,
                image_size=config.image_size,
                batch_size=config.batch_size or 8,
                dtype=config.dtype,
                progress=progress,
                **common,
            )
            return Path(config.run_dir)
        size = config.image_size or _IMAGE_SIZE
        train_small_diffusion(
            stimuli.load(ids, size),
            cache.lookup(ids),
            config.run_dir,
            encoder_name=cache.encoder,
            preprocessing_hash=cache.preprocessing_hash,
            max_steps=config.steps,
            lr=config.lr or 1e-3,
            batch_size=config.batch_size or 64,
            network={**DEFAULT_NETWORK, "image_size": size} if config.autoencoder is None else None,
            autoencoder=None if config.autoencoder is None else Autoencoder.load(config.autoencoder),
            bf16=config.dtype == "bfloat16",
            progress=progress,
            **common,
        )
    return Path(config.run_dir)


def _check_options(config: TrainDecoderConfig) -> None:
    wrong = ""
    if config.backend not in ("small_diffusion", *BACKENDS):
        wrong = f"backend {config.backend}"
    elif config.dtype not in ("float32", "bfloat16"):
        wrong = f"dtype {config.dtype}"
    elif config.backend == "small_diffusion" and config.weights is not None:
        wrong = "weights for small_diffusion, which starts from nothing"
    elif config.backend != "small_diffusion" and config.autoencoder is not None:
        wrong = f"an autoencoder for {config.backend}, whose Stable Diffusion has its own"
    if wrong:
        raise InputError(
            expected="the backend small_diffusion (with or without an autoencoder), or sd_adapter or ip_adapter with "
            "weights; dtype float32 or bfloat16",
            found=wrong,
            fix="Correct these options.",
        )


def train_small_diffusion(
    pictures: Tensor,
    embeddings: Tensor,
    out_dir: str | Path,
    *,
    encoder_name: str,
    preprocessing_hash: str,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    batch_size: int = 64,
    lr: float = 1e-3,
    ema: float = 0.999,
    condition_dropout: float = 0.1,
    min_reliability: float = 0.2,
    bf16: bool = False,
    seed: int = 0,
    network: dict[str, Any] | None = None,
    autoencoder: Autoencoder | None = None,
    device: str | torch.device = "cpu",
    log_every: int = 50,
    progress: Callable[[str, float, float], None] = lambda stage, done, total: None,
) -> SmallDiffusion:
    """Train a :class:`ConditionalUNet` and export its averaged weights to ``out_dir``.

    Run again with the same ``out_dir``, a training that was cut off goes on, see :func:`train_denoiser`.

    Args:
        pictures: uint8 ``(n, 3, size, size)``.
        embeddings: ``(n, E)``, those of the pictures: they condition the model.
        out_dir: Folder for ``model.safetensors`` and ``config.json``.
        encoder_name: The encoder that made the embeddings.
        preprocessing_hash: Its preprocessing.
        max_steps: See :class:`Schedule`.
        max_minutes: See :class:`Schedule`.
        batch_size: Pictures a step.
        lr: Peak learning rate of AdamW.
        ema: Decay of the weight average.
        condition_dropout: Share of items that are trained without condition.
        min_reliability: Lowest reliability of the noisy conditions, see :func:`degrade`.
        bf16: Compute in bfloat16 where that is safe; pays on processors with support for it.
        seed: Seeds initialisation, order, noise and dropout.
        network: Arguments of :class:`ConditionalUNet` besides ``embedding_dim``; default: its own for pixels,
            ``LATENT_NETWORK`` for latents.
        autoencoder: Train in the latents of this one; default: in pixels.
        device: Where to train.
        log_every: See :class:`Schedule`.
        progress: Called as ``progress(stage, done, total)``, in training at each line of the log.

    Raises:
        InputError: No limit given, no pictures, embeddings that do not fit them, or a training
            state that other settings have left.
    """
    schedule = Schedule(max_steps=max_steps, max_minutes=max_minutes, lr=lr, ema=ema, log_every=log_every)
    out_dir = Path(out_dir)
    torch.manual_seed(seed)
    if embeddings.ndim != 2 or len(embeddings) != len(pictures):
        raise InputError(
            expected=f"embeddings of shape ({len(pictures)}, E), one an image",
            found=f"shape {tuple(embeddings.shape)}",
            fix="Encode these very images.",
        )
    if network is None:
        side = pictures.shape[-1] // FACTOR
        network = {} if autoencoder is None else {**LATENT_NETWORK, "data_channels": CHANNELS, "image_size": side}
    network = {**network, "code_dim": min(network.get("code_dim", 256), embeddings.shape[1])}
    model = ConditionalUNet(embedding_dim=embeddings.shape[1], **network)
    size = model.image_size * (1 if autoencoder is None else FACTOR)
    if pictures.dtype != torch.uint8 or pictures.shape[1:] != (3, size, size) or not len(pictures):
        raise InputError(
            expected=f"uint8 images of shape (n, 3, {size}, {size})",
            found=f"{pictures.dtype} of shape {tuple(pictures.shape)}",
            fix="Resize the images first, or set the network's image_size.",
        )
    data = pictures if autoencoder is None else _encode(pictures, autoencoder, progress)
    model.fit_condition(embeddings, data)
    model.to(device).train()
    codes = model.code(embeddings.to(device)).cpu()
    settings = {
        "network": model.config,
        "encoder": encoder_name,
        "autoencoder": autoencoder and autoencoder.fingerprint,
        "images": len(pictures),
        "batch_size": batch_size,
        "lr": lr,
        "ema": ema,
        "condition_dropout": condition_dropout,
        "min_reliability": min_reliability,
        "seed": seed,
    }

    def loss(rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(data), (batch_size,), generator=rng)
        code = degrade(codes[rows], model.spread.cpu(), min_reliability, rng)
        code = code * (torch.rand(batch_size, 1, generator=rng) >= condition_dropout)
        return _velocity_loss(model, data[rows], code, rng, bf16)

    def generator() -> SmallDiffusion:
        return SmallDiffusion(
            model,
            encoder_name=encoder_name,
            preprocessing_hash=preprocessing_hash,
            autoencoder=autoencoder,
            device=device,
        )

    train_denoiser(
        model, loss, out_dir, schedule, settings=settings, seed=seed, progress=progress,
        save=lambda training: generator().save(out_dir, training=training),
    )  # fmt: skip
    return generator()


def _encode(pictures: Tensor, autoencoder: Autoencoder, progress: Callable[[str, float, float], None]) -> Tensor:
    latents: list[Tensor] = []
    for batch in pictures.split(64):
        latents.append(autoencoder.encode(batch).cpu())
        progress("Encoding images", min(64 * len(latents), len(pictures)), len(pictures))
    return torch.cat(latents)


def _velocity_loss(model: ConditionalUNet, pictures: Tensor, code: Tensor, rng: torch.Generator, bf16: bool) -> Tensor:
    """Squared velocity error at random steps, relative to the best linear guess's."""
    device = model.signal.device
    clean = to_signed(pictures).to(device)
    noise = torch.randn(clean.shape, generator=rng).to(device)
    step = torch.randint(len(model.signal), (len(clean),), generator=rng).to(device)
    signal = model.signal[step].view(-1, 1, 1, 1)
    spread = (1 - signal**2).sqrt()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        velocity = model(noisy=signal * clean + spread * noise, step=step, code=code.to(device))
    error = velocity - (signal * noise - spread * clean)
    return (error.square().mean((1, 2, 3)) / model.difficulty(step)).mean()
