# /// brainset-pipeline
# python-version = "3.11"
# dependencies = [
#   "filelock==4.2.11",
#   "h5py==3.16.0",
#   "requests==2.34.2",
# ]
# ///
"""Allen Visual Coding Neuropixels, Brain Observatory 1.1 (Siegle et al., Nature 2021).

Spikes of up to six Neuropixels probes in the visual cortex, thalamus and hippocampus of a mouse that looks at natural
scenes, natural movies, gratings, Gabor patches and flashes, head-fixed on a running wheel.

Raw files, below ``<raw-dir>/allen_visual_coding_neuropixels_2019``; what is missing is downloaded from the Allen
Institute's public bucket (2-3 GB a session, Allen Institute terms of use), where it has the same names:

    session_715093703/session_715093703.nwb
    natural_scene_templates/natural_scene_0.tiff ...    with --templates

Output, ``<processed-dir>/allen_visual_coding_neuropixels_2019/715093703.h5``, a ``torch_brain.data.Data`` (or
``temporaldata.Data``) with

    spikes           IrregularTimeSeries, timestamps (s), unit_index, of the units that pass the filter
    units            ArrayDict: id, area ("" outside of the brain), probe, channel, depth (um above the probe's tip),
                     quality, and the metrics isi_violations, amplitude_cutoff, presence_ratio, firing_rate (Hz), snr
    natural_scenes   Interval: image_id (natural_scene_12.tiff, "blank"), frame (0: blank, k + 1: scene k, as upstream's
                     modality has it), blank, repeat, split
    natural_movie_*, drifting_gratings, static_gratings, gabors, flashes    Interval: the stimulus's parameters, split
    spontaneous      Interval: gray screen
    running          IrregularTimeSeries, running_speed (n, 1) in cm/s; absent where the session has none
    invalid_times    Interval, tags; none where the session has none
    train_domain, valid_domain, test_domain

How it is split. The time under stimuli is cut into stretches of about 30 s that begin and end between
presentations; of each stimulus's stretches, a seeded draw goes to validation and test. A presentation, with the gray
time up to the next one, belongs to one split, so a window inside a domain never sees presentations of two splits. With
``--split-by image``, all repeats of a natural scene are in one split instead (the same in every session; blanks train),
and each of its domain's intervals holds scenes of that split alone. Presentations that touch invalid times have the
split "none" and are in no domain.

In a parallel run an item's errors are in ``<processed-dir>/<brainset>/pipeline_logs/<item>.err``.
"""

import datetime
import errno
import hashlib
import os
import re
import sys
import time
import zlib
from argparse import ArgumentParser
from contextlib import contextmanager

import h5py
import numpy as np
import pandas as pd
import requests
from filelock import FileLock, Timeout

