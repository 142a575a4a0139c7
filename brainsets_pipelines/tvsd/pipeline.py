# /// brainset-pipeline
# python-version = "3.11"
# dependencies = [
#   "h5py==3.16.0",
#   "requests==2.34.2",
# ]
# ///
"""TVSD, the THINGS Ventral Stream Spiking Dataset (Papale et al., Neuron 2025), normalised responses.

Two macaques, 16 Utah arrays of 64 channels each in V1, V4 and IT, multi-unit activity while they saw 22,248 THINGS
images once and 100 more 30 times (200 ms on, 200 ms off). One value an image and channel.

Raw files, below ``<raw-dir>/tvsd``; what is missing is downloaded from the GIN repository ``paolo_papale/TVSD``
(doi 10.12751/g-node.hc7zlv, CC BY 4.0), about 0.2 GB a monkey:

    monkeyF/THINGS_normMUA.mat       train_MUA, test_MUA, test_MUA_reps, SNR_max, reliab, lats
    monkeyF/_logs/things_imgs.mat    names of the images, in the order of the rows
    simulation.json                  only beside simulated raw files: they are then called so

Output, ``<processed-dir>/tvsd/monkeyF_norm.h5``, a ``torch_brain.data.Data`` (or ``temporaldata.Data``) with

    mua             RegularTimeSeries, value (n_bins, n_units) float32, z units of the authors' normalisation, 2.5 Hz
    presentations   Interval, the 0.2 s of each image: image_id, image_index (row among the training images, -1 for
                    test images), concept, split, repeat, day and position (-1: unknown)
    units           ArrayDict: id (F/array05/ch312), area, array (from 1), channel (from 0), snr, reliability,
                    latency_ms, is_dead
    train_domain, valid_domain, test_domain    one interval of 0.4 s for each presentation of that split

The time axis is nominal, as these files do not hold the times: bin k is presentation k and starts at 0.4 k seconds. The
training rows come first, then the repeats of the test images, repeat by repeat. A value that is not finite, in a dead
channel or elsewhere, is stored as NaN and means "absent": readers leave it out of inputs and targets.

In a parallel run an item's errors are in ``<processed-dir>/tvsd/pipeline_logs/<item>.err``.
"""

import os
import sys
import time
import warnings
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath

import h5py
import numpy as np
import pandas as pd
import requests

try:  # torch_brain 0.2
    from torch_brain.data import (
        ArrayDict,
        BrainsetDescription,
        Data,
        DeviceDescription,
        Interval,
        RegularTimeSeries,
        SessionDescription,
        SubjectDescription,
    )
    from torch_brain.pipeline import BrainsetPipeline
except ImportError:  # the older line: temporaldata and brainsets
    from brainsets.descriptions import (
        BrainsetDescription,
        DeviceDescription,
        SessionDescription,
        SubjectDescription,
    )
    from brainsets.pipeline import BrainsetPipeline
    from temporaldata import ArrayDict, Data, Interval, RegularTimeSeries

GIN = "https://gin.g-node.org/paolo_papale/TVSD/raw/master"
SOURCE = "https://doi.org/10.12751/g-node.hc7zlv"
N_CHANNELS, CHANNELS_PER_ARRAY = 1024, 64
# First and last physical channel (from 0, last one excluded) of each area.
AREAS = {
    "F": {"V1": (0, 512), "IT": (512, 832), "V4": (832, 1024)},
    "N": {"V1": (0, 512), "V4": (512, 768), "IT": (768, 1024)},
}
STEP_S, IMAGE_ON_S = 0.4, 0.2
DEAD_VARIANCE = 1e-3  # of the median channel's variance
RETRY_WAITS_S = (1, 2, 4, 8, 16)


class RawFileError(ValueError):
    """A raw file, or an option, that cannot be used."""

    def __init__(self, *, expected, found, fix):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")


def fraction(text):
    if not 0 < float(text) < 1:
        raise ArgumentTypeError(f"between 0 and 1, both excluded, not {text}")
    return float(text)


