"""Which file holds which image: the images of a folder, or a binding of image ids to files.

Where a command asks for images, it takes a folder, in which an image's id is its path (``aardvark/aardvark_01b.jpg``),
or a binding made by ``neurobridge images``: a JSON file ``{"folder": "/data/things", "files": {image id: path below
folder}}``. Nothing is followed out of the folder, be it by ``..``, by an absolute path or by a link.
"""

import json
import os
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import h5py
import numpy as np

from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.datasets.containment import lie_within
from neurobridge_tb.errors import InputError, remedy
from neurobridge_tb.files import check_replaceable, files_below, visible, write_json

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
RASTER_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # PIL's names; nothing that runs a program
_ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".7z"}


@dataclass(frozen=True)
class ImageBinding:
    """Image ids and their files.

    Attributes:
        folder: Where the files are.
        files: Image id to path below ``folder``.
        missing: Ids without a file.
        doubled: Ids with several files, and those files.
    """

    folder: Path
    files: dict[str, str]
    missing: list[str]
    doubled: dict[str, list[str]]

    def save(self, path: str | Path) -> None:
        """Write the JSON file, see above.

        Raises:
            InputError: Another kind of file is at ``path``.
        """
        check_replaceable(path, lambda old: bool(_read_binding(old)), "a binding of images")
        write_json(path, {"folder": str(self.folder.resolve()), "files": self.files})


def find_images(images: str | Path) -> list[str]:
    """Ids of all images of a folder or of a binding, sorted. Hidden files (``._a.jpg``) are left out.

    Raises:
        InputError: No such folder or file, or no image in it.
    """
    if is_binding(images):
        return sorted(_read_binding(Path(images))[1])
    folder = Path(images)
    ids = sorted(_images_below(folder)) if folder.is_dir() else []
    if not ids:
        raise InputError(
            expected=f"images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {folder}",
            found="none" if folder.is_dir() else what_is_there(folder),
            fix=f"Name a folder that holds the images, in subfolders or flat.{archive_advice(folder)}",
        )
    return ids


def bind_images(images: str | Path, image_ids: Iterable[str]) -> ImageBinding:
    """Look for the one file of each image id.

    An id's file is the one whose path below the folder is the id. Where there is none, it is the file whose path ends
    with the id, so that ``aardvark/aardvark_01b.jpg`` is found in ``object_images/``; an id without suffix
    (``natural_scene_5``) goes with any.

    Args:
        images: Folder of the image files, or a binding, whose ids stand for paths.
        image_ids: Repeated ids count once.

    Raises:
        InputError: No such folder, no image in it, or an id that leads out of it.
    """
    ids = list(dict.fromkeys(str(i) for i in image_ids))
    found = find_images(images)
    folder, paths = _read_binding(Path(images)) if is_binding(images) else (Path(images), {p: p for p in found})
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in found:
        by_name[_bare(path.rpartition("/")[2])].append(path)
    files: dict[str, str] = {}
    doubled: dict[str, list[str]] = {}
    for image_id in ids:
        check_inside_folder(image_id)
        named = by_name[_bare(image_id.rpartition("/")[2])]
        matches = [image_id] if image_id in paths else [p for p in named if f"/{p}".endswith(f"/{image_id}")]
        if _bare(image_id) == image_id:
            matches = matches or [p for p in named if f"/{_bare(p)}".endswith(f"/{image_id}")]
        if len(matches) == 1:
            files[image_id] = paths[matches[0]]
            _resolve(folder, check_inside_folder(files[image_id]))
        elif matches:
            doubled[image_id] = matches
    return ImageBinding(folder, files, [i for i in ids if i not in files and i not in doubled], doubled)


def image_paths(images: str | Path, image_ids: Sequence[str]) -> dict[str, Path]:
    """Files of image ids in a folder or a binding; ids without a file are left out.

    Raises:
        InputError: A path that leads out of the folder, or a binding that cannot be read.
    """
    if is_binding(images):
        folder, files = _read_binding(Path(images))
    else:
        folder, files = Path(images), {image_id: image_id for image_id in image_ids}
    paths = {i: _resolve(folder, check_inside_folder(files[i])) for i in image_ids if i in files}
    return {image_id: path for image_id, path in paths.items() if path.is_file()}


