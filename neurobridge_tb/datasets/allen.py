"""Allen Visual Coding Neuropixels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from neurobridge_tb._upstream import Data, Interval, get_processed_dir
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.errors import InputError


class AllenVisualCodingNeuropixels2019(BinnedRecordings):
    """Spikes of mouse visual cortex, thalamus and hippocampus during natural scenes, movies, gratings and flashes.

    .. admonition:: Preprocessing

        To download and prepare this dataset, run

        .. code:: shell

            brainsets prepare allen_visual_coding_neuropixels_2019

    A recording is a session, named by its number. It holds ``spikes`` of the units that passed the quality filter,
    ``units`` (id, area, probe, depth in um, metrics), one Interval for each stimulus (``natural_scenes`` with
    ``image_id``, ``frame``, ``blank``, ``repeat``), ``running.running_speed`` (n, 1) in cm/s where it was measured, and
    ``invalid_times``. Unit ids are unique over sessions.

    **References**

    Siegle, J. H., Jia, X., et al. *Survey of spiking in the mouse visual system reveals functional hierarchy.* Nature
    592 (2021). Data: `Allen Brain Observatory
    <https://portal.brain-map.org/circuits-behavior/visual-coding-neuropixels>`_, Allen Institute terms of use.

    Args:
        root: Folder given to ``brainsets prepare`` as ``--processed-dir``. Default: the one in the brainsets config.
        recording_ids: Sessions to use, e.g. ``["715093703"]``. Default: all in the folder.
        transform: Applied to each window, e.g. ``model.tokenize``. Default: none.
        split_type: What :meth:`get_sampling_intervals` gives for a split. ``"stimuli"``: stretches of time under any
            stimulus, for windows that lie anywhere inside; ``"natural_scenes"``: one interval for each presentation of
            a natural scene or of the blank screen, 0.25 s; None: only the whole recordings can be sampled. Default
            ``"stimuli"``.
        dirname: Folder below ``root``. Default ``"allen_visual_coding_neuropixels_2019"``.
        **kwargs: Further arguments of ``torch_brain.datasets.Dataset``.
    """

    how_to_make = "Run: brainsets prepare allen_visual_coding_neuropixels_2019 --raw-dir RAW --processed-dir PROCESSED"

    def __init__(
        self,
        root: str | Path | None = None,
        recording_ids: Sequence[str | int] | None = None,
        transform: Callable | None = None,
        split_type: Literal["stimuli", "natural_scenes"] | None = "stimuli",
        dirname: str = "allen_visual_coding_neuropixels_2019",
        **kwargs: Any,
    ):
        if split_type not in ("stimuli", "natural_scenes", None):
            raise InputError(
                expected="split_type 'stimuli', 'natural_scenes' or None",
                found=repr(split_type),
                fix="Choose how the recordings are sampled.",
            )
        super().__init__(
            Path(get_processed_dir() if root is None else root) / dirname,
            recording_ids=None if recording_ids is None else [str(session) for session in recording_ids],
            transform=transform,
            **kwargs,
        )
        self.split_type = split_type

    def get_sampling_intervals(self, split: Literal["train", "valid", "test"] | None = None) -> dict[str, Interval]:
        """Intervals of each recording to draw windows from, see ``split_type``.

        Args:
            split: ``"train"``, ``"valid"`` or ``"test"``. Default: the whole recordings.

        Raises:
            InputError: ``split_type`` is None, or there is no such split.
        """
        if split is not None and self.split_type is None:
            raise InputError(
                expected="split_type='stimuli' or 'natural_scenes', for sampling a split",
                found="split_type=None",
                fix="Leave out the split, or make the Dataset with a split_type.",
            )
        return super().get_sampling_intervals(split)

    def _intervals(self, data: Data, key: str) -> Interval:
        intervals = super()._intervals(data, key)
        if key == "domain" or self.split_type != "natural_scenes":
            return intervals
        scenes = data.natural_scenes
        chosen = scenes.split == key.removesuffix("_domain")
        return Interval(scenes.start[chosen], scenes.end[chosen])
