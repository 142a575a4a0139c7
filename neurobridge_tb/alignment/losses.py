"""Losses that bring neural activity and image embeddings together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.errors import InputError


class Temperature(nn.Module):
    """A learned softmax temperature between two bounds (after Radford et al. 2021, section 2.5).

    Its logarithm is learned; each forward pass first puts it back between the bounds, so that it
    can leave a bound again.

    Args:
        start: Temperature at the start, between the bounds.
        low: Lower bound; 0.01 is CLIP's.
        high: Upper bound.
    """

    def __init__(self, start: float = 0.07, low: float = 0.01, high: float = 1.0):
        super().__init__()
        if not 0 < low <= start <= high:
            raise InputError(
                expected="0 < low <= start <= high",
                found=f"low={low}, start={start}, high={high}",
                fix="Start the temperature between its bounds.",
            )
        self.low, self.high = math.log(low), math.log(high)
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def set(self, temperature: float) -> None:
        """Go on from this temperature."""
        with torch.no_grad():
            self.log.fill_(math.log(temperature))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        with torch.no_grad():
            self.log.clamp_(self.low, self.high)
        return self.log.exp()


def info_nce(
    neural: Tensor,
    image: Tensor,
    *,
    temperature: Tensor | float,
    image_ids: Sequence[str] | Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021) with repeated images.

    Presentations of one image are positives of each other: a row's target is spread evenly over all
    columns of its image. With m presentations each, the loss is therefore at least log m.

    Args:
        neural: ``(B, D)`` projections of the neural activity; normalised here.
        image: ``(B, D)`` embeddings of the images shown; normalised here.
        temperature: Divides the cosines.
        image_ids: The B images' ids (strings or integers); None: all differ.

    Returns:
        Scalar, nats.

    Raises:
        InputError: A batch of fewer than two, or shapes that differ.
    """
    logits = _logits(neural, image, temperature)
    targets = positives(image_ids, len(neural), logits.device).to(logits.dtype)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def positives(image_ids: Sequence[str] | Tensor | None, batch: int, device: torch.device) -> Tensor:
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


def regression_loss(predicted: Tensor, target: Tensor, *, cosine_weight: float = 1.0) -> Tensor:
    """Mean squared error on the embedding's own scale plus mean cosine distance.

    Args:
        predicted: ``(B, D)``.
        target: ``(B, D)``, not normalised.
        cosine_weight: Weight of the cosine distance.

    Returns:
        Scalar.
    """
    _check_pair(predicted, target)
    distance = 1 - F.cosine_similarity(predicted, target, dim=1).mean()
    return F.mse_loss(predicted, target) + cosine_weight * distance


def _logits(neural: Tensor, image: Tensor, temperature: Tensor | float) -> Tensor:
    """Cosines ``(B, B)`` over the temperature."""
    _check_pair(neural, image)
    if len(neural) < 2:
        raise InputError(
            expected="a batch of two or more presentations for the contrastive loss",
            found=f"a batch of {len(neural)}: among one candidate every choice is right",
            fix="Raise the batch size, or drop the last, smaller batch.",
        )
    return F.normalize(neural, dim=1) @ F.normalize(image, dim=1).T / temperature


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(
            expected="two tensors of one shape (batch, dim)",
            found=f"{tuple(a.shape)} and {tuple(b.shape)}",
            fix="Set the projector's output size to the embeddings' size.",
        )
