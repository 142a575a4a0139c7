"""TVSD, the THINGS Ventral Stream Spiking Dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from neurobridge_tb._upstream import Interval, get_processed_dir
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import visible


class Tvsd(BinnedRecordings):
    """Multi-unit activity of macaque V1, V4 and IT during 22,248 THINGS images and 30 repeats of 100 test images.

    .. admonition:: Preprocessing

        To download and prepare this dataset, run

        .. code:: shell

            brainsets prepare tvsd             # norm
            brainsets prepare tvsd -s monkeyF_trials    # trials

    Recordings ``monkeyF_norm`` and ``monkeyN_norm`` hold ``mua.value`` (presentations, 1024), one value an image and
    channel normalised by the authors: presentation k is the window [0.4 k, 0.4 (k + 1)) s of a nominal time axis.
    Recordings ``monkeyF_trials`` and ``monkeyN_trials`` hold it in time bins, (30 presentations, 1024) at 10 ms, each
    z-scored by unit and day: a presentation is a window of 0.3 s, and its image is on in the last 0.2 s. NaN is an
    absent value. ``presentations`` names the image, ``units`` each channel's area and quality (``is_dead``, ``snr``,
    ``reliability``, ``latency_ms``). The image files are not part of it: see
    :class:`neurobridge_tb.datasets.StimulusImages`.

    **References**

    Papale, P., Wang, F., Self, M. W., & Roelfsema, P. R. *An extensive dataset of spiking activity to reveal the syntax
    of the ventral stream.* Neuron (2025). Data: `doi 10.12751/g-node.hc7zlv <https://doi.org/10.12751/g-node.hc7zlv>`_.

    Args:
        root: Folder given to ``brainsets prepare`` as ``--processed-dir``. Default: the one in the brainsets config.
        recording_ids: Recordings to use. Default: all of the variant.
        transform: Applied to each window, e.g. ``model.tokenize``. Default: none.
        split_type: ``"images"``: ``train`` and ``valid`` are disjoint training images, ``test`` the repeated ones;
            None: only the whole recordings can be sampled. Default ``"images"``.
        dirname: Folder below ``root``. Default ``"tvsd"``.
        variant: ``"norm"`` or ``"trials"``, where ``recording_ids`` are not given. Default ``"norm"``.
        **kwargs: Further arguments of ``torch_brain.datasets.Dataset``.

    Raises:
        InputError: The folder lacks the recordings, or a file is not a recording; the message names the command.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        split_type: Literal["images"] | None = "images",
        dirname: str = "tvsd",
        variant: Literal["norm", "trials"] = "norm",
        **kwargs: Any,
    ):
        folder = Path(get_processed_dir() if root is None else root) / dirname
        self.how_to_make = f"Run: brainsets prepare tvsd -s monkeyF_{variant} --raw-dir RAW --processed-dir PROCESSED"
        if recording_ids is None:
            recording_ids = [path.stem for path in visible(folder, f"*_{variant}.h5")]
        super().__init__(folder, recording_ids=recording_ids, transform=transform, **kwargs)
        self.split_type = split_type

    def get_sampling_intervals(self, split: Literal["train", "valid", "test"] | None = None) -> dict[str, Interval]:
        """Intervals of each recording, one a presentation of that split; see ``split_type``."""
        if split is not None and self.split_type != "images":
            raise InputError(
                expected="split_type='images', for sampling a split",
                found=f"split_type={self.split_type!r}",
                fix="Leave out the split, or make the Dataset with split_type='images'.",
            )
        return super().get_sampling_intervals(split)
