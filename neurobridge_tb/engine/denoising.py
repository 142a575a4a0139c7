"""The training loop of all decoders: AdamW, averaged weights, a log, and a state from which a cut-off run goes on."""

import csv
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside

History = list[tuple[int, float, float]]  # step, seconds, mean loss


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        max_steps: Stop after this many steps ...
        max_minutes: ... or after this many minutes of training; at least one must be given. The learning rate rises
            over the first 3 % and falls to zero (cosine) towards the end.
        lr: Peak learning rate of AdamW.
        ema: Decay of the weight average.
        log_every: Steps between lines of ``loss.csv``; a checkpoint is written every tenth line.

    Raises:
        InputError: No limit given.
    """

    max_steps: int | None = None
    max_minutes: float | None = None
    lr: float = 1e-3
    ema: float = 0.999
    log_every: int = 50

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_minutes is None:
            raise InputError(
                expected="max_steps or max_minutes",
                found="neither",
                fix="Say how long to train, e.g. max_minutes=30.",
            )

    def share_done(self, step: int, seconds: float) -> float:
        """From 0 to 1 and beyond."""
        return max(step / self.max_steps if self.max_steps else 0, seconds / 60 / (self.max_minutes or math.inf))


def train_denoiser(
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    out_dir: Path,
    schedule: Schedule,
    *,
    settings: dict[str, Any],
    seed: int,
    save: Callable[[dict[str, Any]], None],
    progress: Callable[[str, float, float], None],
) -> None:
    """Train the parameters of ``model`` that ask for gradients; it ends with their average over steps.

    The training state lies in ``<out_dir>.training`` (``checkpoint.pt``, ``loss.csv``) until ``save`` has written
    ``out_dir``; a run that was cut off goes on from there. The loss curve ends up beside the weights.

    Args:
        model: What is trained.
        loss: Loss of one batch, all of whose draws come from the generator that it is given.
        out_dir: Folder that ``save`` writes.
        schedule: How long and how fast.
        settings: What a training state must share to be resumed; noted with the weights.
        seed: Seeds the batches.
        save: Writes the trained model to ``out_dir``, with notes on the training.
        progress: Called as ``progress(stage, done, total)`` at each line of the log.

    Raises:
        InputError: A training state that other settings have left.
    """
    work = out_dir.parent / f"{out_dir.name}.training"
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=schedule.lr, weight_decay=0.01, betas=(0.9, 0.99))
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    history = _resume(work, settings, model, optimizer, averaged)
    step, elapsed = (history[-1][0], history[-1][1]) if history else (0, 0.0)
    began = time.monotonic() - elapsed
    losses: list[float] = []
    while True:
        elapsed = time.monotonic() - began
        done = schedule.share_done(step, elapsed)
        if losses and step % schedule.log_every == 0:
            history.append((step, elapsed, sum(losses) / len(losses)))
            losses.clear()
            _write_log(work / "loss.csv", history)
            progress(f"Training: step {step}, loss {history[-1][2]:.3f}", done, 1.0)
            if step % (10 * schedule.log_every) == 0:
                _checkpoint(work, settings, model, optimizer, averaged, history)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * min(1, 0.03 + done / 0.03) * 0.5 * (1 + math.cos(math.pi * done))
        value = loss(torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        _average(averaged, model.state_dict(), min(schedule.ema, (1 + step) / (10 + step)))
        losses.append(value.item())
    model.load_state_dict(averaged)
    save({**settings, "steps": step, "minutes": round(elapsed / 60, 1)})
    _write_log(out_dir / "loss.csv", history)
    shutil.rmtree(work, ignore_errors=True)


@torch.no_grad()
def _average(averaged: dict[str, Tensor], state: dict[str, Tensor], decay: float) -> None:
    names = [name for name, value in averaged.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[n] for n in names], [state[n] for n in names], 1 - decay)


def _write_log(path: Path, history: History) -> None:
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "minutes", "train/loss"])
        writer.writerows((step, f"{seconds / 60:.2f}", f"{loss:.6f}") for step, seconds, loss in history)


def _checkpoint(
    work: Path,
    settings: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    history: History,
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
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
) -> History:
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
