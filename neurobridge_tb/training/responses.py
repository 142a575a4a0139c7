"""Responses to images, as arrays: what baselines and evaluation work on."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb._upstream import Dataset, collate
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import ImageAligner, NeuroBridgeModel


@dataclass(frozen=True)
class Responses:
    """Presentations of one recording.

    Attributes:
        values: (n, T, N) float32; NaN where absent.
        image_ids: (n,) image of each presentation.
        repeats: (n,) how often the image had been shown before.
        areas: (N,) area of each unit.
        model_inputs: Batch of one window, for the parts that all windows share.
    """

    values: NDArray[np.float32]
    image_ids: NDArray[np.str_]
    repeats: NDArray[np.int64]
    areas: NDArray[np.str_]
    model_inputs: dict[str, Tensor]

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, T * N) flat values; NaN where absent."""
        return self.values.reshape(len(self.values), -1)

    def averaged(self) -> "Responses":
        """The mean response to each image, images in sorted order."""
        ids, inverse = np.unique(self.image_ids, return_inverse=True)
        total, count = (np.zeros((len(ids), *self.values.shape[1:])) for _ in range(2))
        np.add.at(total, inverse, np.nan_to_num(self.values))
        np.add.at(count, inverse, ~np.isnan(self.values))
        with np.errstate(invalid="ignore"):
            mean = (total / count).astype(np.float32)
        return replace(self, values=mean, image_ids=ids, repeats=np.zeros(len(ids), dtype=np.int64))

    def by_repeat(self) -> NDArray[np.intp]:
        """(repeats, images) rows of this object, images in sorted order.

        Raises:
            InputError: Images were shown unequally often.
        """
        order = np.lexsort((self.image_ids, self.repeats))
        n_images = len(np.unique(self.image_ids))
        if len(order) % n_images:
            raise InputError(
                expected="every test image shown equally often",
                found=f"{len(order)} presentations of {n_images} images",
                fix="Evaluate repeat averages only, or leave the surplus presentations out of test_domain.",
            )
        return order.reshape(-1, n_images)


def collect_responses(dataset: Dataset, model: NeuroBridgeModel, recording_id: str, split: str) -> Responses:
    """All presentations of ``split`` in a recording.

    Args:
        dataset: With ``presentations`` in its recordings.
        model: Knows what to read of a window.
        recording_id: Which recording.
        split: ``"train"``, ``"valid"`` or ``"test"``.
    """
    recording = dataset.get_recording(recording_id)
    intervals = dataset.get_sampling_intervals(split)[recording_id]
    windows = [recording.slice(s, e) for s, e in zip(intervals.start, intervals.end, strict=True)]
    return Responses(
        values=np.stack([model.grid_values(w)[0] for w in windows]),
        image_ids=np.array([str(w.presentations.image_id[0]) for w in windows]),
        repeats=np.array([int(w.presentations.repeat[0]) for w in windows]),
        areas=model.window_grid(windows[0])[1],
        model_inputs=collate([model.tokenize(windows[0])])["model_inputs"],
    )


@torch.no_grad()
def embed_responses(aligner: ImageAligner, responses: Responses, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Contrastive (n, E) and regression (n, E) outputs of an aligner for each response."""
    aligner.eval()
    outputs = []
    for start in range(0, len(responses.values), batch_size):
        values = torch.from_numpy(responses.values[start : start + batch_size])
        shared = {k: v.expand(len(values), *v.shape[1:]) for k, v in responses.model_inputs.items()}
        outputs.append(aligner(**{**shared, "input_values": values.nan_to_num(), "input_mask": ~values.isnan()}))
    contrastive, regression = zip(*outputs, strict=True)
    return torch.cat(contrastive), torch.cat(regression)