try:  # torch_brain 0.2
    from torch_brain.data import (
        ArrayDict,
        BrainsetDescription,
        Data,
        DeviceDescription,
        Interval,
        IrregularTimeSeries,
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
    from temporaldata import ArrayDict, Data, Interval, IrregularTimeSeries

BUCKET = "https://allen-brain-observatory.s3.us-west-2.amazonaws.com/visual-coding-neuropixels/ecephys-cache"
SOURCE = "https://portal.brain-map.org/circuits-behavior/visual-coding-neuropixels"
# All sessions of the stimulus set "Brain Observatory 1.1", which has the natural scenes.
SESSIONS = """
    715093703 719161530 721123822 732592105 737581020 739448407 742951821 743475441
    744228101 746083955 750332458 750749662 751348571 754312389 754829445 755434585
    756029989 757216464 757970808 758798717 759883607 760345702 760693773 761418226
    762120172 762602078 763673393 773418906 791319847 797828357 798911424 799864342
""".split()
N_SCENES = 118
PARAMETERS = {  # of each stimulus, as the NWB file names them
    "natural_scenes": ("frame",),
    "natural_movie_one": ("frame",),
    "natural_movie_three": ("frame",),
    "drifting_gratings": ("orientation", "temporal_frequency", "contrast"),
    "static_gratings": ("orientation", "spatial_frequency", "phase"),
    "gabors": ("x_position", "y_position", "orientation"),
    "flashes": ("color",),
    "spontaneous": (),
}
# The authors' default filter of units, besides quality "good" and a channel in the brain.
ISI_VIOLATIONS, AMPLITUDE_CUTOFF, PRESENCE_RATIO = 0.5, 0.1, 0.95
VALID_FRACTION, TEST_FRACTION, SEED = 0.1, 0.1, 0  # of the stretches of a stimulus
STRETCH_S, LEAST_STRETCHES = 30.0, 50  # a short session has shorter ones
METRICS = ("isi_violations", "amplitude_cutoff", "presence_ratio", "firing_rate", "snr")
SPLITS = ("train", "valid", "test")
LONGEST_GAP_S = (
    3.0  # gray time between presentations of one stimulus; flashes leave 1.75 s
)
SPONTANEOUS_STEP_S = 1.0  # gray screen may be cut anywhere
BLOCK_SPIKES = 4_000_000  # sorted at a time


class RawFileError(ValueError):
    """A raw file, or an option, that cannot be used."""

    def __init__(self, *, expected, found, fix):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")


parser = ArgumentParser()
parser.add_argument(
    "--all-units",
    action="store_true",
    help="not only good ones in the brain; their metrics are kept either way",
)
parser.add_argument(
    "--split-by", choices=("presentation", "image"), default="presentation"
)
parser.add_argument(
    "--templates", action="store_true", help="download the 118 natural scenes too"
)
parser.add_argument(
    "--redownload", action="store_true", help="even if the raw files are there"
)
parser.add_argument(
    "--reprocess", action="store_true", help="even if the HDF5 file is there"
)


class Pipeline(BrainsetPipeline):
    brainset_id = "allen_visual_coding_neuropixels_2019"
    parser = parser

    @classmethod
    def get_manifest(cls, raw_dir, args):
        on_disk = [
            p.stem.removeprefix("session_") for p in raw_dir.glob("*/session_*.nwb")
        ]
        sessions = sorted({*SESSIONS, *on_disk}, key=lambda i: (len(i), i))
        if not args.redownload:
            try:
                for path in (nwb_path(raw_dir, session) for session in sessions):
                    if path.exists():
                        with open_nwb(path) as file:
                            check_stimulus_set(file)
            except RawFileError as error:
                sys.exit(f"{error}\nOption -s prepares one session.")
        return pd.DataFrame({"id": sessions, "session": sessions}).set_index("id")

    def download(self, manifest_item):
        session = manifest_item.session
        if self.args.templates:
            folder = f"{BUCKET}/natural_scene_templates"
            for k in range(N_SCENES):
                path = templates_dir(self.raw_dir) / scene_id(k)
                self.fetch_raw(f"{folder}/{path.name}", path, check_tiff)
        if self.args.redownload or not self.is_finished(session):
            address = (
                nwb_path(self.raw_dir, session).relative_to(self.raw_dir).as_posix()
            )
            self.fetch_raw(f"{BUCKET}/{address}", self.raw_dir / address, check_nwb)
        return session

    def fetch_raw(self, url, path, check):
        if self.args.redownload or not path.exists():
            with locked(path, self.update_status):
                if self.args.redownload or not path.exists():
                    download_file(url, path, self.update_status, check)

    def is_finished(self, session):
        return (
            not self.args.reprocess and (self.processed_dir / f"{session}.h5").exists()
        )

    def process(self, session):
        store_path = self.processed_dir / f"{session}.h5"
        with locked(store_path, self.update_status):
            if self.is_finished(session):
                check_options(store_path, self.options())
                self.update_status("Skipped Processing")
                return
            with open_readable(nwb_path(self.raw_dir, session)) as file:
                data = self.read_session(file, session)
            self.update_status("Storing")
            with written_aside(store_path) as aside:
                with h5py.File(aside, "w") as file:
                    data.to_hdf5(file, serialize_fn_map={datetime.datetime: date_text})

    def read_session(self, file, session):
        args = self.args
        check_stimulus_set(file)
        self.update_status("Reading units")
        rows, units = read_units(file, args.all_units)
        self.update_status(f"Reading spikes of {len(rows)} units")
        timestamps, unit_index = read_spikes(file, rows, self.update_status)
        self.update_status("Reading stimuli")
        tables = {
            name: read_presentations(file, name)
            for name in PARAMETERS
            if has_presentations(file, name)
        }
        running = read_running(file)
        invalid = read_invalid_times(file)
        self.report_templates(tables["natural_scenes"])

        self.update_status("Creating splits")
        blocking = invalid[
            np.array([concerns(tags, units.probe) for tags in invalid.tags], dtype=bool)
        ]
        splits, domains = split_session(tables, blocking, session, args.split_by)
        for name, split in splits.items():
            tables[name]["split"] = split
        times = [
            timestamps,
            *(t[["start", "end"]].to_numpy().ravel() for t in tables.values()),
            *running[:1],
        ]
        domain = Interval(
            float(min(t.min() for t in times if len(t))),
            float(max(t.max() for t in times if len(t))),
        )

        optional = {}
        if running:
            speed = running[1].astype(np.float32)[:, None]
            optional["running"] = IrregularTimeSeries(
                timestamps=running[0], running_speed=speed, domain=domain
            )
        else:
            self.update_status("No running speed in this session")
        simulated = text_at(file, "session_description").startswith("SIMULATED")
        return Data(
            brainset=self.describe_brainset(simulated),
            subject=describe_subject(file, session),
            session=SessionDescription(id=session, recording_date=recording_date(file)),
            device=DeviceDescription(
                id=f"{session}_neuropixels", recording_tech="NEUROPIXELS_SPIKES"
            ),
            spikes=IrregularTimeSeries(
                timestamps=timestamps, unit_index=unit_index, domain=domain
            ),
            units=units,
            invalid_times=to_interval(invalid),
            domain=domain,
            **{name: to_interval(table) for name, table in tables.items()},
            **optional,
            **domains,
        )

    def report_templates(self, scenes):
        """Say which natural scenes have no picture, where there is a folder of them."""
        folder = templates_dir(self.raw_dir)
        shown = set(scenes.image_id[~scenes.blank])
        missing = [image_id for image_id in shown if not (folder / image_id).is_file()]
        if folder.is_dir() and missing:
            self.update_status(
                f"{len(missing)} of {len(shown)} pictures are not in {folder}: --templates fetches them"
            )

    def options(self):
        """What the call says of the content of a file, noted in it."""
        good = (
            f"quality good, isi_violations < {ISI_VIOLATIONS}, amplitude_cutoff < {AMPLITUDE_CUTOFF}, "
            f"presence_ratio > {PRESENCE_RATIO}, in the brain"
        )
        return {
            "unit_filter": "none" if self.args.all_units else good,
            "split_by": self.args.split_by,
        }

    def describe_brainset(self, simulated):
        return BrainsetDescription(
            id=self.brainset_id,
            origin_version="simulated" if simulated else "brain_observatory_1.1",
            derived_version="1.0.0",
            source="a simulated NWB file" if simulated else SOURCE,
            description=(
                "SIMULATED data in the format of Allen Visual Coding Neuropixels, not a recording: "
                * simulated
            )
            + "spikes of mouse visual cortex, thalamus and hippocampus while the animal sees natural scenes, natural "
            "movies, gratings, Gabor patches and flashes.",
            **self.options(),
            valid_fraction=VALID_FRACTION,
            test_fraction=TEST_FRACTION,
            block_seconds=STRETCH_S,
            split_seed=SEED,
        )


# Where the raw files are, and how they are fetched


def check_options(path, options):
    """Refuse to take a file of other options for the one that is asked for."""
    with h5py.File(path) as file:
        noted = dict(file["brainset"].attrs)
    other = [
        f"{name} {noted.get(name)} (now {value})"
        for name, value in options.items()
        if noted.get(name) != value
    ]
    if other:
        raise RawFileError(
            expected=f"no {path.name}, or one made with the options of this call",
            found=f"{path} with {', '.join(other)}",
            fix="Add --reprocess to make it anew, or choose another --processed-dir.",
        )


def nwb_path(raw_dir, session):
    return raw_dir / f"session_{session}" / f"session_{session}.nwb"


def templates_dir(raw_dir):
    return raw_dir / "natural_scene_templates"


def scene_id(k):
    return f"natural_scene_{k}.tiff"


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


def check_tiff(path):
    start = path.read_bytes()[:16]
    if not start.startswith((b"II*\0", b"MM\0*")):
        raise RawFileError(
            expected=f"a TIFF picture in {path}",
            found=f"{path.stat().st_size:,} bytes beginning with {start!r}",
            fix="Leave out --templates, or copy the pictures there by hand.",
        )


def check_nwb(path):
    with open_nwb(path) as file:
        check_stimulus_set(file)


# Reading the NWB file


def open_nwb(path):
    """Open a session's NWB file (HDF5), or say what is wrong with it."""
    fix = f"Copy the file again, or remove {path} and run with the network on (or use --redownload)."
    expected = f"a session's NWB file (HDF5) at {path}"
    if not path.exists():
        raise RawFileError(expected=expected, found="no file there", fix=fix)
    if not h5py.is_hdf5(path):
        with open(path, "rb") as file:
            start = file.read(16)
        found = (
            f"{path.stat().st_size:,} bytes that are not HDF5, beginning with {start!r}"
        )
        raise RawFileError(expected=expected, found=found, fix=fix)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise unopened(path, error, expected=expected, fix=fix) from error
    missing = [
        name
        for name in ("units", "intervals", "general/extracellular_ephys/electrodes")
        if name not in file
    ]
    if missing:
        names = ", ".join(sorted(file)) or "nothing"
        file.close()
        raise RawFileError(
            expected=expected,
            found=f"HDF5 without {', '.join(missing)}: it holds {names}",
            fix=fix,
        )
    return file


@contextmanager
def open_readable(path):
    """Like open_nwb, and damage that shows only when values are read is named too."""
    with open_nwb(path) as file:
        try:
            yield file
        except RawFileError:
            raise
        except OSError as error:
            raise RawFileError(
                expected=f"values that can be read in {path}",
                found=f"a damaged file ({error})",
                fix="Copy the file again, or download it again with --redownload.",
            ) from error


def check_stimulus_set(file):
    """Natural scenes are in Brain Observatory 1.1 sessions; Functional Connectivity sessions have none."""
    if not has_presentations(file, "natural_scenes"):
        raise RawFileError(
            expected="a session of the stimulus set 'brain_observatory_1.1', which has natural scenes",
            found=f"session {text_at(file, 'identifier')} of the stimulus set "
            f"{text_at(file, 'general/stimulus') or 'unknown'!r} in {file.filename}",
            fix=f"Leave it out: -s takes one of the Brain Observatory 1.1 sessions, e.g. {SESSIONS[0]}.",
        )


def column(file, name, length=None):
    """A one-dimensional dataset, checked and unread."""
    dataset = file.get(name)
    due = "a row of values" if length is None else f"a row of {length} values"
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.ndim != 1
        or (length is not None and len(dataset) != length)
    ):
        raise RawFileError(
            expected=f"{due} at '{name}' in {file.filename}",
            found=f"shape {dataset.shape}"
            if isinstance(dataset, h5py.Dataset)
            else "none",
            fix="Take the session's published NWB file.",
        )
    return dataset


