"""What keeps items apart in a batch: noise by item, and batches that shrink when memory runs out."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm


def draw_items(
    items: int,
    num_samples: int,
    draw: Callable[[Tensor, list[torch.Generator]], Tensor],
    *,
    seed: int,
    batch_size: int,
) -> Tensor:
    """Draw samples of all items in batches; what a sample is never depends on its batch.

    Out of memory, the batch is halved, with a warning, and drawing goes on.

    Args:
        items: How many there are.
        num_samples: Samples S an item.
        draw: ``draw(rows, generators)``: pictures ``(b, 3, H, W)``, one for each number of an item in ``rows`` (b,),
            its noise from the generator (on the CPU) beside it.
        seed: The noise of item ``i`` and sample ``s`` follows from ``(seed, i, s)`` alone.
        batch_size: Pictures a batch to begin with.

    Returns:
        ``(items, S, 3, H, W)`` on the CPU.

    Raises:
        RuntimeError: The memory does not hold a single picture (the device's own error).
    """
    keys = [(seed, item, sample) for item in range(items) for sample in range(num_samples)]
    parts: list[Tensor] = []
    first, batch_size = 0, min(batch_size, len(keys))
    bar = tqdm(total=len(keys), desc="Drawing", unit="picture", leave=False, disable=None)  # on terminals alone
    while first < len(keys):
        batch = keys[first : first + batch_size]
        try:
            parts.append(draw(torch.tensor([item for _, item, _ in batch]), [_generator(key) for key in batch]).cpu())
        except RuntimeError as error:
            if not _out_of_memory(error) or batch_size == 1:
                raise
        else:
            first += len(batch)
            bar.update(len(batch))
            continue
        batch_size = max(1, batch_size // 2)  # out of the handler, which holds on to the tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(f"Out of memory while drawing: going on with batches of {batch_size}.", stacklevel=2)
    bar.close()
    return torch.cat(parts).unflatten(0, (items, num_samples))


def _generator(key: tuple[int, ...]) -> torch.Generator:
    """Its numbers depend on the key alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether a device (or, on the CPU, the allocator) said that its memory is full."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
