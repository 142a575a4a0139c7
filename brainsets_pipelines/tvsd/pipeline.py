# /// brainset-pipeline
# python-version = "3.11"
# dependencies = [
#   "filelock==4.2.11",
#   "h5py==3.16.0",
#   "requests==2.34.2",
#   "scipy==1.17.1",
# ]
# ///
"""TVSD, the THINGS Ventral Stream Spiking Dataset (Papale et al., Neuron 2025), in two variants.

Two macaques, 16 Utah arrays of 64 channels each in V1, V4 and IT, multi-unit activity while they saw 22,248 THINGS
images once and 100 more 30 times (200 ms on, 200 ms off). ``norm`` (default) has one value an image and channel, as
normalised by the authors; ``trials`` (``-s monkeyF_trials``) has time bins from 100 ms before each image to 200 ms after
it.

Raw files, below ``<raw-dir>/tvsd``; what is missing is downloaded from the GIN repository ``paolo_papale/TVSD``
(doi 10.12751/g-node.hc7zlv, CC BY 4.0), about 0.2 GB a monkey, and 54-58 GB more for ``trials``:

    monkeyF/THINGS_normMUA.mat                    train_MUA, test_MUA_reps, SNR_max, reliab, lats
    monkeyF/_logs/things_imgs.mat                 names of the images, in the order of the rows
    monkeyF/THINGS_MUA_trials.mat                 trials: ALLMUA (300 ms, presentations, raw channels), ALLMAT, tb
    monkeyF/_logs/1024chns_mapping_20220105.mat   trials: mapping; physical channels are raw[mapping - 1]
    simulation.json                               only beside simulated raw files: they are then called so

Output, ``<processed-dir>/tvsd/monkeyF_norm.h5`` or ``monkeyF_trials.h5``, a ``torch_brain.data.Data`` (or
``temporaldata.Data``) with

    mua             RegularTimeSeries, value (n_bins, n_units) float32. norm: z units of the authors, 2.5 Hz. trials:
                    means over bins (10 ms: 100 Hz), z-scored with each unit's mean and deviation over all bins of the
                    day's training presentations
    presentations   Interval, the 0.2 s of each image: image_id, image_index (row among the training images, -1 for
                    test images), concept, split (train, valid, test or excluded), repeat (from 0), day and position in
                    the trial (from 1; -1: unknown); trials also: trial, and correct where the raw table has it
    units           ArrayDict: id (F/array05/ch312), area, array (from 1), channel (physical, from 0), snr, reliability,
                    latency_ms, is_dead; trials also: raw_mean and raw_deviation (n_units, n_days) of the z-scoring
    train_domain, valid_domain, test_domain    one interval for each presentation of that split: 0.4 s (norm) or 0.3 s

The time axis is nominal. norm: bin k is presentation k and starts at 0.4 k seconds; the training rows come first, then
the repeats of the test images, repeat by repeat. trials: windows of 0.3 s follow one another in the order of the file,
day by day, with an empty one (NaN, outside of all domains) between days; the image is on in the last 0.2 s.

A value that is not finite, in a dead channel or elsewhere, is stored as NaN and means "absent": readers leave it out of
inputs and targets. A bin is absent if one of its samples is. Dead channels are marked, not removed.

In a parallel run an item's errors are in ``<processed-dir>/tvsd/pipeline_logs/<item>.err``.
The file is long because upstream runs a pipeline from one file.
"""

import errno
import hashlib
import math
import os
import re
import shutil
import sys
import time
import warnings
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import contextmanager
from itertools import product
from pathlib import Path, PurePosixPath, PureWindowsPath

import h5py
import numpy as np
import pandas as pd
import requests
from filelock import FileLock, Timeout
from scipy.io import loadmat

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
NORM_STEP_S, IMAGE_ON_S = 0.4, 0.2
VALID_FRACTION, SEED = 0.05, 0  # of the training images that validate; of their choice
N_SAMPLES, BASELINE_MS = (
    300,
    100,
)  # of a presentation in the trial file, at 1 kHz; so much of it before the image
DEAD_VARIANCE = 1e-3  # of the median channel's variance
# Memory for a slab of the trial file. Small ones stay in the processor's cache; more only to have all channels at once.
SLAB_BYTES, WIDE_SLAB_BYTES, NORMALISED_ROWS = 48 << 20, 192 << 20, 512


class RawFileError(ValueError):
    """A raw file, an option, or a place to write to, that cannot be used."""

    def __init__(self, *, expected, found, fix):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")


def correlation(text):
    if not -1 <= float(text) <= 1:
        raise ArgumentTypeError(f"between -1 and 1, not {text}")
    return float(text)


def bin_size(text):
    """Seconds; a whole number of samples, with a bin's edge where the image comes on."""
    samples = round(1000 * float(text))
    if (
        samples < 1
        or BASELINE_MS % samples
        or not math.isclose(samples, 1000 * float(text))
    ):
        raise ArgumentTypeError(
            f"0.001, 0.002, 0.004, 0.005, 0.01, 0.02, 0.025, 0.05 or 0.1 s, not {text}"
        )
    return samples / 1000


