"""Training by steps on Lightning, for decoders: AdamW, averaged weights, a loss curve, exact resuming."""

import copy
import csv
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurobridge_tb.engine.checkpoint_io import RunCheckpoint, SafeCheckpointIO, latest_readable, save_whole
from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import read_json, write_aside, write_json

Progress = Callable[[str, float, float], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: Steps in all. The learning rate rises over the first 3 % and falls to zero (cosine) towards the end.
        lr: Peak learning rate of AdamW.
        ema: Decay of the weight average.
        log_every: Steps between lines of ``loss.csv``.
        checkpoint_every: Steps between checkpoints, from which a run that was cut off goes on.

    Raises:
        InputError: No step.
    """

    steps: int
    lr: float = 1e-3
    ema: float = 0.999
    log_every: int = 50
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(expected="at least one step", found=f"{self.steps}", fix="Say how long to train.")

    def rate(self, step: int) -> float:
        """Learning rate of a step, relative to the peak."""
        done = step / self.steps
        return min(1, 0.03 + done / 0.03) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def contents_of(image_files: Iterable[str], features: Tensor) -> str:
    """Checksum of what a decoder learns from: fingerprints of image files, and the images' features (n, d)."""
    digest = hashlib.sha256("".join(sorted(image_files)).encode())
    digest.update(features.numpy().tobytes())
    return digest.hexdigest()[:16]


class RandomRows(Dataset):
    """Random batches of rows; item k, ``(batch_size,)`` row numbers from 0 to ``n - 1``, is the same in every run."""

    def __init__(self, n: int, batch_size: int, seed: int):
        self.n, self.batch_size, self.seed = n, batch_size, seed

    def __getitem__(self, step: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng([self.seed, step]).integers(self.n, size=self.batch_size))


def train_steps(
    model: nn.Module,
    loss: Callable[[Any, torch.Generator], Tensor],
    batches: Dataset,
    work: Path,
    schedule: Schedule,
    *,
    settings: dict[str, Any],
    seed: int,
    name: str = "Training",
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    workers: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Train the parameters of ``model`` that require gradients; it ends with their average over steps.

    ``work`` holds settings, checkpoint, ``loss.csv`` and in the end the trained weights: a run that was cut off goes on
    from the last checkpoint as if nothing had happened, and one that is done is not done again. A loss or gradient that
    is not finite ends the training with the average of the steps before.

    Args:
        model: What is trained.
        loss: Loss of one batch, all of whose draws come from the generator (on the CPU) that it is given.
        batches: Item k is the batch of step k.
        work: Folder of this training.
        schedule: How long and how fast.
        settings: What a training state must share to be resumed.
        seed: Seeds the generators.
        name: What the stage is called in progress and log.
        device: Where to train.
        dtype: ``"float32"``, or ``"bfloat16"`` to compute in that where it is safe.
        workers: Processes that make batches.
        progress: Called as ``progress(stage, done, total)`` at each line of the log.

    Returns:
        Notes on the training: steps, and where it diverged if it did.

    Raises:
        InputError: A training state that other settings have left, or a loss that is not finite from the first step on.
    """
    lock_run(work)
    done, resumed = work / "trained.pt", latest_readable(work / "checkpoints" / "last.ckpt")
    is_done = latest_readable(done) is not None
    noted = {**settings, "steps": schedule.steps, "seed": seed}
    if is_done or resumed is not None:
        _check_settings(work / "settings.json", noted)
    write_json(work / "settings.json", noted)
    if is_done:
        state = torch.load(done, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        return state["notes"]
    module = _StepModule(model, loss, batches, work, schedule, seed=seed, name=name, workers=workers, progress=progress)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    last = RunCheckpoint(work / "checkpoints", filename="last", every_n_epochs=1, enable_version_counter=False)
    trainer = L.Trainer(
        max_steps=schedule.steps,
        accelerator={"cuda": "gpu"}.get(torch.device(device).type, torch.device(device).type),
        devices=1 if torch.device(device).index is None else [torch.device(device).index],
        precision="bf16-mixed" if dtype == "bfloat16" else "32-true",
        callbacks=[last],
        plugins=[SafeCheckpointIO()],
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, ckpt_path=resumed, weights_only=True)
    model.load_state_dict(module.averaged.state_dict())
    model.to(device)
    notes = {"steps": module.step} | ({"diverged at step": module.diverged} if module.diverged is not None else {})
    with write_aside(done) as aside:
        save_whole({"model": {k: v.cpu() for k, v in model.state_dict().items()}, "notes": notes}, aside)
    return notes


class _StepModule(L.LightningModule):
    """One step after another; an epoch is what lies between two checkpoints."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, torch.Generator], Tensor],
        batches: Dataset,
        work: Path,
        schedule: Schedule,
        *,
        seed: int,
        name: str,
        workers: int,
        progress: Progress,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.model, self.averaged = model, copy.deepcopy(model).requires_grad_(False)
        self.loss, self.batches, self.work, self.schedule = loss, batches, work, schedule
        self.seed, self.name, self.workers, self.progress = seed, name, workers, progress
        self.step = 0
        self.diverged: int | None = None
        self.history: list[tuple[int, float]] = []  # step, mean loss
        self.recent: list[Tensor] = []  # losses since the last line, on the device; NaN from where it diverged
        self.finite: Tensor | None = None  # whether all of this start were

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=self.schedule.lr, weight_decay=0.01, betas=(0.9, 0.99))

    def train_dataloader(self) -> Iterable[Any]:
        every = self.schedule.checkpoint_every
        end = min((self.step // every + 1) * every, self.schedule.steps)
        return DataLoader(self.batches, batch_size=None, sampler=range(self.step, end), num_workers=self.workers)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        value = self.loss(batch, torch.Generator().manual_seed(self.seed * 1_000_003 + self.step))
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(value)
        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.lr * self.schedule.rate(self.step)
        optimizer.step()
        self.step += 1
        finite = torch.isfinite(value.detach()) & torch.isfinite(norm)
        self.finite = finite if self.finite is None else finite & self.finite
        _average(self.averaged, self.model, min(self.schedule.ema, self.step / (9 + self.step)), self.finite)
        self.recent.append(torch.where(self.finite, value.detach(), torch.nan))
        if self.step % self.schedule.log_every == 0 or self.step in (1, self.schedule.steps):
            self._look()

    def _look(self) -> None:
        """Wait for the losses: write a line of them, or stop where they are not finite."""
        losses = torch.stack(self.recent).cpu()
        diverged = int(losses.isnan().sum())
        if diverged:
            self._stop(self.step - diverged)
        elif self.step % self.schedule.log_every == 0 or self.step == self.schedule.steps:
            self.recent.clear()
            self._write_line(float(losses.double().mean()))

    def _stop(self, step: int) -> None:
        if step == 0:
            raise InputError(
                expected="a finite loss at the first step",
                found="NaN or infinity",
                fix="Look at the images and their features; half precision can overflow: train in float32.",
            )
        _log.warning("%s diverged at step %d: it ends with the average of the steps before.", self.name, step)
        self.step, self.diverged, self.trainer.should_stop = step, step, True

    def _write_line(self, loss: float) -> None:
        self.history.append((self.step, loss))
        with write_aside(self.work / "loss.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "train/loss"])
            writer.writerows((step, f"{loss:.6f}") for step, loss in self.history)
        self.progress(f"{self.name}: step {self.step}, loss {loss:.3f}", self.step, self.schedule.steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        recent = torch.stack(self.recent).tolist() if self.recent else []
        checkpoint["steps"] = {"step": self.step, "history": self.history, "recent": recent}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["steps"]
        self.step, self.recent = state["step"], [torch.tensor(loss, device=self.device) for loss in state["recent"]]
        self.history = [(int(step), float(loss)) for step, loss in state["history"]]


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, finite: Tensor) -> None:
    """Move the average on where ``finite`` (a single truth on the device), and leave it as it is elsewhere."""
    pairs = zip(averaged.parameters(), model.parameters(), strict=True)
    old, new = zip(*((a, b) for a, b in pairs if b.requires_grad), strict=True)
    for average, moved in zip(old, torch._foreach_lerp(old, new, 1 - decay), strict=True):
        average.copy_(torch.where(finite, moved, average))


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Compare the settings with those noted before."""
    ours, noted = json.loads(json.dumps(settings)), read_json(path)
    other = [name for name in noted.keys() | ours.keys() if noted.get(name) != ours.get(name)]
    if other:
        raise InputError(
            expected=f"a training state of the same settings in {path.parent}",
            found="; ".join(f"{name} {noted.get(name)} (now {ours.get(name)})" for name in sorted(other)),
            fix="Use these settings, another output folder, or delete that folder to start anew.",
        )
