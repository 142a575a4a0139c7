"""What experiments start from, told by its contents."""

import hashlib
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import read_json, write_json


class Inputs:
    """Checksums of files and folders. A file is read again only where its size or its time has changed.

    Args:
        memory: JSON file in which the checksums are kept.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        self._files: dict[str, Any] = read_json(memory) if memory.is_file() else {}
        self._found: dict[tuple[Path, tuple[str, ...]], str] = {}

    def digest(self, path: Path, setting: str, recording_ids: list[str] | None = None) -> str:
        """SHA-256 over the content of a file, or over names and contents of all files in a folder.

        Args:
            path: File or folder.
            setting: The setting that names it. Of ``dataset.root`` only recordings (.h5) count.
            recording_ids: Of ``dataset.root``, only these recordings count; None: all.

        Raises:
            InputError: There is none.
        """
        recordings = tuple(recording_ids or ()) if setting == "dataset.root" else ()
        key = (path.absolute(), recordings)
        if key not in self._found:
            self._found[key] = self._digest(path.absolute(), setting, recordings)
        return self._found[key]

    def save(self) -> None:
        """Keep the checksums for the next time."""
        write_json(self._memory, self._files)

    def _digest(self, path: Path, setting: str, recordings: tuple[str, ...]) -> str:
        if not path.exists():
            raise InputError(expected=f"a path for {setting}", found=f"none at {path}", fix="Correct the path.")
        pattern = "*.h5" if setting == "dataset.root" else "*"
        files = [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
        ends = tuple(f"/{recording.removesuffix('.h5')}.h5" for recording in recordings)
        chosen = [file for file in files if file.as_posix().endswith(ends)] if ends else files
        if not chosen:
            names = f" {', '.join(recordings)}" if recordings else ""
            raise InputError(
                expected=f"recordings{names} (.h5) in the folder of {setting}",
                found=f"none in {path}",
                fix="Name the folder that was given to `brainsets prepare` as --processed-dir, or its recordings.",
            )
        whole = hashlib.sha256()
        for file in chosen:
            name = "" if path.is_file() else file.relative_to(path).as_posix()
            whole.update(f"{name}\0{self._of_file(file)}\n".encode())
        return whole.hexdigest()

    def _of_file(self, file: Path) -> str:
        state = file.stat()
        known = self._files.get(str(file))
        if known is None or known[:2] != [state.st_size, state.st_mtime_ns]:
            with file.open("rb") as stream:
                known = [state.st_size, state.st_mtime_ns, hashlib.file_digest(stream, "sha256").hexdigest()]
            self._files[str(file)] = known
        return str(known[2])