parser = ArgumentParser()
parser.add_argument("--bin-size", type=bin_size, default=0.01, help="of trials, in s")
parser.add_argument(
    "--min-reliability",
    type=correlation,
    help="leave out units below; default: all stay",
)
parser.add_argument(
    "--valid-by-concept", action="store_true", help="whole concepts validate"
)
parser.add_argument(
    "--exclude-test-concepts",
    action="store_true",
    help="neither train nor validate on them",
)
parser.add_argument(
    "--redownload", action="store_true", help="even if the raw files are there"
)
parser.add_argument(
    "--reprocess", action="store_true", help="even if the HDF5 file is there"
)


class Pipeline(BrainsetPipeline):
    brainset_id = "tvsd"
    parser = parser

    @classmethod
    def get_manifest(cls, raw_dir, args):
        local = [m for m in AREAS if raw_paths(raw_dir, m, "norm")["norm"].exists()]
        items = {f"monkey{m}_norm": (m, "norm") for m in local or AREAS} | named_items()
        if not args.redownload:
            try:
                for monkey, variant in items.values():
                    check_raw(raw_paths(raw_dir, monkey, variant))
            except RawFileError as error:
                sys.exit(f"{error}\nOption -s prepares one item, e.g. -s monkeyF_norm.")
        rows = [{"id": i, "monkey": m, "variant": v} for i, (m, v) in items.items()]
        return pd.DataFrame(rows).set_index("id")

    def download(self, manifest_item):
        for path in raw_paths(
            self.raw_dir, manifest_item.monkey, manifest_item.variant
        ).values():
            address = f"{GIN}/{path.relative_to(self.raw_dir).as_posix()}"
            if self.args.redownload or not path.exists():
                with locked(path, self.update_status):
                    if self.args.redownload or not path.exists():
                        download_file(address, path, self.update_status, check_raw_file)
        return manifest_item.monkey, manifest_item.variant

    def process(self, item):
        monkey, variant = item
        path = self.processed_dir / f"monkey{monkey}_{variant}.h5"
        with locked(path, self.update_status):
            if path.exists() and not self.args.reprocess:
                check_options(path, self.options(variant))
                self.update_status("Skipped Processing")
                return
            raw = raw_paths(self.raw_dir, monkey, variant)
            self.update_status("Reading image names")
            images = {
                part: read_image_ids(raw["images"], part) for part in ("train", "test")
            }
            quality = read_quality(raw["norm"], images)
            kept = choose_units(
                monkey,
                quality["reliability"],
                self.args.min_reliability,
            )
            self.update_status(f"Keeping {len(kept)} of {N_CHANNELS} units")
            prepare = self.process_trials if variant == "trials" else self.process_norm
            prepare(path, monkey, raw, images, unit_table(monkey, quality, kept))

    def process_norm(self, path, monkey, raw, images, units):
        self.update_status("Reading responses")
        mua = read_responses(raw["norm"], images)
        is_dead = find_dead(variance_of_columns(mua))
        presentations = norm_presentations(
            images, choose_splits(images, self.args), len(mua)
        )
        mua = np.ascontiguousarray(mua[:, units["channel"]])
        start = NORM_STEP_S * np.arange(len(mua) + 1)
        data = Data(
            **self.descriptions(path, monkey, "norm"),
            mua=RegularTimeSeries(value=mua, sampling_rate=1 / NORM_STEP_S),
            presentations=presentations,
            units=ArrayDict(**units, is_dead=is_dead[units["channel"]]),
            domain=Interval(0.0, float(start[-1])),
            **split_domains(presentations.split, start[:-1], start[1:]),
        )
        self.update_status("Storing")
        with new_file(path, mua.nbytes) as file:
            data.to_hdf5(file)

    def process_trials(self, path, monkey, raw, images, units):
        samples = round(1000 * self.args.bin_size)
        n_bins = N_SAMPLES // samples
        raw_channel = read_mapping(raw["mapping"])[units["channel"]] - 1
        with open_mat73(raw["trials"]) as source:
            with reading(raw["trials"]):
                traces, table = trial_variables(source)
                order, slot, columns = trial_presentations(
                    table, images, choose_splits(images, self.args)
                )
            day = np.unique(columns["day"], return_inverse=True)[1]
            n_rows = n_bins * (slot[-1] + 1)
            with new_file(path, 4 * n_rows * len(raw_channel)) as file:
                # A presentation lies in one piece, uncompressed: gzip would make reading it several times slower.
                value = file.create_dataset(
                    "bins", (n_rows, len(raw_channel)), "f4", fill_time="never"
                )
                in_file_order = np.argsort(order)
                moments = bin_trials(
                    traces, value, slot=slot[in_file_order], day=day[in_file_order], samples=samples,
                    is_train=(columns["split"] == "train")[in_file_order], raw_channel=raw_channel,
                    report=self.update_status,
                )  # fmt: skip
                self.update_status("Normalising")
                mean, deviation, is_dead = unit_statistics(moments)
                normalise(value, slot, day, mean, deviation, raw_channel, n_bins)
                units |= {
                    "is_dead": is_dead,
                    "raw_mean": mean.T.copy(),
                    "raw_deviation": deviation.T.copy(),
                }
                self.update_status("Storing")
                self.trials_without_values(
                    path, monkey, columns, slot, units, samples
                ).to_hdf5(file)
                del file["mua/value"]
                file.move("bins", "mua/value")

    def trials_without_values(self, path, monkey, columns, slot, units, samples):
        """The whole recording, but ``mua.value`` has no units: its bins are in the file already."""
        start, image_on, end = (
            (N_SAMPLES * slot + sample) / 1000 for sample in (0, BASELINE_MS, N_SAMPLES)
        )
        bins = (
            N_SAMPLES * slot[:, None] + np.arange(0, N_SAMPLES, samples)
        ).ravel() / 1000
        mua = RegularTimeSeries.from_gappy_timeseries(  # it finds the gaps between days
            bins,
            sampling_rate=1000 / samples,
            value=np.empty((len(bins), 0), np.float32),
        )
        return Data(
            **self.descriptions(path, monkey, "trials"),
            mua=mua,
            presentations=Interval(start=image_on, end=end, **columns),
            units=ArrayDict(**units),
            domain=mua.domain,
            **split_domains(columns["split"], start, end),
        )

    def options(self, variant):
        """What the call says of the content of a file, noted in it."""
        names = ["valid_by_concept", "exclude_test_concepts", "min_reliability"]
        names += ["bin_size"] if variant == "trials" else []
        return {name: getattr(self.args, name) for name in names}

    def descriptions(self, path, monkey, variant):
        simulated = (self.raw_dir / "simulation.json").exists()
        return {
            "brainset": BrainsetDescription(
                id=self.brainset_id,
                origin_version="simulated" if simulated else "10.12751/g-node.hc7zlv",
                derived_version="1.1.0",
                source="simulated raw files" if simulated else SOURCE,
                description=(
                    "SIMULATED data in the format of TVSD, not a recording: "
                    if simulated
                    else ""
                )
                + "multi-unit activity of macaque V1, V4 and IT while the animal sees THINGS images, normalised, on a "
                "nominal time axis.",
                valid_fraction=VALID_FRACTION,
                split_seed=SEED,
                **self.options(variant),
            ),
            "subject": SubjectDescription(
                id=f"monkey{monkey}", species="MACACA_MULATTA"
            ),
            "session": SessionDescription(id=path.stem),
            "device": DeviceDescription(
                id=f"monkey{monkey}_16_arrays", recording_tech="UTAH_ARRAY_MUA"
            ),
        }