def held_out_images(images: str | Path, recordings: str | Path) -> set[str]:
    """Which images of a folder or binding recordings show in their test splits: no decoder may learn from them.

    Args:
        images: Folder of the image files, or a binding.
        recordings: HDF5 file with presentations that have a column ``image_id``, and a ``test_domain`` or a column
            ``split``; or a folder of such files.

    Returns:
        Ids as :func:`find_images` names them.

    Raises:
        InputError: No recording, no test presentations in one, or one whose image has no file, or several.
    """
    if not Path(recordings).is_dir():
        return _held_out(images, Path(recordings))
    found = visible(recordings, "*.h5")
    if not found:
        raise InputError(
            expected=f"recordings (.h5) in {recordings}",
            found="none",
            fix="Name a recording, or the folder they lie in.",
        )
    return set[str]().union(*(_held_out(images, recording) for recording in found))


def _held_out(images: str | Path, recording: Path) -> set[str]:
    recorded_image_ids(recording)  # it is one, and has images
    with h5py.File(recording, "r") as file:
        shown = {image_id for group in file.values() if _has_images(group) for image_id in _shown_in_test(file, group)}
    if not shown:
        raise InputError(
            expected=f"presentations within the test_domain of {recording}, or with split 'test'",
            found="none",
            fix="Name the recording whose test images are to be left out, or leave exclude= out.",
        )
    binding = bind_images(images, sorted(shown))
    lacking = [*binding.missing, *binding.doubled]
    if lacking:
        raise InputError(
            expected=f"one file in {images} for each of the {len(shown)} test images of {recording}",
            found=f"none, or several, for {len(lacking)}: {', '.join(lacking[:4])}",
            fix="`neurobridge images` shows which; images that are not found could not be left out.",
        )
    files = {os.path.realpath(binding.folder / path) for path in binding.files.values()}
    paths = _read_binding(Path(images))[1] if is_binding(images) else {i: i for i in find_images(images)}
    return {image_id for image_id, path in paths.items() if os.path.realpath(binding.folder / path) in files}


def recorded_image_ids(path: str | Path) -> list[str]:
    """Ids of the images that a recording names: the column ``image_id`` of its intervals, each once.

    Blank presentations are left out: those without an id, or marked in a column ``blank``.

    Raises:
        InputError: Not a recording, or none with images.
    """
    try:
        with h5py.File(path, "r") as file:
            columns = [_shown(group) for group in file.values() if _has_images(group)]
    except Exception as error:  # of a damaged file h5py raises OSError, RuntimeError, KeyError and what comes of them
        fix = remedy(error, "Prepare it, or check the path.")
        raise InputError(expected=f"a recording (HDF5) at {path}", found=str(error), fix=fix) from error
    if not columns:
        raise InputError(
            expected=f"presentations with a column image_id in {path}",
            found="none",
            fix="Only recordings during images have them; see docs/own_data.md on adding presentations.",
        )
    return [image_id for image_id in dict.fromkeys(i for column in columns for i in column) if image_id]


def is_binding(images: str | Path) -> bool:
    """Whether this is a JSON file rather than a folder."""
    return Path(images).suffix == ".json" and not Path(images).is_dir()


def check_inside_folder(path: str) -> str:
    """Raise an InputError where an image id or path is absolute or has ``..``; returns it otherwise."""
    leads_out = ".." in PurePosixPath(path.replace("\\", "/")).parts
    if not path or path.startswith("/") or PureWindowsPath(path).anchor or leads_out or "\0" in path:
        raise InputError(
            expected="image ids below the images folder, like 'aardvark/aardvark_01b.jpg'",
            found=repr(path),
            fix="Remove '..' and leading '/' from the ids.",
        )
    return path


def what_is_there(path: Path) -> str:
    """What a path is that should have been a folder of images."""
    if not path.exists():
        return "no such folder"
    return f"an archive, {path.name}" if path.suffix.lower() in _ARCHIVE_SUFFIXES else "a file"


