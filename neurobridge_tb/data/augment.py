"""Augmentations of a batch of responses; they return new inputs and draw from torch's global generator."""

import torch
from torch import Tensor

from neurobridge_tb.nn.unit_dropout import draw_shown_units

Inputs = dict[str, Tensor]


def hide_units(inputs: Inputs, most: float) -> Inputs:
    """Hide a random share of the units, at most ``most``, of each window (unit dropout)."""
    keep = inputs["input_mask"]
    return inputs | {"input_mask": keep & draw_shown_units(keep.any(1), most)[:, None]}


def add_noise(inputs: Inputs, deviations: Tensor, level: float) -> Inputs:
    """Add Gaussian noise of ``level`` standard deviations (``deviations`` (B, N), each unit's) to every value."""
    values = inputs["input_values"]
    return inputs | {"input_values": values + level * deviations[:, None] * torch.randn_like(values)}


def shift_time(inputs: Inputs, most_bins: int) -> Inputs:
    """Move each window's values by up to ``most_bins`` bins, earlier or later; bins without values are hidden."""
    values, keep = inputs["input_values"], inputs["input_mask"]
    n_bins = values.shape[1]
    shift = torch.randint(-most_bins, most_bins + 1, (len(values), 1, 1), device=values.device)
    source = (torch.arange(n_bins, device=values.device)[:, None] - shift).expand_as(values)
    inside, source = (source >= 0) & (source < n_bins), source.clamp(0, n_bins - 1)
    return _with_mask(inputs | {"input_values": values.gather(1, source)}, keep.gather(1, source) & inside)


def average_repeats(inputs: Inputs, image_ids: list[str]) -> tuple[Inputs, Tensor]:
    """Average each presentation with a random number, from none to all, of its image's others in the batch.

    Returns:
        The averaged inputs, and the shares (B, B) of all presentations in each.
    """
    values, keep = inputs["input_values"], inputs["input_mask"]
    index = {id_: i for i, id_ in enumerate(dict.fromkeys(image_ids))}
    ids = torch.tensor([index[id_] for id_ in image_ids], device=values.device)
    n = len(ids)
    chosen = torch.rand(n, n, device=values.device) < torch.rand(n, 1, device=values.device)
    own = torch.eye(n, dtype=torch.bool, device=values.device)
    weight = ((ids[:, None] == ids) & (chosen | own)).to(values)
    kept = keep.to(values)
    total, count = (torch.einsum("ij,jtn->itn", weight, x) for x in (values * kept, kept))
    averaged = {"input_values": total / count.clamp_min(1), "input_mask": count > 0}
    return inputs | averaged, weight / weight.sum(1, keepdim=True)


def _with_mask(inputs: Inputs, keep: Tensor) -> Inputs:
    """Inputs with another mask, but where it would hide a whole window."""
    left = keep.flatten(1).any(1)[:, None, None]
    return inputs | {"input_mask": torch.where(left, keep, inputs["input_mask"])}
