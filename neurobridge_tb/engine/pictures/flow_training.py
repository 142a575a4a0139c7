"""Train a flow decoder: first its autoencoder on pictures, then its network in the latents."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from neurobridge_tb.alignment.encoders import ImageEncoder
from neurobridge_tb.alignment.layers import on_places
from neurobridge_tb.engine.pictures.step_training import Progress, RandomRows, Schedule, train_steps
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import FACTOR, Autoencoder
from neurobridge_tb.generation.conditions import RandomObserver
from neurobridge_tb.generation.flow import FlowDecoder, FlowModel
from neurobridge_tb.generation.folders import check_decoder_folder

Batches = Callable[[int], Dataset]

AUTOENCODER_BATCH, FLOW_BATCH = 16, 64  # pictures a step
_PERCEPTUAL_WEIGHT = 0.15
_LATENT_NOISE = 0.2  # largest, in deviations; the decoder must forgive what the flow gets wrong


class StoredPictures(Dataset):
    """Random batches of pictures in memory, with their codes.

    Args:
        pictures: uint8 ``(n, 3, H, W)``.
        codes: ``(n, K)``.
        batch_size: Pictures a batch.
        seed: Seeds the draw.
    """

    def __init__(self, pictures: Tensor, codes: Tensor, batch_size: int, seed: int):
        self.pictures, self.codes, self.rows = pictures, codes, RandomRows(len(pictures), batch_size, seed)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rows = self.rows[step]
        return {"pictures": self.pictures[rows], "codes": self.codes[rows]}


def train_flow(
    model: FlowModel,
    batches: Batches,
    encoder: ImageEncoder,
    out_dir: str | Path,
    *,
    autoencoder_steps: int,
    flow_steps: int,
    information: Tensor,
    autoencoder_batch: int = AUTOENCODER_BATCH,
    flow_batch: int = FLOW_BATCH,
    lr: float = 1e-3,
    log_every: int = 50,
    checkpoint_every: int = 500,
    settings: dict[str, Any] | None = None,
    described: dict[str, Any] | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    workers: int = 0,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> FlowDecoder:
    """Train and write a decoder to ``out_dir``; a run that was cut off goes on, see :func:`train_steps`.

    Args:
        model: Fresh, or to go on from; its codes are fitted.
        batches: Makes the source of batches of a size: item k holds the ``pictures`` of step k, uint8 (B, 3, H, W),
            and, where they are known, their ``codes`` (B, K); else the encoder makes them.
        encoder: The encoder of the features; it also says how alike two pictures are.
        out_dir: Folder to write; the training state lies beside it until then.
        autoencoder_steps: 0 keeps the autoencoder as it is.
        flow_steps: Steps of the network.
        information: ``(A, K, K)``: what readers of activity know of the codes, at a usual level of noise.
        autoencoder_batch: Pictures a step of the autoencoder.
        flow_batch: Pictures a step of the network.
        lr: Peak learning rate of both.
        log_every: Steps between lines of the loss curves.
        checkpoint_every: Steps between checkpoints.
        settings: More that a training state must share to be resumed, e.g. the number of images.
        described: What ``config.json`` tells of the training besides.
        device: Where to train.
        dtype: ``"float32"`` or ``"bfloat16"``.
        workers: Processes that make batches.
        seed: Seeds batches, noise and conditions.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        InputError: Pictures whose size does not fit the network, a folder that is not a decoder's, or as for
            :func:`train_steps`.
    """
    out_dir = Path(out_dir)
    check_decoder_folder(out_dir)
    work = out_dir.parent / f"{out_dir.name}.training"
    first = batches(256)[0]["pictures"]
    side = model.network.grid * FACTOR
    if first.dtype != torch.uint8 or tuple(first.shape[1:]) != (3, side, side):
        raise InputError(
            expected=f"uint8 pictures (n, 3, {side}, {side})",
            found=f"{first.dtype} of shape {tuple(first.shape)}",
            fix="Resize the images, or set the network's grid to an eighth of their side.",
        )
    model.to(device)
    common: dict[str, Any] = {"seed": seed, "device": device, "dtype": dtype, "workers": workers, "progress": progress}
    noted = {**model.config, **(settings or {}), "encoder": encoder.name, "lr": lr}
    pace: dict[str, Any] = {"lr": lr, "log_every": log_every, "checkpoint_every": checkpoint_every}
    notes = {}
    if autoencoder_steps:
        model.autoencoder.requires_grad_(True)
        similarity = PerceptualDistance(encoder, list(model.codes.layers), first)
        notes["autoencoder"] = train_steps(
            model.autoencoder,
            lambda batch, rng: _autoencoder_loss(model.autoencoder, similarity, batch["pictures"].to(device), rng),
            batches(autoencoder_batch),
            work / "autoencoder",
            Schedule(autoencoder_steps, **pace),
            settings={**noted, "batch_size": autoencoder_batch},
            name="Autoencoder",
            **common,
        )
        model.autoencoder.fit_scale(first.to(device))
    model.autoencoder.requires_grad_(False)
    observer = RandomObserver(information, device)

    def loss(batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        pictures = batch["pictures"].to(device)
        codes = batch["codes"].to(device) if "codes" in batch else _codes(model, encoder, pictures)
        return _flow_loss(model, pictures, *observer(codes, rng), rng)

    notes["flow"] = train_steps(
        model.network, loss, batches(flow_batch), work / "flow", Schedule(flow_steps, ema=0.9995, **pace),
        settings={**noted, "batch_size": flow_batch}, name="Flow", **common,
    )  # fmt: skip
    decoder = FlowDecoder(
        model, encoder_name=encoder.name, preprocessing_hash=encoder.preprocessing_hash, device=device
    )
    decoder.save(out_dir, training={**notes, **noted, **(described or {}), "seed": seed})
    shutil.copyfile(work / "flow" / "loss.csv", out_dir / "loss.csv")
    shutil.rmtree(work, ignore_errors=True)
    return decoder


class PerceptualDistance:
    """Mean absolute difference of an encoder's maps, each channel in its own deviations (Johnson et al. 2016).

    Args:
        encoder: The encoder.
        layers: Layers to compare, as in a cache; those without a map are left out.
        pictures: uint8 ``(n, 3, H, W)`` that set the deviations.
    """

    def __init__(self, encoder: ImageEncoder, layers: list[str], pictures: Tensor):
        self.encoder = encoder
        modules = list(dict.fromkeys(layer.module for layer in encoder.layers(layers)))
        with torch.no_grad():
            outputs = encoder.maps(pictures.to(encoder.device).float(), modules)
        maps = {module: values for module, values in outputs.items() if values.ndim == 4}
        self.deviation = {m: values.std((0, 2, 3), keepdim=True).clamp_min(1e-3) for m, values in maps.items()}

    def __call__(self, made: Tensor, seen: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [0, 255]; gradients go to ``made`` alone."""
        modules = list(self.deviation)
        with torch.no_grad():
            wanted = self.encoder.maps(seen, modules)
        found = self.encoder.maps(made, modules)
        parts = [((found[m] - wanted[m]) / self.deviation[m]).abs().mean() for m in modules]
        return torch.stack(parts).mean() if parts else made.new_zeros(())


