"""The settings of a run on disk, and whether others are the same."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from neurobridge_tb.configs.settings import RunConfig
from neurobridge_tb.errors import InputError, first_line, remedy
from neurobridge_tb.files import check_replaceable, read_json, write_aside, write_json

_OF_TRAININGS = ("checkpoints", "metrics.csv", "sources.json", "start.json", "masked_example.npz")  # after config.yaml
_PARTS, _PART_BYTES = 16, 16_384  # of a file that are compared
_MAY_CHANGE = {"trainer", "command", "device", "precision", "compile", "loader.num_workers"}


class Settings:
    """Settings of a run: ``config.yaml``, and ``sources.json`` with the checksums of what it starts from.

    Args:
        config: The run's config.
        recordings: Files that it reads; none are compared where none are given.
    """

    def __init__(self, config: RunConfig, recordings: Iterable[Path] = ()):
        self._kind, self._config = type(config), OmegaConf.structured(config)
        described = list(described_settings(config))
        self._may_change = _MAY_CHANGE | {name for name, _, metadata in described if metadata["path"]}
        sources = {name: value for name, value, metadata in described if metadata["source"] and value}
        self._sources: dict[str, Any] = {name: _checksum(str(value)) for name, value in sources.items()}
        if sums := {path.stem: _sampled_checksum(path) for path in recordings}:
            self._sources["recordings"] = sums

    def save(self, folder: Path) -> None:
        """Write both files."""
        with write_aside(folder / "config.yaml") as aside:
            aside.write_text(OmegaConf.to_yaml(self._config, resolve=True), encoding="utf-8")
        write_json(folder / "sources.json", self._sources)

    def differences(self, folder: Path) -> list[str]:
        """Settings that differ from those saved in a folder, e.g. ``model.dim (128, now 256)``.

        A setting that the saved run did not know yet had its default. Of a source, the contents are compared.
        """
        new = OmegaConf.create(OmegaConf.to_yaml(self._config, resolve=True))
        found = list(self._unlike(self._read(folder / "config.yaml"), new))
        path = folder / "sources.json"
        saved = read_json(path) if path.exists() else self._sources
        compared = {*saved, *self._sources}
        if not ("recordings" in saved and "recordings" in self._sources):  # older versions noted none
            compared.discard("recordings")
        others = [name for name in sorted(compared) if saved.get(name) != self._sources.get(name)]
        return found + [f"{name} (of other contents)" for name in others]

    def _read(self, path: Path) -> Any:
        saved: Any = load_settings(path)
        saved.pop("trainer", None)  # it may change, whatever settings it had
        try:
            saved = OmegaConf.merge(OmegaConf.structured(self._kind), saved)
        except OmegaConfBaseException:  # of an older version, with settings that there are no more
            pass
        return OmegaConf.create(OmegaConf.to_yaml(saved, resolve=True))

    def _unlike(self, old: Any, new: Any, name: str = "") -> Iterator[str]:
        if name in self._may_change:
            return
        if isinstance(old, DictConfig) and isinstance(new, DictConfig):
            for key in sorted({*old, *new}, key=str):
                yield from self._unlike(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        elif old != new:
            yield f"{name} ({old}, now {new})"


def described_settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and metadata of every setting."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from described_settings(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field.metadata


def _checksum(source: str) -> str:
    """SHA-256 of a file, or of all files in a folder; what is neither (a name on a hub) stands for itself."""
    path = Path(source)
    if not path.exists():
        return source
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _sampled_checksum(path: Path) -> str:
    """SHA-256 of a file's length and of parts of it, as recordings may be large."""
    length = path.stat().st_size
    digest = hashlib.sha256(str(length).encode())
    with path.open("rb") as stream:
        for part in range(_PARTS):
            stream.seek(length * part // _PARTS)
            digest.update(stream.read(_PART_BYTES))
    return digest.hexdigest()


def load_settings(path: Path) -> DictConfig:
    """A run's ``config.yaml``.

    Raises:
        InputError: It cannot be read, or holds no settings.
    """
    fix = "Restore the file, name another run folder, or delete this one to start over."
    try:
        saved: Any = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        saved, fix = first_line(error), remedy(error, fix)
    if not isinstance(saved, DictConfig):
        raise InputError(
            expected=f"the settings of a run in {path}",
            found=saved if isinstance(saved, str) else "a list",
            fix=fix,
        )
    return saved


def check_run_folder(folder: str | Path) -> None:
    """Refuse a folder with files of another program where a run would replace them.

    Raises:
        InputError: It is a file, or such a file is in it.
    """
    if not str(folder):
        raise InputError(expected="the folder of a run", found="an empty run_dir", fix="Name one, e.g. run_dir=runs/a.")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(expected=f"a folder, or nothing, at {folder}", found="a file", fix="Name another run_dir.")
    check_replaceable(folder / "config.yaml", _is_of_run, "the settings of a run")
    if (folder / "config.yaml").exists():
        return
    for name in ("metrics.json", "retrieval.json"):
        check_replaceable(folder / name, lambda path: "command" in read_json(path), "the results of a run")
    if others := [name for name in _OF_TRAININGS if (folder / name).exists()]:
        raise InputError(
            expected=f"a run in {folder}, or none of the files that a run writes",
            found=f"{', '.join(others)}, and no config.yaml of a run",
            fix="Name another run_dir, or move them; nothing was changed.",
        )


def _is_of_run(path: Path) -> bool:
    """Whether settings are those of a run; of a damaged file it cannot be told, and reading it says so."""
    try:
        return "run_dir" in load_settings(path)
    except InputError:
        return True


def masking_of_run(model: Path) -> dict[str, float] | None:
    """Masking schemes of the run that left a model, ``RUN_DIR/model``; None where the model lies elsewhere."""
    path = model.parent / "config.yaml"
    masking = load_settings(path).get("masking") if path.is_file() else None
    return {str(name): float(weight) for name, weight in masking.items()} if isinstance(masking, DictConfig) else None