def monkeys(text):
    names = sorted(set(text.split(",")))
    if set(names) - set(AREAS):
        raise ArgumentTypeError(f"F, N or F,N, not {text!r}")
    return names


def http_url(text):
    if not text.startswith(("http://", "https://")):
        raise ArgumentTypeError(f"an address that begins with http:// or https://, not {text!r}")
    return text.rstrip("/")


parser = ArgumentParser()
parser.add_argument("--monkeys", type=monkeys, help="F, N or F,N; default: those with raw files")
parser.add_argument("--valid-fraction", type=fraction, default=0.05, help="of training images")
parser.add_argument("--valid-by-concept", action="store_true", help="hold out whole concepts")
parser.add_argument("--seed", type=int, default=0, help="of the choice of validation images")
parser.add_argument("--base-url", type=http_url, default=GIN, help="where missing raw files are downloaded from")
parser.add_argument("--redownload", action="store_true", help="even if the raw files are there")
parser.add_argument("--reprocess", action="store_true", help="even if the HDF5 file is there")


class Pipeline(BrainsetPipeline):
    brainset_id = "tvsd"
    parser = parser

    @classmethod
    def get_manifest(cls, raw_dir, args):
        names = args.monkeys or [m for m in AREAS if responses_path(raw_dir, m).exists()]
        names = names or list(AREAS)
        if not args.redownload:
            try:
                for monkey in names:
                    check_raw(*raw_paths(raw_dir, monkey))
            except RawFileError as error:
                sys.exit(f"{error}\nOption --monkeys leaves a monkey out.")
        items = [{"id": f"monkey{m}_norm", "monkey": m} for m in names]
        return pd.DataFrame(items).set_index("id")

    def download(self, manifest_item):
        monkey = manifest_item.monkey
        for path in raw_paths(self.raw_dir, monkey):
            if self.args.redownload or not path.exists():
                address = path.relative_to(self.raw_dir).as_posix()
                download_file(f"{self.args.base_url}/{address}", path, self.update_status)
        return monkey

    def process(self, monkey):
        session_id = f"monkey{monkey}_norm"
        store_path = self.processed_dir / f"{session_id}.h5"
        if store_path.exists() and not self.args.reprocess:
            self.update_status("Skipped Processing")
            return

        responses, images = raw_paths(self.raw_dir, monkey)
        self.update_status("Reading image names")
        image_ids = {part: read_image_ids(images, part) for part in ("train", "test")}
        self.update_status("Reading responses")
        mua, quality = read_responses(responses, n_train=len(image_ids["train"]), n_test=len(image_ids["test"]))
        self.update_status("Creating splits")
        is_valid = choose_validation(
            image_ids["train"], self.args.valid_fraction, self.args.valid_by_concept, self.args.seed
        )
        presentations = make_presentations(image_ids["train"], image_ids["test"], is_valid, len(mua))

        edges = STEP_S * np.arange(len(mua) + 1)
        domains = {
            f"{split}_domain": Interval(edges[:-1][chosen], edges[1:][chosen])
            for split in ("train", "valid", "test")
            for chosen in [presentations.split == split]
        }
        data = Data(
            brainset=self.describe_brainset(),
            subject=SubjectDescription(id=f"monkey{monkey}", species="MACACA_MULATTA"),
            session=SessionDescription(id=session_id),
            device=DeviceDescription(id=f"monkey{monkey}_16_arrays", recording_tech="UTAH_ARRAY_MUA"),
            mua=RegularTimeSeries(value=mua, sampling_rate=1 / STEP_S),
            presentations=presentations,
            units=make_units(monkey, mua, quality),
            domain=Interval(0.0, float(edges[-1])),
            **domains,
        )

        self.update_status("Storing")
        aside = store_path.with_name(f".{store_path.name}.{os.getpid()}.part")
        try:
            with h5py.File(aside, "w") as file:
                data.to_hdf5(file)
            os.replace(aside, store_path)
        finally:
            aside.unlink(missing_ok=True)

    def describe_brainset(self):
        simulated = (self.raw_dir / "simulation.json").exists()
        return BrainsetDescription(
            id=self.brainset_id,
            origin_version="simulated" if simulated else "10.12751/g-node.hc7zlv",
            derived_version="1.0.0",
            source="simulated raw files" if simulated else SOURCE,
            description=("SIMULATED data in the format of TVSD, not a recording: " if simulated else "")
            + "multi-unit activity of macaque V1, V4 and IT while the animal sees THINGS images, one normalised "
            "value an image and channel, on a nominal time axis.",
            valid_fraction=self.args.valid_fraction,
            valid_by_concept=self.args.valid_by_concept,
            split_seed=self.args.seed,
        )