def check_options(path, options):
    """Refuse to take a file of other options for the one that is asked for."""
    with reading(path), h5py.File(path) as file:
        noted = dict(file["brainset"].attrs)
    other = [
        f"{name.replace('_', '-')} {noted.get(name)} (now {value})"
        for name, value in options.items()
        if (noted.get(name) or None) != (value or None)
    ]
    if other:
        raise RawFileError(
            expected=f"no {path.name}, or one made with the options of this call",
            found=f"{path} with {', '.join(other)}",
            fix="Add --reprocess to make it anew, or choose another --processed-dir.",
        )


def named_items():
    """Items that the command line names: ``-s monkeyF_trials``.

    Without a name all of the manifest is prepared, and trials take 54-58 GB a monkey.
    """
    words = {word.removeprefix("--single=") for word in sys.argv}
    known = {f"monkey{m}_{v}": (m, v) for m, v in product(AREAS, ("norm", "trials"))}
    return {name: item for name, item in known.items() if name in words}


# Where files are, and who writes them


def raw_paths(raw_dir, monkey, variant):
    folder = raw_dir / f"monkey{monkey}"
    paths = {
        "norm": folder / "THINGS_normMUA.mat",
        "images": folder / "_logs" / "things_imgs.mat",
    }
    if variant == "trials":
        paths["mapping"] = folder / "_logs" / "1024chns_mapping_20220105.mat"
        paths["trials"] = folder / "THINGS_MUA_trials.mat"
    return paths


@contextmanager
def new_file(path, n_bytes):
    """An HDF5 file with another name, which becomes ``path`` when the body has ended without an error."""
    room = f"{n_bytes / 1e9:.1f} GB"
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise RawFileError(
            expected=f"room for {room} in {path.parent}",
            found=f"{free / 1e9:.1f} GB",
            fix="Free some space, or choose another --processed-dir, and run again.",
        )
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_sieve_buf_size(
        0
    )  # bins that lie apart are then written without reading what is between them
    with written_aside(path, room) as aside:
        with h5py.File(h5py.h5f.create(os.fsencode(aside), fapl=access)) as file:
            yield file


# Download (a copy of ../_shared/download.py, made by sync.py)

RETRY_WAITS_S = (1, 2, 4, 8, 16)
ADVICE = {  # about a sound file that cannot be opened
    errno.EAGAIN: "It is open for writing elsewhere: close it there.",
    errno.EACCES: "You may not read it: check the permissions of the file and of its folder.",
    errno.EMFILE: "Too many files are open: raise the limit with `ulimit -n 4096`.",
    errno.ENOLCK: "The file system gives no locks: set HDF5_USE_FILE_LOCKING=FALSE.",
    errno.EIO: "The disk or the network reported a fault: try again.",
    errno.ESTALE: "The network file system lost it: try again.",
}


