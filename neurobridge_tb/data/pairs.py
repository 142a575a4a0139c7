"""Batches of presentations and their image embeddings, from arrays: no window is tokenized twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.responses import Responses
from neurobridge_tb.errors import InputError


class PairBatches:
    """Loader of batches of presentations; a batch is of one recording.

    Shuffled, each recording's incomplete last batch is left out, or its only one kept; the order is a function of
    (seed, epoch) alone. Of W processes each takes every W-th presentation of a batch W times as large, and equally many
    as the others; not shuffled, each takes all of it.

    Args:
        recordings: Presentations of each recording.
        embeddings: Embeddings of their images.
        batch_size: Presentations in a batch, two or more.
        shuffle: Random order. Default False.
        seed: Seed of the order.

    Attributes:
        linear: Predictions for each recording's presentations, which take the place of the linear read-out's in
            training, or None.

    Raises:
        InputError: ``batch_size`` is 1, or an image has no embedding.
    """

    def __init__(
        self,
        recordings: Sequence[Responses],
        embeddings: EmbeddingCache,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
    ):
        if batch_size < 2:
            raise InputError(
                expected="loader.batch_size of two or more: the contrastive loss tells a presentation from the others",
                found=f"{batch_size}",
                fix="Raise loader.batch_size; 128 is usual.",
            )
        self.recordings, self.batch_size, self.shuffle, self.seed = recordings, batch_size, shuffle, seed
        self.targets = [embeddings.lookup(list(r.image_ids)) for r in recordings]
        numbers = np.unique(np.concatenate([r.image_ids for r in recordings]), return_inverse=True)[1]
        self.image_index = torch.from_numpy(numbers).split([len(r.image_ids) for r in recordings])
        self.linear: list[torch.Tensor] | None = None
        self.epoch, self.num_replicas, self.rank = 0, 1, 0

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for recording, rows in self._batches():
            if self.shuffle:
                rows = rows[: len(rows) // self.num_replicas * self.num_replicas][self.rank :: self.num_replicas]
            responses, index = self.recordings[recording], torch.from_numpy(rows)
            pairs = {
                "model_inputs": responses.batch(rows),
                "target": self.targets[recording][index],
                "image_id": responses.image_ids[rows].tolist(),
                "image_index": self.image_index[recording][index],
            }
            yield pairs if self.linear is None else pairs | {"linear": self.linear[recording][index]}

    def _batches(self) -> list[tuple[int, np.ndarray]]:
        rng, size = np.random.default_rng([self.seed, self.epoch]), self.batch_size * self.num_replicas
        batches = []
        for k, responses in enumerate(self.recordings):
            n = len(responses.values)
            rows = rng.permutation(n) if self.shuffle else np.arange(n)
            parts = [rows[i : i + size] for i in range(0, n, size)]
            if len(parts) > 1 and (self.shuffle or len(parts[-1]) < 2) and len(parts[-1]) < size:
                parts.pop()
            batches += [(k, part) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffle else batches
