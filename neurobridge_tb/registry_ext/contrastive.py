"""InfoNCE, the contrastive loss of alignment and of the modality of image embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.errors import InputError


def info_nce(
    neural: Tensor,
    image: Tensor,
    *,
    temperature: Tensor | float,
    image_ids: Sequence[str] | Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021) with repeated images.

    Presentations of one image are positives of each other: a row's target is spread evenly over all
    columns of its image. With m presentations each, the loss is therefore at least log m.

    Args:
        neural: ``(B, D)`` projections of the neural activity; normalised here.
        image: ``(B, D)`` embeddings of the images shown; normalised here.
        temperature: Divides the cosines.
        image_ids: The B images' ids (strings or integers); None: all differ.
        weights: ``(B,)`` of the presentations; None: all alike.

    Returns:
        Scalar, nats.

    Raises:
        InputError: A batch of fewer than two, or shapes that differ.
    """
    logits = _logits(neural, image, temperature)
    targets = _positives(image_ids, len(neural), logits.device).to(logits.dtype)
    losses = [F.cross_entropy(x, targets, reduction="none") for x in (logits, logits.T)]
    loss = (losses[0] + losses[1]) / 2
    return loss.mean() if weights is None else (weights * loss).sum() / weights.sum()


def _positives(image_ids: Sequence[str] | Tensor | None, batch: int, device: torch.device) -> Tensor:
    """Target distribution ``(B, B)``: even over the presentations of the row's image."""
    if image_ids is None:
        return torch.eye(batch, device=device)
    if isinstance(image_ids, Tensor):
        ids = image_ids.to(device)
    else:
        index = {id_: i for i, id_ in enumerate(dict.fromkeys(image_ids))}
        ids = torch.tensor([index[id_] for id_ in image_ids], device=device)
    if ids.shape != (batch,):
        raise InputError(
            expected=f"{batch} image ids, one a presentation",
            found=f"shape {tuple(ids.shape)}",
            fix="Give the id of the image of each row.",
        )
    same = (ids[:, None] == ids[None, :]).float()
    return same / same.sum(1, keepdim=True)


def _logits(neural: Tensor, image: Tensor, temperature: Tensor | float) -> Tensor:
    """Cosines ``(B, B)`` over the temperature."""
    check_pair(neural, image)
    if len(neural) < 2:
        raise InputError(
            expected="a batch of two or more presentations for the contrastive loss",
            found=f"a batch of {len(neural)}: among one candidate every choice is right",
            fix="Raise the batch size, or drop the last, smaller batch.",
        )
    return F.normalize(neural, dim=1) @ F.normalize(image, dim=1).T / temperature


def check_pair(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(
            expected="two tensors of one shape (batch, dim)",
            found=f"{tuple(a.shape)} and {tuple(b.shape)}",
            fix="Set the projector's output size to the embeddings' size.",
        )
