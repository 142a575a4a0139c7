"""Train an adapter from image embeddings to a frozen Stable Diffusion, on images alone, with the denoising loss."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.engine.pictures.step_training import RandomRows, Schedule, contents_of, train_steps
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import to_signed
from neurobridge_tb.generation.conditions import degrade, whitening
from neurobridge_tb.generation.ip_adapter import adapter_modules, attach, fresh_state, save_adapter
from neurobridge_tb.generation.sd_adapter import SdAdapter
from neurobridge_tb.generation.stable_diffusion import StableDiffusion
from neurobridge_tb.generation.token_adapter import TokenAdapter

BACKENDS = ("sd_adapter", "ip_adapter")


def train_adapter(
    backend: str,
    images: StimulusImages,
    cache: EmbeddingCache,
    out_dir: str | Path,
    schedule: Schedule,
    *,
    weights: str | None,
    image_size: int | None = None,
    batch_size: int = 8,
    condition_dropout: float = 0.1,
    min_reliability: float = 0.2,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: Callable[[str, float, float], None] = lambda stage, done, total: None,
) -> None:
    """Train an adapter and write it to ``out_dir``; a run that was cut off goes on, see :func:`train_steps`.

    Args:
        backend: ``"sd_adapter"``: tokens in the place of a prompt's; ``"ip_adapter"``: attention of its own beside an
            empty prompt's, in diffusers' file format.
        images: What to learn from: all of its images.
        cache: Their embeddings.
        out_dir: Folder to write.
        schedule: How long and how fast.
        weights: Hub id or local folder of Stable Diffusion.
        image_size: Side of the pictures in pixels; default: the model's own.
        batch_size: Pictures a step.
        condition_dropout: Share of items for which ``ip_adapter`` gets a zero embedding, from which guidance leads
            away. ``sd_adapter`` needs none: Stable Diffusion knows the empty prompt.
        min_reliability: Lowest reliability of the noisy conditions, see :func:`degrade`.
        dtype: Of the frozen model and of the computation; the adapter itself is float32.
        device: Where to train.
        seed: Seeds initialisation, order, noise and dropout.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        InputError: An unknown backend, images without embedding, or weights that cannot be had.
    """
    if backend not in BACKENDS:
        raise InputError(
            expected=f"an adapter among {', '.join(BACKENDS)}", found=repr(backend), fix="Correct the backend."
        )
    embeddings = cache.lookup(images.ids)
    torch.manual_seed(seed)
    diffusion = StableDiffusion(weights, dtype=dtype, device=device, image_size=image_size)
    empty = diffusion.empty_prompt()
    mean, axes, spread = whitening(embeddings)
    scale = float(spread.square().mean().sqrt().clamp(min=1e-6))
    image_files = sorted(images.fingerprints())
    settings = {
        "backend": backend,
        "stable_diffusion": diffusion.weights,
        "encoder": cache.encoder,
        "images": len(images),
        "contents": contents_of(image_files, embeddings),
        "image_size": diffusion.image_size,
        "batch_size": batch_size,
        "lr": schedule.lr,
        "ema": schedule.ema,
        "condition_dropout": condition_dropout,
        "min_reliability": min_reliability,
        "seed": seed,
    }
    made_by = {"encoder": cache.encoder, "preprocessing_hash": cache.preprocessing_hash}

    model: nn.Module
    if backend == "sd_adapter":
        adapter = TokenAdapter(embedding_dim=cache.dim, tokens=empty.shape[1], token_dim=empty.shape[2])
        adapter.fit(embeddings, empty[0].float().cpu())
        model = adapter.to(device)

        def condition(known: Tensor, keep: Tensor) -> dict[str, Any]:
            return {"encoder_hidden_states": adapter(known)}

        def save(training: dict[str, Any]) -> None:
            generator = SdAdapter(
                adapter, diffusion, encoder_name=cache.encoder, preprocessing_hash=cache.preprocessing_hash
            )
            generator.save(out_dir, training=training)
    else:
        attach(diffusion, fresh_state(diffusion, cache.dim))
        parts = adapter_modules(diffusion.unet).float().requires_grad_(True)
        model, centre = parts, mean.to(device)

        def condition(known: Tensor, keep: Tensor) -> dict[str, Any]:
            scaled = (known * keep - centre) / scale
            return {
                "encoder_hidden_states": empty.expand(len(known), -1, -1),
                "added_cond_kwargs": {"image_embeds": [scaled[:, None]]},
            }

        def save(training: dict[str, Any]) -> None:
            config = {"stable_diffusion": diffusion.weights, **made_by, "training": training}
            save_adapter(out_dir, parts, mean, scale, config)

    latents = _encode(images, diffusion, progress)

    def loss(rows: Tensor, rng: torch.Generator) -> Tensor:
        codes = degrade((embeddings[rows] - mean) @ axes, spread, min_reliability, rng)
        keep = (torch.rand(batch_size, 1, generator=rng) >= condition_dropout).float()
        known = (mean + codes @ axes.T).to(device)
        return _denoising_loss(diffusion, latents[rows], condition(known, keep.to(device)), rng)

    work = Path(out_dir).parent / f"{Path(out_dir).name}.training"
    notes = train_steps(
        model, loss, RandomRows(len(latents), batch_size, seed), work, schedule, settings=settings, seed=seed,
        device=device, dtype=dtype, progress=progress,
    )  # fmt: skip
    save({**settings, **notes, "image_files": image_files})
    shutil.copyfile(work / "loss.csv", Path(out_dir) / "loss.csv")
    shutil.rmtree(work, ignore_errors=True)


@torch.no_grad()
def _encode(
    images: StimulusImages, diffusion: StableDiffusion, progress: Callable[[str, float, float], None]
) -> Tensor:
    """Latents of all images, half precision, on the CPU: 32 KB an image of 512 px."""
    vae, parts = diffusion.pipeline.vae, []
    batches: Sequence[int] = range(0, len(images), diffusion.batch_size)
    for first in batches:
        pictures = images.load(images.ids[first : first + diffusion.batch_size], diffusion.image_size)
        signed = to_signed(pictures).to(diffusion.device, vae.dtype)
        parts.append((vae.encode(signed).latent_dist.mean * vae.config.scaling_factor).half().cpu())
        progress("Encoding images", first + len(pictures), len(images))
    return torch.cat(parts)


def _denoising_loss(
    diffusion: StableDiffusion, latents: Tensor, condition: dict[str, Any], rng: torch.Generator
) -> Tensor:
    """Squared error of what the frozen network predicts (noise or velocity) at random steps."""
    scheduler, device = diffusion.pipeline.scheduler, diffusion.device
    clean = latents.float()
    noise = torch.randn(clean.shape, generator=rng)
    steps = torch.randint(scheduler.config.num_train_timesteps, (len(clean),), generator=rng)
    noisy = scheduler.add_noise(clean, noise, steps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(clean, noise, steps) if velocity else noise
    found = diffusion.unet(noisy.to(device, diffusion.pipeline.dtype), steps.to(device), **condition).sample
    return F.mse_loss(found.float(), target.to(device))