def texts(dataset):
    return np.array(
        [v.decode() if isinstance(v, bytes) else str(v) for v in dataset[...]],
        dtype=str,
    )


def numbers(dataset):
    """float64; columns that mix numbers and words are stored as text, words become NaN."""
    if dataset.dtype.kind in "fiub":
        return dataset[...].astype(np.float64)
    return pd.to_numeric(pd.Series(texts(dataset)), errors="coerce").to_numpy(
        np.float64
    )


def text_at(file, name):
    """A text in a dataset or an attribute; "" where there is none."""
    if isinstance(file.get(name), h5py.Dataset):
        value = file[name][()]
    else:
        group, _, key = name.rpartition("/")
        value = file[group].attrs.get(key, "") if group in file else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def read_units(file, all_units):
    """Rows of the units that pass the filter, and their table."""
    ids = column(file, "units/id")[...]
    metrics = {
        name: numbers(column(file, f"units/{name}", len(ids))) for name in METRICS
    }
    quality = texts(column(file, "units/quality", len(ids)))
    electrodes = "general/extracellular_ephys/electrodes"
    channels = column(file, f"{electrodes}/id")[...]
    peak = column(file, "units/peak_channel_id", len(ids))[...]
    at = pd.Index(channels).get_indexer(peak)
    if (at < 0).any():
        raise RawFileError(
            expected=f"the peak channel of each unit among the {len(channels)} electrodes of {file.filename}",
            found=f"channel {peak[at < 0][0]} of unit {ids[at < 0][0]}, which is not there",
            fix="Take the session's published NWB file.",
        )

    def of_channel(name):
        return column(file, f"{electrodes}/{name}", len(channels))

    area = texts(of_channel("location"))[at]
    area[np.isin(area, ["None", "nan"])] = ""
    usable = (
        numbers(of_channel("valid_data"))[at] > 0
        if "valid_data" in file[electrodes]
        else np.full(len(ids), True)
    )
    passes = {
        "quality good": quality == "good",
        f"isi_violations < {ISI_VIOLATIONS}": metrics["isi_violations"]
        < ISI_VIOLATIONS,
        f"amplitude_cutoff < {AMPLITUDE_CUTOFF}": metrics["amplitude_cutoff"]
        < AMPLITUDE_CUTOFF,
        f"presence_ratio > {PRESENCE_RATIO}": metrics["presence_ratio"]
        > PRESENCE_RATIO,
        "a usable channel in the brain": (area != "") & usable,
    }
    rows = np.flatnonzero(np.logical_and.reduce(list(passes.values())) | all_units)
    if not len(rows):
        raise RawFileError(
            expected=f"units that pass the filter in {file.filename}",
            found=f"none of {len(ids)}; "
            + ", ".join(f"{p.sum()} with {name}" for name, p in passes.items()),
            fix="Keep all of them with --all-units.",
        )
    probe = texts(
        of_channel("group_name" if "group_name" in file[electrodes] else "probe_id")
    )
    columns = {
        "id": ids.astype(str),
        "area": area,
        "probe": probe[at],
        "channel": peak,
        "quality": quality,
    }
    columns["depth"] = numbers(of_channel("probe_vertical_position"))[at].astype(
        np.float32
    )
    columns |= {name: values.astype(np.float32) for name, values in metrics.items()}
    return rows, ArrayDict(**{name: values[rows] for name, values in columns.items()})


