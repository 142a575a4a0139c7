"""The Brain-Wide Map of the International Brain Laboratory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from neurobridge_tb._upstream import Interval, get_processed_dir
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.errors import InputError


class IblBrainWideMap2025(BinnedRecordings):
    """Neuropixels spikes of mice that turn a wheel to answer visual stimuli, of most of the brain's areas.

    .. admonition:: Preprocessing

        To download and prepare sessions, run

        .. code:: shell

            brainsets prepare ibl_brain_wide_map_2025 --sessions LAB/Subjects/SUBJECT/DATE/NUMBER

    Recordings ``<lab>_<subject>_<date>_<number>`` hold the ``spikes`` of good units; ``units`` with ``area``,
    ``probe``, ``depth`` (um from the tip) and ``reference_features`` (N, 33), see
    :mod:`neurobridge_tb.datasets.reference_features`; ``wheel.position`` (n, 1) rad and ``wheel.velocity`` (n, 1) rad/s
    at 1 kHz, the modality ``wheel_velocity``; and ``trials``.

    **References**

    International Brain Laboratory. *A brain-wide map of neural activity during complex behaviour.* Nature (2025),
    `doi 10.1038/s41586-025-09235-0 <https://doi.org/10.1038/s41586-025-09235-0>`_.

    Args:
        root: Folder given to ``brainsets prepare`` as ``--processed-dir``. Default: the one in the brainsets config.
        recording_ids: Recordings to use. Default: all in the folder.
        transform: Applied to each window, e.g. ``model.tokenize``. Default: none.
        split_type: ``"blocks"``: blocks of time of each session train, validate and test, with 1 s left out between
            them; None: only the whole recordings can be sampled. Default ``"blocks"``.
        dirname: Folder below ``root``. Default ``"ibl_brain_wide_map_2025"``.
        **kwargs: Further arguments of ``torch_brain.datasets.Dataset``.
    """

    how_to_make = (
        "Run: brainsets prepare ibl_brain_wide_map_2025 --sessions LAB/Subjects/SUBJECT/DATE/NUMBER "
        "--raw-dir RAW --processed-dir PROCESSED"
    )

    def __init__(
        self,
        root: str | Path | None = None,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        split_type: Literal["blocks"] | None = "blocks",
        dirname: str = "ibl_brain_wide_map_2025",
        **kwargs: Any,
    ):
        super().__init__(
            Path(get_processed_dir() if root is None else root) / dirname,
            recording_ids=recording_ids,
            transform=transform,
            **kwargs,
        )
        self.split_type = split_type

    def get_sampling_intervals(self, split: Literal["train", "valid", "test"] | None = None) -> dict[str, Interval]:
        """Intervals of each recording to draw windows from; see ``split_type``."""
        if split is not None and self.split_type != "blocks":
            raise InputError(
                expected="split_type='blocks', for sampling a split",
                found=f"split_type={self.split_type!r}",
                fix="Leave out the split, or make the Dataset with split_type='blocks'.",
            )
        return super().get_sampling_intervals(split)
