"""IBL BrainWideBench: finished recordings, with the benchmark's own splits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurobridge_tb._upstream import Data, Interval, get_processed_dir
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.errors import InputError

_SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}


class IblBrainWideBench2026(BinnedRecordings):
    """Neuropixels sessions of IBL's Brain-Wide Map as the BrainWideBench benchmark publishes them.

    The files are finished recordings: nothing is prepared. 423 sessions are for pretraining, 29 others for evaluation.

    .. code:: shell

        aws s3 sync s3://brain-wide-bench/brainsets/selected_units/ ./data/selected_units --no-sign-request

    A recording holds ``spikes``, ``units`` (``region_allen``, ``region_beryl``, ``region_cosmos``, ``firing_rate``,
    ``label``), ``wheel`` and trials. Unit ids are made unique by the session's id, as the benchmark's own loader does.

    **References**

    *BrainWideBench* (2026), arXiv:2609.22064, https://bwb.iblcore.org.

    Args:
        root: Folder of one build, e.g. ``data/selected_units``. Default: the one in the brainsets config.
        recording_ids: Sessions to use. Default: all in the folder.
        transform: Applied to each window, e.g. ``model.tokenize``. Default: none.
        regime: ``"pretrain"`` or ``"eval"``. Default ``"pretrain"``.
        suite: Whose splits are sampled: ``"pretrain"`` (which has no test split), ``"ts1"`` or ``"ts2"``, whose windows
            lie in task-aligned trials. Default: ``"pretrain"``, of evaluation sessions ``"ts2"``.
        atlas: Whose regions are the units' ``area``: ``"allen"``, ``"beryl"`` or ``"cosmos"``. Default ``"beryl"``.
        dirname: Folder below ``root``. Default ``"ibl_brain_wide_bench_2026"``.
        **kwargs: Further arguments of ``torch_brain.datasets.Dataset``.
    """

    spiking_dataset_mixin_uniquify_unit_ids = True
    how_to_make = (
        "Download it: aws s3 sync s3://brain-wide-bench/brainsets/selected_units/ ROOT --no-sign-request, "
        "and give ROOT as root."
    )

    def __init__(
        self,
        root: str | Path | None = None,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        regime: Literal["pretrain", "eval"] = "pretrain",
        suite: Literal["pretrain", "ts1", "ts2"] | None = None,
        atlas: Literal["allen", "beryl", "cosmos"] = "beryl",
        dirname: str = "ibl_brain_wide_bench_2026",
        **kwargs: Any,
    ):
        suites = {"pretrain": ("pretrain",), "eval": ("ts2", "ts1")}
        suite = suite or suites.get(regime, ("",))[0]  # type: ignore[assignment]
        if regime not in suites or suite not in suites[regime] or atlas not in ("allen", "beryl", "cosmos"):
            raise InputError(
                expected="regime 'pretrain', or 'eval' with suite 'ts1' or 'ts2'; atlas 'allen', 'beryl' or 'cosmos'",
                found=f"regime={regime!r}, suite={suite!r}, atlas={atlas!r}",
                fix="Correct the arguments.",
            )
        root = Path(get_processed_dir() if root is None else root)
        self.suite, self.atlas, self.build = suite, atlas, root.name
        super().__init__(
            root / dirname / regime,
            recording_ids=recording_ids,
            transform=transform,
            **kwargs,
        )

    def get_recording_hook(self, data: Data) -> None:
        """Unit ids with the session's id, and the atlas' regions as ``units.area``."""
        super().get_recording_hook(data)
        data.units.area = np.asarray(getattr(data.units, f"region_{self.atlas}")).astype(str)

    def get_sampling_intervals(
        self, split: Literal["train", "valid", "val", "test"] | None = None
    ) -> dict[str, Interval]:
        """Intervals of each recording to draw windows from: of the suite's split, or the whole recordings.

        Args:
            split: ``"train"``, ``"valid"`` (``"val"`` is the same) or ``"test"``. Default: the whole recordings.

        Raises:
            InputError: A recording has no such split.
        """
        key = "domain" if split is None else f"{self.suite}_{_SPLITS.get(split, split)}_domain"
        return {rid: self._intervals(self.get_recording(rid), key) for rid in self.recording_ids}

    def _intervals(self, data: Data, key: str) -> Interval:
        intervals = super()._intervals(data, key)
        return data.task_aligned_intervals.domain & intervals if key.startswith("ts2_") else intervals