# Where the raw files are, and how they are fetched


def responses_path(raw_dir, monkey):
    return raw_dir / f"monkey{monkey}" / "THINGS_normMUA.mat"


def raw_paths(raw_dir, monkey):
    return responses_path(raw_dir, monkey), raw_dir / f"monkey{monkey}" / "_logs" / "things_imgs.mat"


def download_file(url, path, report):
    """Fetch a MATLAB v7.3 file into ``path``, continuing ``<path>.part`` where an earlier try was cut.

    Cut connections, timeouts and server errors are tried again after a growing wait; the count starts anew with each
    try that got further than all before. A server that ignores ``Range`` sends the file from its start.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    furthest, waits, trouble = -1, iter(RETRY_WAITS_S), None
    while True:
        try:
            fetch(url, part, report)
            break
        except (requests.RequestException, Incomplete) as error:
            trouble = error
        got = part.stat().st_size if part.exists() else 0
        if got > furthest >= 0:
            waits = iter(RETRY_WAITS_S)
        furthest = max(furthest, got)
        wait = next(waits, None)
        if wait is None:
            raise RawFileError(
                expected=f"the whole of {url}",
                found=f"{got:,} bytes after {len(RETRY_WAITS_S) + 1} tries without progress; last: {trouble}",
                fix=f"Check the network and run again: the download goes on from {part}. "
                f"Or copy the file to {path} by hand.",
            ) from trouble
        report(f"DOWNLOADING {path.name}: trying again in {wait} s")
        time.sleep(wait)
    try:
        open_mat73(part).close()
    except RawFileError:
        part.unlink()
        raise
    os.replace(part, path)


class Incomplete(Exception):
    """The connection ended, or the server failed, before the file was whole."""


def fetch(url, part, report):
    """One try: append to ``part`` what it lacks. Raises Incomplete or RequestException if trying again may help."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=(15, 60)) as reply:
        if reply.status_code == 416:  # nothing after these bytes: whole already, or longer than the file
            if reply.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            part.unlink()
            raise Incomplete("the part file did not fit the file on the server")
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise Incomplete(f"HTTP status {reply.status_code}")
        if reply.status_code not in (200, 206):
            raise RawFileError(
                expected=f"a file at {url}",
                found=f"HTTP status {reply.status_code} ({reply.reason})",
                fix=f"Check the address (option --base-url), or copy the file to {part.with_suffix('')} by hand.",
            )
        resumed = reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if reply.status_code == 206 and not resumed:
            part.unlink()
            raise Incomplete("the server sent another range than the one asked for")
        have = have if resumed else 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        shown = None
        with open(part, "ab" if resumed else "wb") as file:
            for block in reply.iter_content(1 << 16):
                file.write(block)
                have += len(block)
                percent = f"{100 * have // total} %" if total else f"{have >> 20} MB"
                if percent != shown:
                    report(f"DOWNLOADING {part.stem} {percent}")
                    shown = percent
    if total is not None and have != total:
        raise Incomplete(f"got {have:,} of {total:,} bytes")


# Reading the raw files