def archive_advice(path: Path) -> str:
    """What to do with the archives at a path or directly in it; empty where there is none.

    THINGS' photos come as encrypted zip files. Nothing is unpacked here, and members that would be written outside of
    the folder are named.
    """
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    archives = [p for p in inside if p.is_file() and p.suffix.lower() in _ARCHIVE_SUFFIXES]
    if not archives:
        return ""
    advice = f" Unpack {', '.join(p.name for p in archives[:5])} first, and name the folder that comes out."
    members = [(p, *_members(p)) for p in archives]
    if any(encrypted for _, encrypted, _ in members):
        advice += (
            " It is encrypted: for THINGS, accept the terms of use at https://osf.io/jum2f, where the password is, and "
            "unpack with it (7z x ARCHIVE asks for it)."
        )
    for archive, _, names in members:
        for name in names:
            try:
                check_inside_folder(name)
            except InputError:
                return f" Do not unpack {archive.name}: its member {name!r} leads out of the folder."
    return advice


def _members(archive: Path) -> tuple[bool, list[str]]:
    """Whether an archive is encrypted, and what its members, and the links among them, point to."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                return any(m.flag_bits & 1 for m in content.infolist()), content.namelist()
        with tarfile.open(archive) as tar:
            parents = {m.name: str(PurePosixPath(m.name).parent) for m in tar if m.issym()}
            links = [os.path.normpath(f"{parents.get(m.name, '.')}/{m.linkname}") for m in tar if m.linkname]
            absolute = [m.linkname for m in tar if m.linkname.startswith("/")]
            return False, [*tar.getnames(), *links, *absolute]
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError):
        return False, []


def _images_below(folder: Path) -> Iterable[str]:
    for path in files_below(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield path.relative_to(folder).as_posix()


def _resolve(folder: Path, path: str) -> Path:
    """The file at a path below a folder; a link may only lead to elsewhere in the folder."""
    real, root = os.path.realpath(folder / path), os.path.realpath(folder)
    if os.path.commonpath([real, root]) != root:
        raise InputError(
            expected=f"image files inside {folder}",
            found=f"{path}, a link to {real}",
            fix="Copy the file into the folder, or name the folder that the links lead to.",
        )
    return folder / path


def _read_binding(path: Path) -> tuple[Path, dict[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        folder, files = Path(content["folder"]), dict(content["files"])
        if not all(isinstance(name, str) for name in files.values()):
            raise ValueError("a file that is not named by a text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            expected=f"a binding of images, made by `neurobridge images`, at {path}",
            found=f"{type(error).__name__}: {error}",
            fix="Make it again: neurobridge images FOLDER RECORDING... --out images.json",
        ) from error
    if not folder.is_dir() or not files:
        raise InputError(
            expected=f"the folder of the images that {path} names",
            found=f"no folder at {folder}" if files else "no image in the binding",
            fix="If the images were moved, make the binding again with `neurobridge images`.",
        )
    return folder, files


def _bare(path: str) -> str:
    """A path without the suffix of an image file."""
    stem, dot, suffix = path.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else path


def _shown(presentations: h5py.Group) -> list[str]:
    image_ids = as_text(presentations["image_id"][:])
    kept = ~presentations["blank"][:].astype(bool) if "blank" in presentations else np.ones(len(image_ids), dtype=bool)
    return image_ids[kept].tolist()


def _shown_in_test(file: h5py.File, presentations: h5py.Group) -> Iterator[str]:
    """Images of the presentations that lie within the test split, or that a column ``split`` calls test."""
    ids = as_text(presentations["image_id"][:])
    in_test = as_text(presentations["split"][:]) == "test" if "split" in presentations else np.zeros(len(ids), bool)
    if "test_domain" in file:
        bounds, domain = (np.stack([x["start"][:], x["end"][:]], 1) for x in (presentations, file["test_domain"]))
        in_test |= lie_within(bounds, domain)
    yield from (str(image_id) for image_id in ids[in_test] if image_id)


def _has_images(group: object) -> bool:
    return isinstance(group, h5py.Group) and isinstance(group.get("image_id"), h5py.Dataset)
