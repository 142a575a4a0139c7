"""Responses to images, as arrays: what baselines and evaluation work on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurobridge_tb._upstream import Data, Dataset, Interval, collate
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.parts import PairsConfig
from neurobridge_tb.data.activity import RecordingActivity
from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.devices import compute
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import ImageAligner, NeuroBridgeModel
from neurobridge_tb.progress import say

_BLOCK = 2**25  # values read at a time: 128 MB
_COLUMNS, _SAME = 256, 1e-5  # of embeddings that are compared; their relative distance, by rounding


@dataclass(frozen=True)
class Responses:
    """Presentations of one recording, each with at least one value.

    Attributes:
        values: (n, T, N) float32; NaN where absent.
        image_ids: (n,) image of each presentation.
        repeats: (n,) how often the image had been shown before.
        areas: (N,) area of each unit.
        steps: (T,) the latent step that each bin lies in.
        model_inputs: Batch of one window, for the parts that all windows share.
    """

    values: NDArray[np.float32]
    image_ids: NDArray[np.str_]
    repeats: NDArray[np.int64]
    areas: NDArray[np.str_]
    steps: NDArray[np.int64]
    model_inputs: dict[str, Tensor]

    def __post_init__(self) -> None:
        absent = np.array([np.isnan(window).all() for window in self.values], dtype=bool)
        if absent.any():
            raise InputError(
                expected="a value in every presentation",
                found=f"{absent.sum()} of {len(absent)} that are NaN throughout, the first of image "
                f"{self.image_ids[absent.argmax()]} (repeat {self.repeats[absent.argmax()]})",
                fix="Leave them out of the recording's train_domain, valid_domain and test_domain; with areas or "
                "time_window, check that these have values.",
            )

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, S * N) means of each unit within each latent step, NaN where there is no value, for closed forms."""
        return self.over_steps().values.reshape(len(self.values), -1)

    def over_steps(self) -> "Responses":
        """The responses with one value a latent step, the mean over its bins."""
        n_steps = int(self.steps.max(initial=0)) + 1
        if n_steps == len(self.steps):
            return self
        values = np.empty((len(self.values), n_steps, self.values.shape[2]), dtype=np.float32)
        for step in range(n_steps):
            values[:, step] = _mean_over(self.values[:, self.steps == step])
        return replace(self, values=values, steps=np.arange(n_steps))

    @property
    def concepts(self) -> NDArray[np.str_]:
        """(n,) concept of each image: the folder in its id, as in ``"aardvark/aardvark_01b.jpg"``."""
        return np.array([id_.rpartition("/")[0] for id_ in self.image_ids])

    def rows(self, chosen: NDArray[np.bool_]) -> "Responses":
        """Some of the presentations."""
        return replace(self, values=self.values[chosen], image_ids=self.image_ids[chosen], repeats=self.repeats[chosen])

    def batch(self, rows: NDArray[np.intp] | slice) -> dict[str, Tensor]:
        """What :meth:`NeuroBridgeModel.encode` takes, for some of the presentations."""
        values = torch.from_numpy(self.values[rows])
        shared = {k: v.expand(len(values), *v.shape[1:]) for k, v in self.model_inputs.items()}
        return {**shared, "input_values": values.nan_to_num(), "input_mask": ~values.isnan()}

    def only(self, areas: Sequence[str] | None, window: Sequence[float] | None = None) -> "Responses":
        """Hide (make NaN) the units of other areas and the bins that begin outside of a time window.

        Args:
            areas: Names of areas; None: all.
            window: First and last time in s from the window's start, the last one excluded. Default: all.

        Raises:
            InputError: Nothing would be left.
        """
        if areas is None and window is None:
            return self
        shown = np.ones(self.values.shape[1:], dtype=bool)
        if areas is not None:
            shown &= np.isin(self.areas, list(areas))
        if window is not None:
            times = self.model_inputs["input_timestamps"][0].numpy() + 1e-6
            shown &= ((times >= window[0]) & (times < window[1]))[:, None]
        if not shown.any():
            begins = self.model_inputs["input_timestamps"][0].tolist()
            raise InputError(
                expected=f"areas among {', '.join(np.unique(self.areas))}, and a window with a bin that begins in it "
                f"(bins begin at {begins[0]:.3g} to {begins[-1]:.3g} s)",
                found=f"areas={areas if areas is None else list(areas)}, "
                f"window={window if window is None else list(window)}",
                fix="Correct areas=[...] or time_window=[...].",
            )
        return replace(self, values=np.where(shown, self.values, np.nan).astype(np.float32))

    def averaged(self) -> "Responses":
        """The mean response to each image, images in sorted order."""
        ids, inverse = np.unique(self.image_ids, return_inverse=True)
        mean = np.stack([_mean_over(self.values[inverse == k].swapaxes(0, 1)) for k in range(len(ids))])
        return replace(self, values=mean, image_ids=ids, repeats=np.zeros(len(ids), dtype=np.int64))

    def by_repeat(self) -> NDArray[np.intp]:
        """(repeats, images) rows of this object, images in sorted order, an image's presentations in the order of
        ``repeat``; of images that were shown more often than others, the surplus is left out."""
        order = np.lexsort((self.repeats, self.image_ids))
        _, counts = np.unique(self.image_ids, return_counts=True)
        firsts = np.cumsum(counts) - counts
        return order[firsts[None] + np.arange(counts.min())[:, None]]