def open_mat73(path):
    """Open a MATLAB v7.3 file (HDF5), or say what is wrong with it."""
    fix = f"Copy the file again, or remove {path} and run with the network on (or use --redownload)."
    expected = f"a MATLAB v7.3 file (HDF5) at {path}"
    if not path.exists():
        raise RawFileError(expected=expected, found="no file there", fix=fix)
    if not h5py.is_hdf5(path):
        with open(path, "rb") as file:
            start = file.read(64)
        if start.startswith(b"MATLAB 5.0"):
            found = "a MATLAB v5 file"
            fix = "Save it in MATLAB with save(..., '-v7.3'), or take the published file."
        elif b"annex" in start or start.startswith(b"version https://git-lfs"):
            found = f"a pointer to the content instead of the content ({start!r})"
            fix = "Fetch the content (git annex get, gin get-content), or remove the file and let it be downloaded."
        else:
            found = f"{path.stat().st_size:,} bytes that are not HDF5, beginning with {start[:16]!r}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        found = f"a damaged or truncated file of {path.stat().st_size:,} bytes ({error})"
        raise RawFileError(expected=expected, found=found, fix=fix) from error


@contextmanager
def open_readable(path):
    """Like open_mat73, and damage that shows only when values are read is named too."""
    with open_mat73(path) as file:
        try:
            yield file
        except RawFileError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise RawFileError(
                expected=f"values that can be read in {path}",
                found=f"a damaged file ({error})",
                fix="Copy the file again, or download it again with --redownload.",
            ) from error


def variable(file, name, shape, kinds="fiu"):
    """The dataset ``name``, checked. ``shape`` holds a number where one is due and a word where any length is."""
    expected = f"variable '{name}' with shape ({', '.join(map(str, shape))}) in {file.filename}"
    fix = "Take the published THINGS_normMUA.mat and the things_imgs.mat that belongs to it."
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        found = f"variables {sorted(set(file) - {'#refs#'})}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    fits = len(dataset.shape) == len(shape) and all(
        size == due if isinstance(due, int) else size > 0 for size, due in zip(dataset.shape, shape, strict=True)
    )
    if not fits or dataset.dtype.kind not in kinds:
        found = f"shape {dataset.shape} of type {dataset.dtype}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    return dataset


def image_names(file, part):
    """References to the names of the ``train`` or ``test`` images, unread."""
    return variable(file, f"{part}_imgs/things_path", ("images", 1), kinds="O")


def response_variables(file, n_train, n_test):
    """The variables that are used, checked and unread."""
    shapes = {
        "train_MUA": (n_train, N_CHANNELS),
        "test_MUA_reps": ("repeats", n_test, N_CHANNELS),
        "SNR_max": (N_CHANNELS, 1),
        "reliab": ("pairs of repeats", N_CHANNELS),
        "lats": ("days", N_CHANNELS),
    }
    return {name: variable(file, name, shape) for name, shape in shapes.items()}


def check_raw(responses, images):
    """Check what is already there of a monkey's two raw files, without reading values."""
    for path in (responses, images):
        if path.exists():
            open_mat73(path).close()
    if responses.exists() and images.exists():
        with open_readable(images) as file:
            n_train, n_test = (len(image_names(file, part)) for part in ("train", "test"))
        with open_readable(responses) as file:
            response_variables(file, n_train, n_test)


def read_image_ids(path, part):
    """Image ids ``concept/file.jpg`` of the ``train`` or ``test`` images, in the order of the rows."""
    with open_readable(path) as file:
        characters = (file[reference][()] for reference in image_names(file, part)[:, 0])
        names = [array.astype(np.uint16).tobytes().decode("utf-16-le") for array in characters]
    return np.array([checked_image_id(name, path) for name in names])


def checked_image_id(name, path):
    image_id = name.replace("\\", "/")
    parts = PurePosixPath(image_id).parts
    if PureWindowsPath(name).anchor or ".." in parts or len(parts) < 2 or not image_id.isascii():
        raise RawFileError(
            expected="image names like 'concept\\file.jpg' in plain ASCII, below the image folder",
            found=f"{name!r} in {path}",
            fix="Take the published things_imgs.mat, or rename the images.",
        )
    return image_id