def read_spikes(file, rows, report):
    """Spike times in s of some units, sorted, and the place of each spike's unit among ``rows``.

    The file holds unit after unit. Read are stretches of time that hold about BLOCK_SPIKES spikes, each unit's part of
    it by itself, so that no more is in memory than what is kept.
    """
    times = column(file, "units/spike_times")
    ends = column(file, "units/spike_times_index", len(file["units/id"]))[...].astype(
        np.int64
    )
    starts = np.concatenate([[0], ends[:-1]])
    if (ends < starts).any() or ends[-1] != len(times):
        raise RawFileError(
            expected=f"spike_times_index that grows to {len(times):,}, the number of spikes, in {file.filename}",
            found=f"an index that ends at {ends[-1]:,}"
            + (" and falls" if (ends < starts).any() else ""),
            fix="Take the session's published NWB file.",
        )
    starts, ends = starts[rows], ends[rows]
    total = int((ends - starts).sum())
    spiking = [
        (start, end) for start, end in zip(starts, ends, strict=True) if end > start
    ]
    if not spiking:
        return np.empty(0), np.empty(0, dtype=np.int32)
    first, last = (
        min(times[start] for start, _ in spiking),
        max(times[end - 1] for _, end in spiking),
    )
    n_blocks = max(1, round(total / BLOCK_SPIKES))
    cuts = np.stack([starts, *[starts] * (n_blocks - 1), ends])  # (blocks + 1, units)
    borders = np.linspace(first, last, n_blocks + 1)[1:-1]
    for unit, (start, end) in enumerate(zip(starts, ends, strict=True)):
        unit_times = times[start:end]
        if not (np.isfinite(unit_times).all() and (np.diff(unit_times) >= 0).all()):
            raise RawFileError(
                expected="sorted, finite spike times of each unit",
                found=f"others of unit {file['units/id'][rows[unit]]} in {file.filename}",
                fix="Take the session's published NWB file.",
            )
        cuts[1:-1, unit] = start + np.searchsorted(unit_times, borders)

    timestamps, unit_index = np.empty(total), np.empty(total, dtype=np.int32)
    done = 0
    for number, (begins, stops) in enumerate(
        zip(cuts, cuts[1:], strict=False), start=1
    ):
        block = slice(done, done + int((stops - begins).sum()))
        values = np.concatenate(
            [times[a:b] for a, b in zip(begins, stops, strict=True)]
        )
        order = np.argsort(values, kind="stable")
        timestamps[block] = values[order]
        unit_index[block] = np.repeat(
            np.arange(len(rows), dtype=np.int32), stops - begins
        )[order]
        done = block.stop
        report(f"Reading spikes: {100 * number // n_blocks} %")
    return timestamps, unit_index