def _autoencoder_loss(
    model: Autoencoder, similarity: PerceptualDistance, pictures: Tensor, rng: torch.Generator
) -> Tensor:
    seen = pictures.float()
    latents = model.encode(seen)
    level = _LATENT_NOISE * torch.rand(len(seen), 1, 1, 1, generator=rng).to(latents)
    noise = torch.randn(latents.shape, generator=rng).to(latents)
    spread = latents.detach().std((0, 2, 3), keepdim=True)
    made = model.decode(latents + level * spread * noise).float()
    return (made - seen).abs().mean() / 127.5 + _PERCEPTUAL_WEIGHT * similarity(made, seen)


def _flow_loss(
    model: FlowModel, pictures: Tensor, condition: Tensor, reliability: Tensor, rng: torch.Generator
) -> Tensor:
    """Squared error of the velocity; early times, which settle what is drawn, are drawn more often."""
    with torch.no_grad():
        latents = model.autoencoder.encode(pictures.float())
    size = len(latents)
    time = torch.sigmoid(torch.randn(size, generator=rng) - 0.5)
    time = torch.where(torch.rand(size, generator=rng) < 0.1, 0.0, time).to(latents)
    noise = torch.randn(latents.shape, generator=rng).to(latents)
    at = time.view(-1, 1, 1, 1)
    clean = model.network(
        noisy=(1 - at) * noise + at * latents, time=time, condition=condition, reliability=reliability
    )
    error = (clean.float() - latents).square().mean((1, 2, 3))
    return (error / (1 - time).clamp_min(0.15).square()).mean()


@torch.no_grad()
def _codes(model: FlowModel, encoder: ImageEncoder, pictures: Tensor) -> Tensor:
    layers = encoder.layers(list(model.codes.layers))
    outputs = encoder.maps(pictures.float(), [layer.module for layer in layers])
    return model.codes(torch.cat([on_places(outputs, layer) for layer in layers], 1))
