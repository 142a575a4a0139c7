"""Train the small diffusion model on any pictures and the embeddings of any image encoder."""

import csv
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from neurobridge_tb._upstream import Data
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.generation.conditional_unet import ConditionalUNet, to_signed
from neurobridge_tb.generation.small_diffusion import SmallDiffusion

_IMAGE_SIZE = 64
DEFAULT_NETWORK: dict[str, Any] = {"channels": (80, 96, 96), "code_dim": 192}  # 9 MB in half precision


def train_decoder(
    images: str | Path,
    embeddings: str | Path,
    out_dir: str | Path,
    *,
    minutes: float,
    exclude: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str, float, float], None] = lambda stage, done, total: None,
) -> SmallDiffusion:
    """Train the default network on a folder of images; see :func:`train_small_diffusion`.

    Args:
        images: Folder of images.
        embeddings: File that ``neurobridge embed`` made of this folder.
        out_dir: Folder for ``model.safetensors`` and ``config.json``.
        minutes: How long to train.
        exclude: A recording (HDF5) whose test images are left out.
        seed: Seed of everything random.
        progress: Called as ``progress(stage, done, total)``.
    """
    cache = EmbeddingCache.load(embeddings)
    left_out: set[str] = set()
    if exclude is not None:
        with h5py.File(exclude) as file:
            presentations = Data.from_hdf5(file).presentations
            left_out = set(presentations.image_id[presentations.split.astype(str) == "test"].astype(str).tolist())
    ids = [image_id for image_id in find_images(images) if image_id not in left_out]
    return train_small_diffusion(
        StimulusImages(images, ids).load(ids, _IMAGE_SIZE),
        cache.lookup(ids),
        out_dir,
        encoder_name=cache.encoder,
        preprocessing_hash=cache.preprocessing_hash,
        max_minutes=minutes,
        network=DEFAULT_NETWORK,
        seed=seed,
        progress=lambda step, done, loss: progress(f"step {step}, loss {loss:.3f}", done, 1.0),
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
    device: str | torch.device = "cpu",
    log_every: int = 50,
    progress: Callable[[int, float, float], None] | None = None,
) -> SmallDiffusion:
    """Train a :class:`ConditionalUNet` and export its averaged weights to ``out_dir``.

    The training state lies in ``<out_dir>.training`` (``checkpoint.pt``, ``loss.csv``) until the
    export is written; a run that was cut off goes on from there. The loss curve ends up beside the
    weights.

    Args:
        pictures: uint8 ``(n, 3, size, size)``.
        embeddings: ``(n, E)``, those of the pictures: they condition the model.
        out_dir: Folder for ``model.safetensors`` and ``config.json``.
        encoder_name: The encoder that made the embeddings.
        preprocessing_hash: Its preprocessing.
        max_steps: Stop after this many steps ...
        max_minutes: ... or after this many minutes of training; at least one must be given. The
            learning rate rises over the first 3 % and falls to zero (cosine) towards the end.
        batch_size: Pictures a step.
        lr: Peak learning rate of AdamW.
        ema: Decay of the weight average.
        condition_dropout: Share of items that are trained without condition.
        min_reliability: Lowest reliability of the noisy conditions, see :func:`degrade`.
        bf16: Compute in bfloat16 where that is safe; pays on processors with support for it.
        seed: Seeds initialisation, order, noise and dropout.
        network: Arguments of :class:`ConditionalUNet` besides ``embedding_dim``.
        device: Where to train.
        log_every: Steps between lines of ``loss.csv``; a checkpoint is written every tenth line.
        progress: Called as ``progress(step, share_done, loss)`` at each line.

    Raises:
        InputError: No limit given, no pictures, embeddings that do not fit them, or a training
            state that other settings have left.
    """
    if max_steps is None and max_minutes is None:
        raise InputError(
            expected="max_steps or max_minutes",
            found="neither",
            fix="Say how long to train, e.g. max_minutes=30.",
        )
    out_dir = Path(out_dir)
    work = out_dir.parent / f"{out_dir.name}.training"
    torch.manual_seed(seed)
    if embeddings.ndim != 2 or len(embeddings) != len(pictures):
        raise InputError(
            expected=f"embeddings of shape ({len(pictures)}, E), one an image",
            found=f"shape {tuple(embeddings.shape)}",
            fix="Encode these very images.",
        )
    model = ConditionalUNet(embedding_dim=embeddings.shape[1], **(network or {}))
    size = model.image_size
    if pictures.dtype != torch.uint8 or pictures.shape[1:] != (3, size, size) or not len(pictures):
        raise InputError(
            expected=f"uint8 images of shape (n, 3, {size}, {size})",
            found=f"{pictures.dtype} of shape {tuple(pictures.shape)}",
            fix="Resize the images first, or set the network's image_size.",
        )
    model.fit_condition(embeddings, pictures)
    model.to(device).train()
    codes = model.code(embeddings.to(device)).cpu()
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.99))
    settings = {
        "network": model.config,
        "encoder": encoder_name,
        "images": len(pictures),
        "batch_size": batch_size,
        "lr": lr,
        "ema": ema,
        "condition_dropout": condition_dropout,
        "min_reliability": min_reliability,
        "seed": seed,
    }
    history = _resume(work, settings, model, optimizer, averaged)
    step, elapsed = (history[-1][0], history[-1][1]) if history else (0, 0.0)
    began = time.monotonic() - elapsed
    losses: list[float] = []
    while True:
        elapsed = time.monotonic() - began
        done = max(step / max_steps if max_steps else 0, elapsed / 60 / (max_minutes or math.inf))
        if losses and step % log_every == 0:
            history.append((step, elapsed, sum(losses) / len(losses)))
            losses.clear()
            _write_log(work / "loss.csv", history)
            if progress is not None:
                progress(step, done, history[-1][2])
            if step % (10 * log_every) == 0:
                _checkpoint(work, settings, model, optimizer, averaged, history)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, 0.03 + done / 0.03) * 0.5 * (1 + math.cos(math.pi * done))
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(len(pictures), (batch_size,), generator=rng)
        code = degrade(codes[rows], model.spread.cpu(), min_reliability, rng)
        code = code * (torch.rand(batch_size, 1, generator=rng) >= condition_dropout)
        loss = _velocity_loss(model, pictures[rows], code, rng, bf16)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        _average(averaged, model.state_dict(), min(ema, (1 + step) / (10 + step)))
        losses.append(loss.item())
    model.load_state_dict(averaged)
    generator = SmallDiffusion(
        model,
        encoder_name=encoder_name,
        preprocessing_hash=preprocessing_hash,
        device=device,
    )
    generator.save(out_dir, training={**settings, "steps": step, "minutes": round(elapsed / 60, 1)})
    _write_log(out_dir / "loss.csv", history)
    shutil.rmtree(work, ignore_errors=True)
    return generator


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