def unopened(path, error, *, expected, fix):
    """The error for a file that cannot be opened; ``fix`` is for one that is itself at fault."""
    advice = ADVICE.get(error.errno)
    if "already open for" in str(error):  # HDF5's mark of a writer
        advice = "It is open for writing elsewhere, or its writer was stopped: close it there, or `h5clear -s` a copy."
    state = "cannot be opened" if advice else "is damaged or truncated"
    found = f"{path.stat().st_size:,} bytes of a file that {state} ({error})"
    return RawFileError(expected=expected, found=found, fix=advice or fix)


@contextmanager
def locked(path, report):
    """Only one process at a time makes ``path``. A process that dies frees its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"Waiting for another process that makes {path.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def put_in_place(part, path):
    """Rename a file, once all of it is on the disk: a cut of power leaves the old content or the new one."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def written_aside(path, room=None):
    """A path beside ``path``, whose file takes its place when the body has ended without an error.

    ``room`` is how much it needs, for messages; by default its name.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield part
        put_in_place(part, path)
    except (
        OSError,
        RuntimeError,
    ) as error:  # HDF5 raises the second where it cannot close the file
        raise RawFileError(
            expected=f"room for {room or path.name} in {path.parent}",
            found=f"that writing failed ({error})",
            fix="Free some space, or choose another folder, and run again.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


class Incomplete(Exception):
    """The connection ended, or the server failed, before the answer was whole."""


def patiently(attempt, what, progress=lambda: 0):
    """Call ``attempt`` until it succeeds, with growing waits.

    Cut connections, timeouts and server errors are tried again. The waits start anew
    with each try after which ``progress()`` has grown.
    """
    furthest, waits = progress(), iter(RETRY_WAITS_S)
    while True:
        try:
            return attempt()
        except (requests.RequestException, Incomplete) as error:
            trouble = error
        got = progress()
        if got > furthest:
            furthest, waits = got, iter(RETRY_WAITS_S)
        wait = next(waits, None)
        if wait is None:
            raise RawFileError(
                expected=f"the whole of {what}",
                found=f"{got:,} bytes after {len(RETRY_WAITS_S) + 1} tries without "
                f"progress; last: {trouble}",
                fix="Check the network and run again: the download goes on from where "
                "it stopped. Or copy the files to their place by hand.",
            ) from trouble
        time.sleep(wait)


def check_status(reply, url):
    if reply.status_code >= 500 or reply.status_code in (408, 429):
        raise Incomplete(f"HTTP status {reply.status_code}")
    if reply.status_code not in (200, 206):
        raise RawFileError(
            expected=f"a file at {url}",
            found=f"HTTP status {reply.status_code} ({reply.reason})",
            fix="Check the item's name, or copy the files to their place by hand.",
        )


def download_file(url, path, report, check=lambda path: None):
    """Fetch a file into ``path``, continuing an earlier try that was cut.

    ``<path>.part`` grows, beside ``<path>.part.version``, by which the server names the
    content (ETag, or the date of the last change). A part is continued only where the
    server still has that version; a part without a version is fetched anew, as nothing
    tells whether the rest would belong to it.

    Args:
        url: Address.
        path: Where the whole file goes.
        report: Called with a line of progress.
        check: Called with the whole part file; raises RawFileError where it is not what
            was asked for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        patiently(lambda: fetch(url, part, report), url, lambda: bytes_of(part))
    except OSError as error:
        raise RawFileError(
            expected=f"room for {path.name} in {path.parent}",
            found=f"that writing failed ({error})",
            fix=f"Free some space and run again: the download goes on from {part}.",
        ) from error
    try:
        check(part)
    except RawFileError:
        discard(part)
        raise
    put_in_place(part, path)
    discard(part)


def version_file(part):
    return part.with_name(f"{part.name}.version")


def bytes_of(path):
    return path.stat().st_size if path.exists() else 0


def discard(part):
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def version_of(reply):
    """What the server names the content by; "" where it does not."""
    tag = reply.headers.get("ETag", "")
    weak = tag.startswith("W/")  # equal for contents that differ in their bytes
    return reply.headers.get("Last-Modified", "") if weak or not tag else tag


