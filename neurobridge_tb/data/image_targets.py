"""Which image a window shows, as an embedding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.responses import shown_in
from neurobridge_tb.errors import InputError


class ImageTargets:
    """Centred embeddings of the images that training windows show; blank presentations show none.

    Args:
        dataset: Some of its recordings hold ``presentations``; each of their training intervals is a window.
        embeddings: Of the images.

    Attributes:
        dim: Size of an embedding.

    Raises:
        InputError: No recording shows images, an interval shows none, or an image has no embedding.
    """

    def __init__(self, dataset: Dataset, embeddings: EmbeddingCache):
        image_ids: list[str] = []
        self._row: dict[tuple[str, int], int] = {}
        for recording_id, intervals in dataset.get_sampling_intervals("train").items():
            recording = dataset.get_recording(recording_id)
            if "presentations" not in recording.keys() or not len(intervals):
                continue
            start, _, shown, _ = shown_in(recording, intervals, "train")
            rows = range(len(image_ids), len(image_ids) + len(start))
            session = str(recording.session.id)
            self._row |= {(session, _microseconds(s)): row for s, row in zip(start, rows, strict=True)}
            image_ids += shown.tolist()
        if not image_ids:
            raise InputError(
                expected="recordings with presentations, for loss.image_weight",
                found="none",
                fix="Set loss.image_weight=0, or choose recordings that show images.",
            )
        embedded = embeddings.lookup(image_ids)
        self._embedded = torch.cat([embedded - embedded.mean(0), torch.zeros(1, embeddings.dim)])
        self.dim = embeddings.dim

    def __call__(self, session_ids: Sequence[str], starts: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) of windows, 0 where no image is shown, and (B,) bool where one is."""
        none = len(self._embedded) - 1
        keys = zip(session_ids, (_microseconds(float(s)) for s in starts), strict=True)
        rows = torch.tensor([self._row.get(key, none) for key in keys])
        return self._embedded[rows], rows != none


def _microseconds(start: float) -> int:
    return round(1e6 * start)
