from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ._utils import get_processed_dir
from .dataset import Dataset
from .mixins import SpikingDatasetMixin


class PapaleTVSD2025(SpikingDatasetMixin, Dataset):
    """THINGS Ventral Stream Spiking Dataset: multi-unit activity of macaque V1, V4 and IT
    (1,024 electrodes) during 22,248 THINGS images, and 30 repeats of 100 test images.

    Recordings ``monkeyF_norm`` and ``monkeyN_norm`` hold ``mua.value`` of shape
    ``(presentations, 1024)``, one value per image and channel, normalized by the authors.
    Presentation ``k`` is the window ``[0.4 k, 0.4 (k + 1))`` of a nominal time axis.
    Recordings ``monkeyF_trials`` and ``monkeyN_trials`` hold it in time bins: a
    presentation is a window of 0.3 s, with its image on during the last 0.2 s. NaN marks
    absent values. ``presentations`` names the image, ``units`` each channel's area and
    quality. The images are not included.

    .. admonition:: Preprocessing

        To download and prepare this dataset, run

        .. code:: shell

            brainsets prepare papale_tvsd_2025
            brainsets prepare papale_tvsd_2025 -s monkeyF_trials

    **References**

    Papale, P., Wang, F., Self, M. W., & Roelfsema, P. R. (2025). *An extensive dataset of
    spiking activity to reveal the syntax of the ventral stream.* Neuron.
    `doi 10.12751/g-node.hc7zlv <https://doi.org/10.12751/g-node.hc7zlv>`_.

    Args:
        root: Root directory for the dataset. Defaults to ``processed_dir`` from the
            brainsets config.
        recording_ids: Recordings to use. Defaults to all in the folder.
        transform: Data transformation to apply.
        dirname: Subdirectory of ``root``.
    """

    def __init__(
        self,
        root: str | None = None,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        dirname: str = "papale_tvsd_2025",
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
        """Intervals to sample from, one per presentation of the split: ``train`` and
        ``valid`` are disjoint training images, ``test`` the repeated ones."""
        domain_key = "domain" if split is None else f"{split}_domain"
        return {
            rid: getattr(self.get_recording(rid), domain_key)
            for rid in self.recording_ids
        }