def collect_responses(
    dataset: Dataset,
    model: NeuroBridgeModel,
    recording_id: str,
    split: str,
    *,
    areas: Sequence[str] | None = None,
    time_window: Sequence[float] | None = None,
    over_steps: bool = False,
) -> Responses:
    """All presentations of ``split`` in a recording, read some at a time.

    Blank presentations, and those without any value (rejected trials), are left out; the latter are counted in a line
    of progress.

    Args:
        dataset: With ``presentations`` in its recordings.
        model: Knows what to read of a window.
        recording_id: Which recording.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        areas: See :meth:`Responses.only`.
        time_window: See :meth:`Responses.only`.
        over_steps: Keep the means within latent steps alone, which are all that closed forms read.

    Raises:
        InputError: No presentations of images in the recording or in the split, or intervals that are none.
    """
    recording = dataset.get_recording(recording_id)
    start, end, image_ids, repeats = shown_in(recording, dataset.get_sampling_intervals(split)[recording_id], split)
    activity = RecordingActivity(model, recording)
    by_length = np.argsort(start - end, kind="stable")
    longest = next((k for k in by_length if not np.isnan(activity.windows(start[[k]], end[[k]])[0]).all()), None)
    _require_rows(longest is not None, split, recording_id, "NaN throughout")
    inputs = collate([model.tokenize(recording.slice(start[longest], end[longest]))])
    last = len(np.unique(inputs["latent_timestamps"])) - 1
    step = np.floor(inputs["input_timestamps"][0].numpy() / model.latent_step + 1e-6)

    def some(rows: slice) -> tuple[Responses, NDArray[np.bool_]]:
        read = _of_length(len(step), activity.windows(start[rows], end[rows]))
        present = np.asarray(~np.isnan(read).all((1, 2)))
        block = Responses(
            values=read[present],
            image_ids=image_ids[rows][present],
            repeats=repeats[rows][present],
            areas=activity.areas,
            steps=np.clip(step, 0, last).astype(np.int64),
            model_inputs={k: x for k, x in inputs.items() if not k.startswith("mask_pattern")},  # of one window alone
        )
        block = block.only(areas, time_window)
        return block.over_steps() if over_steps else block, present

    at_once = max(1, _BLOCK // max(1, len(step) * len(activity.areas)))
    first, present = some(slice(at_once))
    values, kept, n = np.empty((len(start), *first.values.shape[1:]), dtype=np.float32), [present], present.sum()
    values[:n] = first.values
    for k in range(at_once, len(start), at_once):
        block, present = some(slice(k, k + at_once))
        values[n : n + present.sum()] = block.values
        kept, n = [*kept, present], n + present.sum()
    if rejected := len(start) - n:
        say(f"{rejected} of {len(start)} presentations in '{split}' of {recording_id} have no value, and are left out")
    has_values = np.concatenate(kept)
    return replace(first, values=values[:n], image_ids=image_ids[has_values], repeats=repeats[has_values])


def shown_in(
    recording: Data, intervals: Interval, split: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_], NDArray[np.int64]]:
    """Start and end of the intervals that show an image, its id, and how often it had been shown before."""
    name, held = recording.session.id, recording.keys()
    shown = recording.presentations if "presentations" in held else None
    if shown is None or "image_id" not in shown.keys():
        raise InputError(
            expected=f"presentations with a column image_id in recording {name}",
            found=", ".join(sorted(held)),
            fix="Only recordings during images can be aligned; see docs/own_data.md on adding presentations.",
        )
    start, end = np.asarray(intervals.start, dtype=float), np.asarray(intervals.end, dtype=float)
    _require_rows(len(start) and len(shown.image_id), split, name, "no interval")
    ids = as_text(np.asarray(shown.image_id))
    ids[np.asarray(shown.blank, dtype=bool) if "blank" in shown.keys() else np.zeros(len(ids), bool)] = ""
    repeats = (
        np.asarray(shown.repeat) if "repeat" in shown.keys() else pd.Series(ids).groupby(ids).cumcount().to_numpy()
    )
    first, last = np.asarray(shown.start), np.asarray(shown.end)
    which = presentations_of(first, last, start, end)
    apart = (np.minimum(last[which], end) <= np.maximum(first[which], start)) & (ids[which] != "")
    if apart.any():
        raise InputError(
            expected=f"intervals in '{split}' of {name} during which an image is shown",
            found=f"{apart.sum():,} of {len(apart):,} without, the first at {start[apart][0]:g} s",
            fix="Make the split of presentations alone.",
        )
    images = ids[which] != ""
    _require_rows(images.sum(), split, name, "blank presentations alone")
    return start[images], end[images], ids[which][images], repeats[which][images].astype(np.int64)