def has_presentations(file, name):
    return f"intervals/{name}_presentations/start_time" in file


def read_presentations(file, name):
    """Presentations of a stimulus in the order of time: start, end, middle (``timestamps``) in s, and parameters."""
    group = f"intervals/{name}_presentations"
    start = numbers(column(file, f"{group}/start_time"))
    table = {
        "start": start,
        "end": numbers(column(file, f"{group}/stop_time", len(start))),
    }
    table |= {
        key: numbers(column(file, f"{group}/{key}", len(start)))
        for key in PARAMETERS[name]
    }
    table = pd.DataFrame(table).sort_values("start", kind="stable", ignore_index=True)
    if (
        not np.isfinite(table[["start", "end"]]).all(axis=None)
        or (table.end < table.start).any()
    ):
        raise RawFileError(
            expected=f"finite times of each presentation of {name}, its end after its start",
            found=f"others at '{group}' in {file.filename}",
            fix="Take the session's published NWB file.",
        )
    table["end"] = np.minimum(table.end, table.start.shift(-1, fill_value=np.inf))
    table["timestamps"] = (table.start + table.end) / 2
    if "orientation" in table:
        table["blank"] = table.orientation.isna()
    if name.startswith("natural"):
        table["frame"] = whole_frames(table.frame, name, file.filename)
    if name == "natural_scenes":
        table["blank"] = table.frame < 0
        table["image_id"] = ["blank" if k < 0 else scene_id(k) for k in table.frame]
        table["repeat"] = table.groupby("frame").cumcount()
        table["frame"] += 1
    return table