def fetch(url, part, report):
    """One try: append to ``part`` what it lacks.

    Raises:
        Incomplete, requests.RequestException: Trying again may help.
    """
    record = version_file(part)
    known = record.read_text(encoding="ascii") if record.exists() else ""
    if not known:
        discard(part)
    have = bytes_of(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    with requests.get(url, headers=headers, stream=True, timeout=(15, 60)) as reply:
        if reply.status_code == 416:  # nothing after these bytes: whole, or too long
            whole = reply.headers.get("Content-Range", "").endswith(f"/{have}")
            if whole and version_of(reply) in ("", known):
                return
            discard(part)
            raise Incomplete("the part file did not fit the file on the server")
        check_status(reply, url)
        version = version_of(reply)
        resumed = reply.status_code == 206
        sent = reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if resumed and not (sent and version in ("", known)):
            discard(part)
            raise Incomplete("the server sent other bytes than those asked for")
        have = have if resumed else 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        shown = None
        with open(part, "ab" if resumed else "wb") as file:
            if not resumed:
                record.write_text(version, encoding="ascii")
            for block in reply.iter_content(1 << 16):
                file.write(block)
                have += len(block)
                percent = f"{100 * have // total} %" if total else f"{have >> 20} MB"
                if percent != shown:
                    report(f"DOWNLOADING {part.stem} {percent}")
                    shown = percent
    if total is not None and have != total:
        raise Incomplete(f"got {have:,} of {total:,} bytes")
    check_md5(reply, part)


def check_md5(reply, part):
    """Amazon S3 names a file that was uploaded in one piece by its MD5 sum."""
    tag = reply.headers.get("ETag", "").strip('"')
    if reply.headers.get("Server") != "AmazonS3" or not re.fullmatch(
        "[0-9a-f]{32}", tag
    ):
        return
    if "kms" in reply.headers.get("x-amz-server-side-encryption", ""):
        return  # named otherwise
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != tag:
        discard(part)
        raise Incomplete(f"the bytes have the MD5 sum {found}, the server's {tag}")


# End of the copy


def check_raw_file(path):
    read_mapping(path) if "mapping" in path.name else open_mat73(path).close()


# Opening the raw files


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
            fix = (
                "Save it in MATLAB with save(..., '-v7.3'), or take the published file."
            )
        elif b"annex" in start or start.startswith(b"version https://git-lfs"):
            found = f"a pointer to the content instead of the content ({start!r})"
            fix = "Fetch the content (git annex get, gin get-content), or remove the file and let it be downloaded."
        else:
            found = f"{path.stat().st_size:,} bytes that are not HDF5, beginning with {start[:16]!r}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise unopened(path, error, expected=expected, fix=fix) from error


@contextmanager
def reading(path):
    """Name the file in errors that show only when values are read."""
    try:
        yield
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
    fix = f"Take the published {Path(file.filename).name} and the other files that belong to it."
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        found = f"variables {sorted(set(file) - {'#refs#'})}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    fits = len(dataset.shape) == len(shape) and all(
        size == due if isinstance(due, int) else size > 0
        for size, due in zip(dataset.shape, shape, strict=True)
    )
    if not fits or dataset.dtype.kind not in kinds:
        found = f"shape {dataset.shape} of type {dataset.dtype}"
        raise RawFileError(expected=expected, found=found, fix=fix)
    return dataset


def image_names(file, part):
    """References to the names of the ``train`` or ``test`` images, unread."""
    return variable(file, f"{part}_imgs/things_path", ("images", 1), kinds="O")


def response_variables(file, n_train, n_test):
    """The variables that are used of ``THINGS_normMUA.mat``, checked and unread."""
    shapes = {
        "train_MUA": (n_train, N_CHANNELS),
        "test_MUA_reps": ("repeats", n_test, N_CHANNELS),
        "SNR_max": (N_CHANNELS, 1),
        "reliab": ("pairs of repeats", N_CHANNELS),
        "lats": ("days", N_CHANNELS),
    }
    return {name: variable(file, name, shape) for name, shape in shapes.items()}


def trial_variables(file):
    """``ALLMUA`` (samples, presentations, raw channels) unread, and ``ALLMAT`` (6 or 7, presentations), checked."""
    table = variable(file, "ALLMAT", ("6 or 7", "presentations"))
    if len(table) not in (6, 7):
        variable(file, "ALLMAT", (6, "presentations"))
    times = variable(file, "tb", (N_SAMPLES, 1))[:, 0]
    if not np.allclose(times, np.arange(N_SAMPLES) - BASELINE_MS):
        raise RawFileError(
            expected=f"'tb' of {-BASELINE_MS} to {N_SAMPLES - BASELINE_MS - 1}, in ms, in {file.filename}",
            found=f"{times[0]:g} to {times[-1]:g}",
            fix="Take the published THINGS_MUA_trials.mat.",
        )
    return variable(file, "ALLMUA", (N_SAMPLES, table.shape[1], N_CHANNELS)), table


def check_raw(paths):
    """Check what is already there of an item's raw files, without reading values."""
    here = {name: path for name, path in paths.items() if path.exists()}
    for name, path in here.items():
        read_mapping(path) if name == "mapping" else open_mat73(path).close()
    if {"images", "norm"} <= set(here):
        with open_mat73(paths["images"]) as file, reading(paths["images"]):
            n_train, n_test = (
                len(image_names(file, part)) for part in ("train", "test")
            )
        with open_mat73(paths["norm"]) as file, reading(paths["norm"]):
            response_variables(file, n_train, n_test)
    if "trials" in here:
        with open_mat73(paths["trials"]) as file, reading(paths["trials"]):
            trial_variables(file)


# Reading names, quality, responses and the channel mapping