def degrade(codes: Tensor, spread: Tensor, minimum: float, rng: torch.Generator) -> Tensor:
    """Replace half of the codes by what a calibrated regression of that reliability would predict.

    A prediction that explains a share ``a`` of a component's variance is shrunken by ``a`` and
    carries noise of variance ``a (1 - a)``, so that it is itself the best guess of the truth. ``a``
    is drawn for each item from [minimum, 1].

    Args:
        codes: ``(B, K)``.
        spread: Standard deviation ``(K,)`` of each component over the training set.
        minimum: Lowest reliability.
        rng: Draws the noise.

    Returns:
        A new tensor ``(B, K)``.
    """
    a = minimum + (1 - minimum) * torch.rand(len(codes), 1, generator=rng)
    a = torch.where(torch.rand(len(codes), 1, generator=rng) < 0.5, a, torch.ones_like(a))
    noise = torch.randn(codes.shape, generator=rng) * spread
    return a * codes + (a * (1 - a)).sqrt() * noise


@torch.no_grad()
def _average(averaged: dict[str, Tensor], state: dict[str, Tensor], decay: float) -> None:
    names = [name for name, value in averaged.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[n] for n in names], [state[n] for n in names], 1 - decay)


def _write_log(path: Path, history: list[tuple[int, float, float]]) -> None:
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "minutes", "train/loss"])
        writer.writerows((step, f"{seconds / 60:.2f}", f"{loss:.6f}") for step, seconds, loss in history)


def _checkpoint(
    work: Path,
    settings: dict[str, Any],
    model: ConditionalUNet,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    history: list[tuple[int, float, float]],
) -> None:
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "averaged": averaged,
        "history": history,
    }
    with write_aside(work / "checkpoint.pt") as aside:
        torch.save(state, aside)


def _resume(
    work: Path,
    settings: dict[str, Any],
    model: ConditionalUNet,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
) -> list[tuple[int, float, float]]:
    """Load the training state, if there is one; returns steps, seconds and losses so far."""
    path = work / "checkpoint.pt"
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != settings:
        raise InputError(
            expected=f"a training state of these settings: {settings}",
            found=f"{state['settings']} in {path}",
            fix=f"Delete {work} to start anew, or use its settings.",
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["averaged"].items():
        averaged[name].copy_(value)
    return state["history"]