def whole_frames(frames, name, filename):
    first, stop = (-1, N_SCENES) if name == "natural_scenes" else (0, np.inf)
    if not ((frames == frames.round()) & (frames >= first) & (frames < stop)).all():
        raise RawFileError(
            expected=f"frames of {name} from {first} to {stop - 1:.0f}"
            if stop < np.inf
            else f"whole frames of {name}",
            found=f"{frames.min()} to {frames.max()} in {filename}",
            fix="Take the session's published NWB file.",
        )
    return frames.astype(np.int64)


def to_interval(table):
    columns = {name: table[name].to_numpy() for name in table}
    columns = {
        name: c.astype(str) if c.dtype.kind not in "fiub" else c
        for name, c in columns.items()
    }
    return Interval(
        timekeys=[k for k in ("start", "end", "timestamps") if k in columns], **columns
    )


def read_running(file):
    """Timestamps in s and speed in cm/s, or () where the session has none."""
    group = "processing/running/running_speed"
    if group not in file:
        return ()
    timestamps = numbers(column(file, f"{group}/timestamps"))
    speed = numbers(column(file, f"{group}/data", len(timestamps)))
    known = np.isfinite(speed) & np.isfinite(timestamps)
    order = np.argsort(timestamps[known], kind="stable")
    return timestamps[known][order], speed[known][order]


def read_invalid_times(file):
    """Start and end in s, and what is invalid: "EcephysProbe,probeC"."""
    group = "intervals/invalid_times"
    if f"{group}/start_time" not in file:
        return pd.DataFrame(
            {"start": np.empty(0), "end": np.empty(0), "tags": np.empty(0, dtype=str)}
        )
    start = numbers(column(file, f"{group}/start_time"))
    table = pd.DataFrame(
        {"start": start, "end": numbers(column(file, f"{group}/stop_time", len(start)))}
    )
    table["tags"] = ""
    if f"{group}/tags_index" in file:
        ends = column(file, f"{group}/tags_index", len(start))[...].astype(int)
        table["tags"] = [
            ",".join(tags)
            for tags in np.split(texts(column(file, f"{group}/tags")), ends[:-1])
        ]
    return table.sort_values(["start", "end"], ignore_index=True)


def concerns(tags, probes):
    """Whether an invalid time matters: not where it names a probe none of whose units are kept."""
    named = [tag for tag in tags.split(",") if tag.startswith("probe")]
    return not named or bool(set(named) & set(probes))


def recording_date(file):
    text = text_at(file, "session_start_time")
    return datetime.datetime.fromisoformat(text) if text else None


def date_text(date, **_):
    return str(date)


def describe_subject(file, session):
    age = text_at(file, "general/subject/age").removeprefix("P").removesuffix("D")
    return SubjectDescription(
        id=text_at(file, "general/subject/subject_id")
        or text_at(file, "general/subject/specimen_name")
        or session,
        species="MUS_MUSCULUS",
        age=float(age) if age.replace(".", "", 1).isdigit() else None,
        sex=text_at(file, "general/subject/sex") or None,
        genotype=text_at(file, "general/subject/genotype") or "unknown",
    )