def read_image_ids(path, part):
    """Image ids ``concept/file.jpg`` of the ``train`` or ``test`` images, in the order of the rows."""
    with open_mat73(path) as file, reading(path):
        characters = (
            file[reference][()] for reference in image_names(file, part)[:, 0]
        )
        names = [
            array.astype(np.uint16).tobytes().decode("utf-16-le")
            for array in characters
        ]
    return np.array([checked_image_id(name, path) for name in names])


def checked_image_id(name, path):
    image_id = name.replace("\\", "/")
    parts = PurePosixPath(image_id).parts
    if (
        PureWindowsPath(name).anchor
        or ".." in parts
        or len(parts) < 2
        or not image_id.isascii()
    ):
        raise RawFileError(
            expected="image names like 'concept\\file.jpg' in plain ASCII, below the image folder",
            found=f"{name!r} in {path}",
            fix="Take the published things_imgs.mat, or rename the images.",
        )
    return image_id


def read_quality(path, images):
    """Quality of each physical channel, shape (channels,)."""
    with open_mat73(path) as file, reading(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        raw = response_variables(file, len(images["train"]), len(images["test"]))
        return {
            "snr": raw["SNR_max"][:, 0].astype(np.float32),
            "reliability": np.nanmean(raw["reliab"][...], axis=0).astype(np.float32),
            "latency_ms": np.nanmean(raw["lats"][...], axis=0).astype(np.float32),
        }


def read_responses(path, images):
    """Responses (training images + repeats * test images, channels) float32."""
    n_train, n_test = len(images["train"]), len(images["test"])
    with open_mat73(path) as file, reading(path):
        raw = response_variables(file, n_train, n_test)
        mua = np.empty(
            (n_train + raw["test_MUA_reps"].shape[0] * n_test, N_CHANNELS),
            dtype=np.float32,
        )
        raw["train_MUA"].read_direct(mua[:n_train])
        raw["test_MUA_reps"].read_direct(
            mua[n_train:].reshape(raw["test_MUA_reps"].shape)
        )
    mua[~np.isfinite(mua)] = np.nan
    return mua


def read_mapping(path):
    """Raw channel (from 1) of each physical channel."""
    try:
        mapping = loadmat(path, variable_names=["mapping"])["mapping"].ravel()
        found = f"{mapping.size} values from {mapping.min()} to {mapping.max()}"
        fits = np.array_equal(np.sort(mapping), np.arange(1, N_CHANNELS + 1))
    except Exception as error:  # scipy raises many kinds for a file that is none
        found, fits = (
            f"a file that cannot be read as such ({type(error).__name__}: {error})",
            False,
        )
    if not fits:
        raise RawFileError(
            expected=f"'mapping', each of 1 to {N_CHANNELS} once, in a MATLAB v5 file at {path}",
            found=found,
            fix="Take the published 1024chns_mapping_20220105.mat, or remove the file and let it be downloaded.",
        )
    return mapping.astype(np.int64)


# The tables of the output


def choose_splits(images, args):
    """train, valid or excluded for each training image."""
    concept = concepts_of(images["train"])
    split = np.full(len(concept), "train", dtype="U8")
    if args.exclude_test_concepts:
        split[np.isin(concept, concepts_of(images["test"]))] = "excluded"
    rows = np.flatnonzero(split == "train")
    is_valid = choose_validation(concept[rows], args.valid_by_concept)
    split[rows[is_valid]] = "valid"
    return split


def choose_validation(concept, by_concept):
    """Which training images validate: a seeded draw of images, or of whole concepts until there are enough."""
    rng = np.random.default_rng(SEED)
    due = max(1, round(VALID_FRACTION * len(concept)))
    group = concept if by_concept else np.arange(len(concept))
    group, counts = np.unique(group, return_inverse=True, return_counts=True)[1:]
    order = rng.permutation(len(counts))
    n_chosen = np.searchsorted(np.cumsum(counts[order]), due) + 1
    is_valid = np.isin(group, order[:n_chosen])
    if is_valid.all():
        raise RawFileError(
            expected="training images on both sides of the training/validation split",
            found=f"{len(concept)} images in {len(counts)} groups, all chosen for validation",
            fix="Leave out --valid-by-concept or --exclude-test-concepts, or take the published files.",
        )
    return is_valid


def concepts_of(image_ids):
    return np.array([image_id.split("/")[0] for image_id in image_ids])


def norm_presentations(images, train_split, n_bins):
    n_train, n_test = len(images["train"]), len(images["test"])
    image_id = np.concatenate(
        [images["train"], np.tile(images["test"], (n_bins - n_train) // n_test)]
    )
    row = np.arange(n_bins)
    return Interval(
        start=NORM_STEP_S * row,
        end=NORM_STEP_S * row + IMAGE_ON_S,
        image_id=image_id,
        image_index=np.where(row < n_train, row, -1),
        concept=concepts_of(image_id),
        split=np.concatenate([train_split, np.full(n_bins - n_train, "test")]),
        repeat=np.where(row < n_train, 0, (row - n_train) // n_test),
        day=np.full(n_bins, -1),
        position=np.full(n_bins, -1),
    )


def trial_presentations(table, images, train_split):
    """Row in the file and place on the time axis of each presentation, day by day, and what is known of it.

    Returns:
        order: (n,) rows of the file, sorted by day.
        slot: (n,) windows before it on the time axis, one of which is empty for each day before.
        columns: of the table ``presentations``.
    """
    rows = table[...]
    rows = np.where(np.isfinite(rows), np.rint(rows), -1).astype(np.int64)
    day = rows[5]
    order = np.argsort(day, kind="stable")
    trial, train, test, repeat, position, day, *correct = rows[:, order]
    n_train, n_test = len(images["train"]), len(images["test"])
    fits = (
        ((train > 0) ^ (test > 0)) & (train <= n_train) & (test <= n_test) & (day > 0)
    )
    if not fits.all():
        bad = order[~fits][0]
        raise RawFileError(
            expected=f"in each column of 'ALLMAT' in {table.file.filename} either a training image of 1 to {n_train} "
            f"or a test image of 1 to {n_test}, and a day from 1",
            found=f"{(~fits).sum()} others; column {bad}: training image {rows[1, bad]}, test image {rows[2, bad]}, "
            f"day {rows[5, bad]}",
            fix="Take the published THINGS_MUA_trials.mat and the things_imgs.mat that belongs to it.",
        )
    is_train = train > 0
    image_id = np.where(is_train, images["train"][train - 1], images["test"][test - 1])
    columns = {
        "image_id": image_id,
        "image_index": np.where(is_train, train - 1, -1),
        "concept": concepts_of(image_id),
        "split": np.where(is_train, train_split[train - 1], "test"),
        "repeat": np.where(is_train, 0, repeat - 1),
        "day": day,
        "position": position,
        "trial": trial,
    }
    if correct:
        columns["correct"] = correct[0]
    untrained = sorted(set(day) - set(day[columns["split"] == "train"]))
    if untrained:
        raise RawFileError(
            expected="training presentations on each day, to normalise it by",
            found=f"none on day {', '.join(map(str, untrained))}",
            fix="Leave out --valid-by-concept or --exclude-test-concepts, or take the published files.",
        )
    slot = np.arange(len(order)) + np.unique(day, return_inverse=True)[1]
    return order, slot, columns


def split_domains(split, start, end):
    return {
        f"{name}_domain": Interval(start[split == name], end[split == name])
        for name in ("train", "valid", "test")
    }


def area_of_channels(monkey):
    area = np.empty(N_CHANNELS, dtype="U2")
    for name, (first, last) in AREAS[monkey].items():
        area[first:last] = name
    return area


def choose_units(monkey, reliability, min_reliability):
    """Physical channels that stay."""
    stays = np.full(N_CHANNELS, True)
    if min_reliability is not None:
        stays = reliability >= min_reliability
    if not stays.any():
        raise RawFileError(
            expected=f"units with a reliability of at least {min_reliability}",
            found=f"none of monkey {monkey}, whose greatest reliability is {np.nanmax(reliability):.2f}",
            fix="Lower --min-reliability.",
        )
    return np.flatnonzero(stays)


def unit_table(monkey, quality, kept):
    array = kept // CHANNELS_PER_ARRAY + 1
    return {
        "id": np.array(
            [
                f"{monkey}/array{a:02d}/ch{c:03d}"
                for a, c in zip(array, kept, strict=True)
            ]
        ),
        "area": area_of_channels(monkey)[kept],
        "array": array,
        "channel": kept,
        **{name: values[kept] for name, values in quality.items()},
    }


def variance_of_columns(mua):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Degrees of freedom", RuntimeWarning)
        blocks = np.array_split(mua, len(mua.T) // CHANNELS_PER_ARRAY, axis=1)
        return np.concatenate(
            [np.nanvar(block, axis=0, dtype=np.float64) for block in blocks]
        )


def find_dead(variance):
    """Channels with no value, or with next to no variance: an array that was not connected, a broken electrode."""
    return ~(variance > DEAD_VARIANCE * np.nanmedian(variance))


# Streaming the trial file


def slab_shape(traces, samples):
    """Samples, presentations and channels of a slab: whole chunks of the file and whole bins, within the memory.

    It grows from one chunk first to all channels, then to all samples, then over presentations. Chunks that are too
    large for that are cut, and so read more than once.
    """
    chunk = traces.chunks or (1, 1, N_CHANNELS)
    shape = np.minimum((math.lcm(chunk[0], samples), *chunk[1:]), traces.shape)
    for axis, limit in ((2, WIDE_SLAB_BYTES), (0, SLAB_BYTES), (1, SLAB_BYTES)):
        times = limit // (traces.dtype.itemsize * math.prod(shape))
        shape[axis] = min(traces.shape[axis], shape[axis] * max(times, 1))
    while traces.dtype.itemsize * math.prod(shape) > WIDE_SLAB_BYTES and shape[1] > 1:
        shape[1] = -(-shape[1] // 2)
    return shape.tolist()


def bin_trials(traces, value, *, slot, day, is_train, raw_channel, samples, report):
    """Write the means over bins of ``samples`` to ``value``, slab by slab; units in the order of their raw channels.

    Args:
        traces: (samples, presentations, raw channels), any chunks.
        value: (bins, units) to fill.
        slot: (presentations,) windows of ``value`` before each.
        day: (presentations,) from 0.
        is_train: (presentations,) those that count for the moments.
        raw_channel: (units,) column of each in ``traces``.

    Returns:
        Number, sum and sum of squares of the training bins, shape (3, days, units); units in the order of
        ``raw_channel``.
    """
    n_bins = N_SAMPLES // samples
    by_raw = np.argsort(raw_channel)
    shape = slab_shape(traces, samples)
    memory = np.empty(math.prod(shape), traces.dtype)
    counts = is_train * (day == np.arange(day.max() + 1)[:, None]).astype(
        np.float64
    )  # to which day
    moments = np.zeros((3, len(counts), len(raw_channel)))
    n_done, shown = 0, None
    for corner in product(
        *(range(0, traces.shape[axis], shape[axis]) for axis in (1, 2, 0))
    ):
        p, c, t = (
            slice(first, min(first + shape[axis], traces.shape[axis]))
            for first, axis in zip(corner, (1, 2, 0), strict=True)
        )
        columns = slice(*np.searchsorted(raw_channel[by_raw], (c.start, c.stop)))
        units = by_raw[columns]
        if len(units):
            size = (t.stop - t.start, p.stop - p.start, c.stop - c.start)
            slab = memory[: math.prod(size)].reshape(size)
            with reading(traces.file.filename):
                traces.read_direct(slab, np.s_[t, p, c])
            with np.errstate(invalid="ignore"):
                binned = (
                    np.add.reduce(
                        slab.reshape(-1, samples, *size[1:]), axis=1, dtype=np.float64
                    )
                    / samples
                )
            if len(units) < size[2]:
                binned = binned[:, :, raw_channel[units] - c.start]
            moments[:, :, units] += counts[:, p] @ moments_of(binned)
            write_windows(
                value,
                binned,
                slot[p],
                first_bin=t.start // samples,
                n_bins=n_bins,
                columns=columns,
            )
        n_done += (t.stop - t.start) * (p.stop - p.start) * (c.stop - c.start)
        percent = f"Binning {100 * n_done // traces.size} %"
        if percent != shown:
            report(percent)
            shown = percent
    return moments


def moments_of(binned):
    """Number, sum and sum of squares of the finite bins, shape (3, presentations, units). Makes the others NaN."""
    moments = np.empty((3, *binned.shape[1:]))
    moments[0] = len(binned)
    with np.errstate(invalid="ignore"):
        binned.sum(axis=0, out=moments[1])
        np.einsum("bpc,bpc->pc", binned, binned, out=moments[2])
    presentation, unit = np.nonzero(~np.isfinite(moments[2]))
    if len(unit):
        some = binned[:, presentation, unit]
        some[~np.isfinite(some)] = np.nan
        binned[:, presentation, unit] = some
        moments[:, presentation, unit] = (
            np.isfinite(some).sum(0),
            np.nansum(some, 0),
            np.nansum(some**2, 0),
        )
    return moments


def write_windows(value, binned, slot, *, first_bin, n_bins, columns):
    """Write bins (bins, presentations, units) to the windows of their presentations."""
    windows = np.ascontiguousarray(binned.transpose(1, 0, 2), dtype=np.float32)
    ends = [*np.flatnonzero(np.diff(slot) != 1) + 1, len(slot)]
    for first, last in zip([0, *ends], ends, strict=False):  # runs of neighbours
        rows = h5py.MultiBlockSlice(
            slot[first] * n_bins + first_bin, n_bins, last - first, len(binned)
        )
        value[rows, columns] = windows[first:last].reshape(-1, windows.shape[2])


def unit_statistics(moments):
    """Mean and deviation of each day and unit, shape (days, units) float32, and which units are dead, shape (units,).

    A deviation counts as no less than that of a unit at the border of being dead, so that dead units stay near zero.
    """
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", "All-NaN|Mean of empty slice", RuntimeWarning)
        mean = moments[1] / moments[0]
        variance = np.fmax(moments[2] / moments[0] - mean**2, 0 * mean)
        is_dead = find_dead(np.nanmean(variance, axis=0))
        border = DEAD_VARIANCE * np.nanmedian(variance, axis=1, keepdims=True)
        deviation = np.where(np.isnan(mean), np.nan, np.sqrt(np.fmax(variance, border)))
    return mean.astype(np.float32), deviation.astype(np.float32), is_dead


def normalise(value, slot, day, mean, deviation, raw_channel, n_bins):
    """z-score ``value`` in place, and bring its units from the order of raw channels to that of ``raw_channel``."""
    column = np.argsort(np.argsort(raw_channel))
    for today in range(day.max() + 1):
        windows = slot[day == today]
        stop = n_bins * (windows[-1] + 1)
        for first in range(n_bins * windows[0], stop, NORMALISED_ROWS):
            rows = slice(first, min(first + NORMALISED_ROWS, stop))
            z = np.take(value[rows], column, axis=1)
            z -= mean[today]
            z /= deviation[today]
            value[rows] = z
        if stop < len(value):
            value[stop : stop + n_bins] = np.nan
