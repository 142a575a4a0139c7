"""Unit dropout: some units are hidden from a model in training, so that it relies on no single one."""

import torch
from torch import Tensor


def draw_shown_units(present: Tensor, most: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw which units a model sees: in each window a random share of them, at most ``most``, is hidden.

    Args:
        present: (B, N) bool, units that there are; the others are never shown.
        most: Highest share that is hidden; each window's is drawn from 0 to this.
        generator: Draws on its own device. Default: torch's own, on that of ``present``.

    Returns:
        (B, N) bool; at least one unit of each window that has any.
    """
    device = present.device if generator is None else generator.device
    share = most * torch.rand(len(present), 1, generator=generator, device=device)
    draws = torch.rand(present.shape, generator=generator, device=device).to(present.device)
    shown = present & (draws >= share.to(present.device))
    luckiest = torch.where(present, draws, -1.0).argmax(1, keepdim=True)
    return shown | torch.zeros_like(shown).scatter(1, luckiest, present.gather(1, luckiest))
