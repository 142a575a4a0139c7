"""A Dataset over any folder of recordings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py

from neurobridge_tb._upstream import Data, Dataset, Interval, SpikingDatasetMixin
from neurobridge_tb.errors import InputError, remedy
from neurobridge_tb.files import visible

_OTHER_FILES = 100  # that a process has open besides


class BinnedRecordings(SpikingDatasetMixin, Dataset):
    """Recordings of spikes, binned counts or MUA in one folder, one ``<recording_id>.h5`` each.

    For your own data: :func:`neurobridge_tb.datasets.build_recording` makes the files. Windows are read lazily, as in
    every torch_brain Dataset; ``get_unit_ids()`` gives all unit ids, sorted. Recordings that use the same unit id share
    that unit; set ``spiking_dataset_mixin_uniquify_unit_ids`` to True to put the session id before each unit id.

    Args:
        root: Folder of the ``.h5`` files.
        recording_ids: Recordings to use. Default: all in the folder.
        transform: Applied to each window, e.g. ``model.tokenize``. Default: none.
        **kwargs: Further arguments of ``torch_brain.datasets.Dataset``.

    Attributes:
        paths: The recordings' files.

    Raises:
        InputError: The folder has no recording, not the one named, or a file that is not a recording.
    """

    how_to_make = "Make one with `neurobridge import`, or from arrays with neurobridge_tb.datasets.build_recording."

    def __init__(
        self,
        root: str | Path,
        recording_ids: list[str] | None = None,
        transform: Callable | None = None,
        **kwargs: Any,
    ):
        self._folder = folder = Path(root)
        found = [path.stem for path in visible(folder, "*.h5")]
        wanted = found if recording_ids is None else sorted(recording_ids)
        missing = sorted(set(wanted) - set(found))
        if missing or not wanted:
            raise InputError(
                expected=f"{', '.join(f'{r}.h5' for r in missing) or 'recordings (.h5 files)'} in {folder}",
                found=", ".join(found) or ("no .h5 file" if folder.is_dir() else "no such folder"),
                fix=self.how_to_make,
            )
        self.paths = [folder / f"{recording_id}.h5" for recording_id in wanted]
        may_stay_open = _raise_open_file_limit(len(wanted) + _OTHER_FILES)
        try:
            super().__init__(
                dataset_dir=folder,
                recording_ids=wanted,
                transform=transform,
                keep_files_open=kwargs.pop("keep_files_open", may_stay_open),
                namespace_attributes=["session.id", "subject.id", "units.id"],
                **kwargs,
            )
        except InputError:
            raise
        except Exception as error:  # of a damaged file upstream's readers raise whatever comes of it
            raise InputError(
                expected=f"recordings made by torch_brain pipelines or build_recording in {folder}",
                found=f"among {', '.join(f'{r}.h5' for r in wanted)} a file that cannot be opened as one ({error})",
                fix=remedy(error, f"`neurobridge validate {folder}/*.h5` tells which, and why. {self.how_to_make}"),
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process (a loader's worker) opens files of its own: HDF5 files cannot be sent there."""
        return {name: value for name, value in self.__dict__.items() if name != "_data_objects"} | {
            "_reopen": "_data_objects" in self.__dict__
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        reopen = state.pop("_reopen")
        self.__dict__.update(state)
        if reopen:
            files = {r: h5py.File(self._folder / f"{r}.h5") for r in self.recording_ids}
            self._data_objects = {r: Data.from_hdf5(file) for r, file in files.items()}

    def __copy__(self) -> "BinnedRecordings":
        """A shallow copy shares the open files."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def get_sampling_intervals(self, split: Literal["train", "valid", "test"] | None = None) -> dict[str, Interval]:
        """Intervals of each recording to draw windows from.

        Args:
            split: ``"train"``, ``"valid"`` or ``"test"``. Default: the whole recordings.

        Raises:
            InputError: A recording has no such split.
        """
        key = "domain" if split is None else f"{split}_domain"
        return {rid: self._intervals(self.get_recording(rid), key) for rid in self.recording_ids}

    def _intervals(self, data: Data, key: str) -> Interval:
        if key != "domain" and key not in data.keys():
            raise InputError(
                expected=f"intervals '{key}' in recording {data.session.id}",
                found=", ".join(k for k in sorted(data.keys()) if k.endswith("_domain")) or "no split",
                fix="Ask for a split that the recording has, or build it again with splits={...}.",
            )
        return getattr(data, key)


def _raise_open_file_limit(wanted: int) -> bool:
    """Let this process have so many files open, as far as the system allows it; whether it does."""
    try:
        import resource
    except ImportError:  # Windows, whose limit is not per process
        return True
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft >= wanted