# Splits


def split_session(tables, invalid, session, split_by):
    """The split of each presentation, by stimulus, and the domains of the three splits."""
    slots = make_slots(tables)
    slots["split"] = ""
    stretch_s = min(STRETCH_S, (slots.end.max() - slots.start.min()) / LEAST_STRETCHES)
    for stimulus, part in slots.groupby("stimulus"):
        rng = np.random.default_rng([SEED, int(session), zlib.crc32(stimulus.encode())])
        slots.loc[part.index, "split"] = split_stretches(part, rng, stretch_s)
    if split_by == "image":
        # The same images in every session, whatever it showed; frame 0 is the blank screen.
        of_frame = np.concatenate(
            [["train"], draw_splits(N_SCENES, np.random.default_rng(SEED))]
        )
        scenes = slots.stimulus == "natural_scenes"
        slots.loc[scenes, "split"] = of_frame[
            tables["natural_scenes"].frame.to_numpy()[slots.row[scenes]]
        ]
    for start, end in zip(invalid.start, invalid.end, strict=True):
        slots.loc[(slots.start < end) & (slots.end > start), "split"] = "none"

    splits = {
        name: slots[slots.stimulus == name]
        .sort_values("row")
        .split.to_numpy()
        .astype(str)
        for name in tables
        if name != "spontaneous"
    }
    for split in SPLITS:
        if split not in splits["natural_scenes"]:
            raise RawFileError(
                expected="natural scenes in all three splits",
                found=f"{len(splits['natural_scenes'])} presentations of natural scenes, none for '{split}'",
                fix="Check invalid_times, or leave the session out.",
            )
    begins_run = (slots.split != slots.split.shift()) | (
        slots.start != slots.end.shift()
    )
    runs = slots.groupby(begins_run.cumsum()).agg(
        {"start": "first", "end": "last", "split": "first"}
    )
    domains = {
        f"{split}_domain": Interval(chosen.start.to_numpy(), chosen.end.to_numpy())
        for split in SPLITS
        for chosen in [runs[runs.split == split]]
    }
    return splits, domains


def make_slots(tables):
    """Time in pieces that are never cut: a presentation and the gray time up to the next one of its stimulus."""
    parts = []
    for name, table in tables.items():
        start, end, row = (
            table.start.to_numpy(),
            table.end.to_numpy(),
            np.arange(len(table)),
        )
        if name == "spontaneous":
            pieces = [
                np.arange(s, e, SPONTANEOUS_STEP_S)
                for s, e in zip(start, end, strict=True)
            ]
            row = np.repeat(row, [len(p) for p in pieces])
            start = np.concatenate([*pieces, []])
            end = np.minimum(start + SPONTANEOUS_STEP_S, end[row])
        parts.append(
            pd.DataFrame({"stimulus": name, "row": row, "start": start, "end": end})
        )
    slots = pd.concat(parts).sort_values("start", kind="stable", ignore_index=True)
    following = slots.start.shift(-1, fill_value=np.inf)
    goes_on = (slots.stimulus == slots.stimulus.shift(-1)) & (
        following - slots.end <= LONGEST_GAP_S
    )
    slots["end"] = np.where(goes_on, following, np.minimum(slots.end, following))
    slots["epoch"] = (~goes_on.shift(fill_value=False)).cumsum()
    return slots


def split_stretches(slots, rng, stretch_s):
    """The split of each slot of one stimulus: its epochs in stretches of about ``stretch_s``, drawn whole."""
    epochs = slots.groupby("epoch")
    begin, length = (
        epochs.start.transform("min"),
        epochs.end.transform("max") - epochs.start.transform("min"),
    )
    n_stretches = (length / stretch_s).round().clip(lower=1)
    number = ((slots.start - begin) / length.where(length > 0, 1) * n_stretches).astype(
        int
    )
    stretch = slots.groupby([slots.epoch, number]).ngroup().to_numpy()
    return draw_splits(stretch.max() + 1, rng)[stretch]


def draw_splits(n, rng):
    """The split of each of n things, in random order; at least one for validation and test where there are three."""
    n_valid, n_test = (
        max(1, round(f * n)) if n >= 3 else 0 for f in (VALID_FRACTION, TEST_FRACTION)
    )
    return rng.permutation(np.repeat(SPLITS, [n - n_valid - n_test, n_valid, n_test]))