def _require_rows(count: Any, split: str, recording_id: str, found: str) -> None:
    if not count:
        raise InputError(
            expected=f"presentations of images in '{split}' of {recording_id}",
            found=found,
            fix="Check how the recording was prepared, or choose other splits.",
        )


def _of_length(n_bins: int, windows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(n, T, N) windows, some of which may lack a last bin, or have one more."""
    values = np.full((len(windows), n_bins, windows[0].shape[1]), np.nan, dtype=np.float32)
    for row, window in zip(values, windows, strict=True):
        row[: len(window)] = window[:n_bins]
    return values


def _mean_over(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean (n, N) over the second axis of (n, T, N); NaN where there is no value."""
    present = ~np.isnan(values)
    total, count = np.where(present, values, 0).sum(1, dtype=np.float64), present.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def presentations_of(
    shown_from: NDArray[Any], shown_to: NDArray[Any], start: NDArray[Any], end: NDArray[Any]
) -> NDArray[np.intp]:
    """Which presentation fills most of each window; one that only touches it is in it too, by rounding."""
    first = np.minimum(np.searchsorted(shown_to, start, side="right"), len(shown_to) - 1)
    last = np.searchsorted(shown_from, end) - 1
    best, most = first.copy(), np.full(len(start), -np.inf)
    for k in range(int((last - first).max(initial=0)) + 1):
        candidate = np.minimum(first + k, len(shown_to) - 1)
        overlap = np.minimum(shown_to[candidate], end) - np.maximum(shown_from[candidate], start)
        best, most = np.where(overlap > most, candidate, best), np.maximum(overlap, most)
    return best


def shared_test_images(splits: Mapping[str, Responses]) -> list[str]:
    """Test images that training or validation presentations show too, sorted."""
    shown = np.concatenate([splits[split].image_ids for split in ("train", "valid")])
    return np.intersect1d(splits["test"].image_ids, shown).tolist()


def copied_test_images(splits: Mapping[str, Responses], embeddings: EmbeddingCache) -> list[str]:
    """Test images that training or validation presentations show by another name, as their embeddings tell; sorted."""
    test = np.unique(splits["test"].image_ids)
    others = np.setdiff1d(np.concatenate([splits[split].image_ids for split in ("train", "valid")]), test)
    if not len(others):
        return []
    some = torch.linspace(0, embeddings.dim - 1, min(embeddings.dim, _COLUMNS)).round().long()
    rows, those = (embeddings.lookup(ids.tolist())[:, some] for ids in (test, others))
    nearest = torch.cdist(rows, those, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    return test[(nearest < _SAME * rows.norm(dim=1)).numpy()].tolist()


def shown_elsewhere(shown: Mapping[str, Mapping[str, NDArray[np.str_]]]) -> dict[str, list[str]]:
    """Test images of each recording that other recordings show in training or validation, sorted.

    Args:
        shown: Image ids of each split, by recording.
    """
    trained = {recording: np.concatenate([ids["train"], ids["valid"]]) for recording, ids in shown.items()}
    return {
        recording: np.intersect1d(ids["test"], np.concatenate(others)).tolist()
        for recording, ids in shown.items()
        if (others := [its for other, its in trained.items() if other != recording])
    }


def check_test_images(
    splits: Mapping[str, Mapping[str, Responses]], embeddings: EmbeddingCache, config: PairsConfig
) -> None:
    """Refuse test images that are trained on by another name or in another recording, unless ``shared_test_images`` is
    set.

    Args:
        splits: From :func:`pair_splits`, by recording.
        embeddings: Of all their images.
        config: As :func:`pair_splits` takes it.

    Raises:
        InputError: There are some.
    """
    if config.shared_test_images:
        return
    copied = [image for of in splits.values() for image in copied_test_images(of, embeddings)]
    if copied:
        raise InputError(
            expected="test images that are shown in no training or validation presentation",
            found=f"{len(copied)} that are, by another name, e.g. {copied[0]}: its embedding is that of another id",
            fix="Give each image one id, and split by image. With shared_test_images=true they are scored all the "
            "same, and counted.",
        )
    found = shown_elsewhere({r: {s: part.image_ids for s, part in of.items()} for r, of in splits.items()})
    shared = [(recording, image) for recording, images in found.items() for image in images]
    if shared:
        raise InputError(
            expected="test images that no other recording shows in training or validation",
            found=f"{len(shared)} that one does, e.g. {shared[0][1]}, a test image of {shared[0][0]}",
            fix="Split all recordings by the same images, or align each by itself. With shared_test_images=true they "
            "are scored all the same, and counted.",
        )


def pair_splits(
    dataset: Dataset, model: NeuroBridgeModel, recording_id: str, config: PairsConfig, *, over_steps: bool = False
) -> dict[str, Responses]:
    """Training, validation and test presentations of a recording, as alignment and its evaluation use them.

    Args:
        dataset: With ``presentations`` in its recordings.
        model: Knows what to read of a window.
        recording_id: Which recording.
        config: Its ``areas`` and ``time_window`` (see :meth:`Responses.only`); ``exclude_test_concepts``: leave
            training and validation images out whose concept (the folder in their id) is that of a test image;
            ``train_share``: keep this share of the training presentations, spaced evenly; and ``shared_test_images``:
            go on where test images are shown in training or validation too.
        over_steps: Of training and validation keep the means within latent steps alone: a fraction of the memory, and
            all that closed forms read. Test presentations are whole.

    Returns:
        ``train``, ``valid`` and ``test``.
    """
    if not 0 < config.train_share <= 1:
        raise InputError(
            expected="train_share above 0 and at most 1",
            found=f"{config.train_share}",
            fix="0.01 is one training pair in a hundred.",
        )
    splits = {
        split: collect_responses(
            dataset,
            model,
            recording_id,
            split,
            areas=config.areas,
            time_window=config.time_window,
            over_steps=over_steps and split != "test",
        )  # fmt: skip
        for split in ("train", "valid", "test")
    }
    if config.exclude_test_concepts:
        concepts = np.unique(splits["test"].concepts)
        for split in ("train", "valid"):
            left = ~np.isin(splits[split].concepts, concepts)
            if not left.any():
                raise InputError(
                    expected=f"images of other concepts than the test images' in '{split}' of {recording_id}",
                    found="none",
                    fix="Leave exclude_test_concepts out, or split the recording by concept.",
                )
            splits[split] = splits[split].rows(left)
    shared = shared_test_images(splits)
    if shared and not config.shared_test_images:
        raise InputError(
            expected=f"test images that {recording_id} shows in no training or validation presentation",
            found=f"{len(shared)} that it does, e.g. {shared[0]}",
            fix="Split the recording by image. With shared_test_images=true they are scored all the same, and counted.",
        )
    n = len(splits["train"].values)
    kept = np.zeros(n, dtype=bool)
    kept[np.linspace(0, n - 1, max(2, round(config.train_share * n))).round().astype(int)] = True
    splits["train"] = splits["train"] if kept.all() else splits["train"].rows(kept)
    return splits


@torch.no_grad()
def embed_responses(aligner: ImageAligner, responses: Responses, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Contrastive (n, E) and regression (n, E) outputs of an aligner for each response."""
    aligner.eval()
    outputs = []
    for start in range(0, len(responses.values), batch_size):
        outputs.append(compute(aligner, **responses.batch(slice(start, start + batch_size))))
    contrastive, regression = zip(*outputs, strict=True)
    return torch.cat(contrastive), torch.cat(regression)
