"""The optimizer and learning-rate schedule of all trainings."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

_OF_FACTORS = ("factors.loading_rows.", "factors.log_noise_rows.")
_UNDECAYED = ("_emb.", "_rows.", "quer")  # one row a unit, session, latent or query


class Group(NamedTuple):
    """Parameters that are trained alike.

    Attributes:
        parameters: ``module.named_parameters()``; those without gradient are left out.
        lr: Highest learning rate.
        first_step: Step at which their training starts. Default 0.
    """

    parameters: Iterable[tuple[str, nn.Parameter]]
    lr: float
    first_step: int = 0


def factors_apart(parameters: Iterable[tuple[str, nn.Parameter]], lr: float, factor_lr: float) -> list[Group]:
    """Two groups: the factor model, which starts at a fit and learns slowly, and everything else.

    Args:
        parameters: ``module.named_parameters()``.
        lr: Highest learning rate of everything else.
        factor_lr: That of loadings and own variances; 0: they stay as they were fitted.
    """
    named = list(parameters)
    of_factors = [(n, p) for n, p in named if any(part in n for part in _OF_FACTORS)]
    others = [(n, p) for n, p in named if not any(part in n for part in _OF_FACTORS)]
    return [Group(others, lr), Group(of_factors, factor_lr)]


def adamw_with_warmup(
    *groups: Group, weight_decay: float, total_steps: int, warmup_fraction: float = 0.05, fused: bool = False
) -> dict[str, Any]:
    """AdamW with linear warm-up and cosine decay to zero, as Lightning's ``configure_optimizers`` returns it.

    Embeddings, gains and biases are not decayed.

    Args:
        *groups: What is trained, how fast, and from when.
        weight_decay: Of the matrices.
        total_steps: Steps of the whole training.
        warmup_fraction: Share of a group's steps in which its rate rises. Default 0.05.
        fused: One kernel for all weights, on a GPU. Default False.
    """
    settings, factors = [], []
    for group in groups:
        trained = [(n, p) for n, p in group.parameters if p.requires_grad]
        decayed = [p for n, p in trained if p.ndim >= 2 and not any(t in n for t in _UNDECAYED)]
        others = [p for n, p in trained if p.ndim < 2 or any(t in n for t in _UNDECAYED)]
        settings += [
            {"params": decayed, "lr": group.lr, "weight_decay": weight_decay},
            {"params": others, "lr": group.lr, "weight_decay": 0.0},
        ]
        factors += 2 * [_warmup_cosine(group.first_step, total_steps, warmup_fraction)]
    optimizer = torch.optim.AdamW(settings, betas=(0.9, 0.98), fused=fused or None)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _warmup_cosine(first: int, total: int, warmup_fraction: float) -> Callable[[int], float]:
    length = max(1, total - first)
    warmup = max(1, round(warmup_fraction * length))

    def factor(step: int) -> float:
        step -= first
        if step < 0:
            return 0.0
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, length - warmup))))

    return factor