def read_responses(path, *, n_train, n_test):
    """Responses (n_train + repeats * n_test, channels) float32, and the quality of each channel."""
    with open_readable(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        raw = response_variables(file, n_train, n_test)
        mua = np.empty((n_train + raw["test_MUA_reps"].shape[0] * n_test, N_CHANNELS), dtype=np.float32)
        raw["train_MUA"].read_direct(mua[:n_train])
        raw["test_MUA_reps"].read_direct(mua[n_train:].reshape(raw["test_MUA_reps"].shape))
        quality = {
            "snr": raw["SNR_max"][:, 0],
            "reliability": np.nanmean(raw["reliab"][...], axis=0),
            "latency_ms": np.nanmean(raw["lats"][...], axis=0),
        }
    mua[~np.isfinite(mua)] = np.nan
    return mua, quality


# The tables of the output


def choose_validation(image_ids, valid_fraction, by_concept, seed):
    """Which training images validate: a seeded draw of images, or of whole concepts until there are enough."""
    rng = np.random.default_rng(seed)
    due = max(1, round(valid_fraction * len(image_ids)))
    group = concepts_of(image_ids) if by_concept else np.arange(len(image_ids))
    group, counts = np.unique(group, return_inverse=True, return_counts=True)[1:]
    order = rng.permutation(len(counts))
    n_chosen = np.searchsorted(np.cumsum(counts[order]), due) + 1
    is_valid = np.isin(group, order[:n_chosen])
    if is_valid.all():
        raise RawFileError(
            expected="training images on both sides of the training/validation split",
            found=f"{len(image_ids)} images in {len(counts)} groups, all chosen for validation",
            fix="Lower --valid-fraction, or leave out --valid-by-concept.",
        )
    return is_valid


def concepts_of(image_ids):
    return np.array([image_id.split("/")[0] for image_id in image_ids])


def make_presentations(train_ids, test_ids, is_valid, n_bins):
    n_train, n_repeats = len(train_ids), (n_bins - len(train_ids)) // len(test_ids)
    image_id = np.concatenate([train_ids, np.tile(test_ids, n_repeats)])
    row = np.arange(n_bins)
    start = STEP_S * row
    return Interval(
        start=start,
        end=start + IMAGE_ON_S,
        image_id=image_id,
        image_index=np.where(row < n_train, row, -1),
        concept=concepts_of(image_id),
        split=np.concatenate([np.where(is_valid, "valid", "train"), np.full(n_bins - n_train, "test")]),
        repeat=np.where(row < n_train, 0, (row - n_train) // len(test_ids)),
        day=np.full(n_bins, -1),
        position=np.full(n_bins, -1),
    )


def make_units(monkey, mua, quality):
    channel = np.arange(N_CHANNELS)
    array = channel // CHANNELS_PER_ARRAY + 1
    area = np.empty(N_CHANNELS, dtype="U2")
    for name, (first, last) in AREAS[monkey].items():
        area[first:last] = name
    return ArrayDict(
        id=np.array([f"{monkey}/array{a:02d}/ch{c:03d}" for a, c in zip(array, channel, strict=True)]),
        area=area,
        array=array,
        channel=channel,
        is_dead=find_dead(mua),
        **{key: value.astype(np.float32) for key, value in quality.items()},
    )


def find_dead(mua):
    """Channels with no value, or with next to no variance: an array that was not connected, a broken electrode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Degrees of freedom|All-NaN", RuntimeWarning)
        blocks = np.array_split(mua, len(mua.T) // CHANNELS_PER_ARRAY, axis=1)
        variance = np.concatenate([np.nanvar(block, axis=0, dtype=np.float64) for block in blocks])
    return ~(variance > DEAD_VARIANCE * np.nanmedian(variance))
