from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ._utils import get_processed_dir
from .dataset import Dataset
from .mixins import SpikingDatasetMixin


class AllenVisualCodingNeuropixels2019(SpikingDatasetMixin, Dataset):
    """Spikes of mouse visual cortex, thalamus and hippocampus (up to six Neuropixels
    probes) during natural scenes, natural movies, gratings, Gabor patches and flashes;
    the 32 "Brain Observatory 1.1" sessions.

    A recording is a session, named by its number. It holds ``spikes`` of the units that
    pass the quality filter, ``units`` (id, area, probe, depth in um, metrics), an
    Interval per stimulus (``natural_scenes`` with ``image_id``, ``frame``, ``blank`` and
    ``repeat``), ``running.running_speed`` in cm/s, and ``invalid_times``.

    .. admonition:: Preprocessing

        To download and prepare this dataset, run

        .. code:: shell

            brainsets prepare allen_visual_coding_neuropixels_2019

    **References**

    Siegle, J. H., Jia, X., et al. (2021). *Survey of spiking in the mouse visual system
    reveals functional hierarchy.* Nature 592.
    `Data <https://portal.brain-map.org/circuits-behavior/visual-coding-neuropixels>`_.

    Args:
        root: Root directory for the dataset. Defaults to ``processed_dir`` from the
            brainsets config.
        recording_ids: Sessions to use. Defaults to all in the folder.
        transform: Data transformation to apply.
        dirname: Subdirectory of ``root``.
    """

    def __init__(
        self,
        root: str | None = None,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        dirname: str = "allen_visual_coding_neuropixels_2019",
        **kwargs,
    ):
        if root is None:
            root = get_processed_dir()
        super().__init__(
            dataset_dir=Path(root) / dirname,
            recording_ids=recording_ids,
            transform=transform,
            namespace_attributes=["session.id", "subject.id", "units.id"],
            **kwargs,
        )

    def get_sampling_intervals(
        self, split: Literal["train", "valid", "test"] | None = None
    ):
        """Intervals to sample from: stretches of time under any stimulus that belong to
        the split, or the whole recordings."""
        domain_key = "domain" if split is None else f"{split}_domain"
        return {
            rid: getattr(self.get_recording(rid), domain_key)
            for rid in self.recording_ids
        }
