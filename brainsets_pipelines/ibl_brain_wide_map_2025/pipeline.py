# /// brainset-pipeline
# python-version = "3.11"
# dependencies = [
#   "filelock==4.2.11",
#   "h5py==3.16.0",
#   "pyarrow==26.0.1",
#   "requests==2.34.2",
#   "scipy==1.17.1",
# ]
# ///
"""IBL Brain-Wide Map (International Brain Laboratory, Nature 2025, doi 10.1038/s41586-025-09235-0).

Mice turn a wheel to answer visual stimuli while one or two Neuropixels probes record. Files follow the ALF naming
convention (https://int-brain-lab.github.io/ONE/alf_intro.html). Raw files of a session, below
``<raw-dir>/ibl_brain_wide_map_2025/<lab>/Subjects/<subject>/<date>/<NNN>``; what is missing is downloaded from the
public bucket ``ibl-brain-wide-map-public`` (CC BY 4.0):

    alf/_ibl_wheel.timestamps.npy, alf/_ibl_wheel.position.npy    s and rad, a sample whenever the wheel moved
    alf/_ibl_trials.table.pqt
    alf/probeNN/pykilosort/spikes.{times,clusters}.npy
    alf/probeNN/pykilosort/clusters.{channels,depths}.npy, clusters.metrics.pqt    label 1: a good unit
    alf/probeNN/pykilosort/channels.brainLocationIds_ccf_2017.npy, or
    alf/probeNN/electrodeSites.brainLocationIds_ccf_2017.npy    where the probe's track is known

File names may hold the dataset's uuid before the extension, and a file may lie in a revision folder (``#2024-05-06#``):
the newest revision is read, and one revision of all files of a spike sorting. Links are followed. Two more files below ``<raw-dir>/ibl_brain_wide_map_2025`` are read where they are there:
``allen_structure_tree.csv`` (Allen's table of brain structures, columns id and acronym) names the areas, which have
their number as a name without it, and ``sessions.pqt`` (ONE's table of sessions) resolves session uuids.

Output, ``<processed-dir>/ibl_brain_wide_map_2025/<lab>_<subject>_<date>_<NNN>.h5``, a ``torch_brain.data.Data`` (or
``temporaldata.Data``) with

    spikes    IrregularTimeSeries: timestamps (s), unit_index (row in units); good units only, all probes
    units     ArrayDict: id (<session>/probe00/0012), area ("": unknown), area_id (Allen CCF, 0: unknown), probe,
              cluster, channel, depth (um from the tip), label, reference_features (n_units, 33)
    wheel     RegularTimeSeries, 1 kHz: position (n, 1) rad, velocity (n, 1) rad/s, low-passed at 20 Hz
    trials    Interval with the columns of the table that TRIAL_COLUMNS names, and split ("" where none holds all of it)
    reference_domain                           the window of the reference features, the first seconds of train_domain
    train_domain, valid_domain, test_domain    blocks of time, see make_splits
    domain                                     from where all probes record to where one stops; all lies inside

A session with too few good units is skipped: its name and count are printed, and no file is written. In a parallel run
what an item prints, and its errors, are in ``<processed-dir>/ibl_brain_wide_map_2025/pipeline_logs``.
"""

import datetime
import errno
import hashlib
import json
import os
import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote
from xml.etree import ElementTree

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from filelock import FileLock, Timeout
from scipy.signal import butter, sosfiltfilt

try:  # torch_brain 0.2
    from torch_brain.data import (
        ArrayDict,
        BrainsetDescription,
        Data,
        DeviceDescription,
        Interval,
        IrregularTimeSeries,
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
    from temporaldata import (
        ArrayDict,
        Data,
        Interval,
        IrregularTimeSeries,
        RegularTimeSeries,
    )

BUCKET = "https://ibl-brain-wide-map-public.s3.amazonaws.com"
SOURCE = "https://registry.opendata.aws/ibl-brain-wide-map"
BLOCK = 1 << 20  # spikes read at a time
WHEEL_HZ, WHEEL_CORNER_HZ, WHEEL_ORDER = 1000.0, 20.0, 8
GAP_S = 1.0  # left out before the split changes
MIN_LABEL, MIN_UNITS = 1.0, 10  # of a good unit; sessions with fewer are skipped
# The reference window and the least length of a block, and how many would have to fit:
# a short session has shorter ones.
REFERENCE_S, BLOCK_S, LEAST_REFERENCES, LEAST_BLOCKS = 60.0, 60.0, 6, 15
FRACTIONS, SEED = {"valid": 0.1, "test": 0.2}, 0  # of the blocks
SORTING = "pykilosort"
SORTING_FILES = {
    "times": "spikes.times.npy",
    "clusters": "spikes.clusters.npy",
    "channels": "clusters.channels.npy",
    "depths": "clusters.depths.npy",
    "metrics": "clusters.metrics.pqt",
}
TRIAL_COLUMNS = {
    "times": (
        "stimOn_times", "stimOff_times", "goCue_times", "response_times", "feedback_times", "firstMovement_times",
    ),
    "values": ("choice", "contrastLeft", "contrastRight", "feedbackType", "probabilityLeft", "rewardVolume"),
}  # fmt: skip
UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
NAME = r"[A-Za-z0-9_][\w.-]*"
SESSION = re.compile(rf"{NAME}/Subjects/{NAME}/\d{{4}}-\d\d-\d\d/\d{{3}}", re.ASCII)


class RawFileError(ValueError):
    """A raw file, or an option, that cannot be used."""

    def __init__(self, *, expected, found, fix):
        super().__init__(f"Expected {expected}.\nFound {found}.\n{fix}")


def session_names(text):
    names = list(dict.fromkeys(name.strip().strip("/") for name in text.split(",")))
    for name in names:
        if not SESSION.fullmatch(name) and not re.fullmatch(UUID, name):
            raise ArgumentTypeError(
                f"lab/Subjects/subject/2020-01-31/001 or a session's uuid, not {name!r}"
            )
    return names


parser = ArgumentParser()
parser.add_argument(
    "--sessions",
    type=session_names,
    help="paths or uuids, with commas; default: those on disk",
)
parser.add_argument(
    "--skip-behavior", action="store_true", help="neither wheel nor trials"
)
parser.add_argument(
    "--redownload", action="store_true", help="even if the raw files are there"
)
parser.add_argument(
    "--reprocess", action="store_true", help="even if the HDF5 file is there"
)


class Pipeline(BrainsetPipeline):
    brainset_id = "ibl_brain_wide_map_2025"
    parser = parser

    @classmethod
    def get_manifest(cls, raw_dir, args):
        on_disk = sorted(
            path.parent.relative_to(raw_dir).as_posix()
            for path in raw_dir.glob("*/Subjects/*/*/*/alf")
        )
        try:
            sessions = [
                resolve(name, raw_dir)
                for name in args.sessions or filter(SESSION.fullmatch, on_disk)
            ]
            if not sessions:
                raise RawFileError(
                    expected=f"sessions <lab>/Subjects/<subject>/<date>/<NNN>/alf in {raw_dir}",
                    found="none there, and no option --sessions",
                    fix="Name those to download: --sessions lab/Subjects/subject/2020-01-31/001,…",
                )
        except RawFileError as error:
            sys.exit(str(error))
        return pd.DataFrame(
            [{"id": session_id(path), "path": path} for path in sessions]
        ).set_index("id")

    def download(self, manifest_item):
        download_session(
            self.raw_dir,
            manifest_item.path,
            behavior=not self.args.skip_behavior,
            again=self.args.redownload,
            report=self.update_status,
        )
        return manifest_item.path

    def process(self, path):
        args, session = self.args, session_id(path)
        store_path = self.processed_dir / f"{session}.h5"
        if store_path.exists() and not args.reprocess:
            if not args.skip_behavior:
                check_behavior(store_path)
            self.update_status("Skipped Processing")
            return

        folder = self.raw_dir / path
        files = needed_files(
            local_files(folder), behavior=not args.skip_behavior, place=str(folder)
        )
        for probe, sorting in files["probes"].items():
            if later := later_revision(local_files(folder), sorting):
                read = revision(sorting["times"]) or "the first"
                self.update_status(
                    f"{probe}: revision {later} is not whole, reading {read}"
                )
        self.update_status("Reading spikes")
        acronyms = read_acronyms(self.raw_dir / "allen_structure_tree.csv")
        probes = [
            read_units(folder, name, probe) for name, probe in files["probes"].items()
        ]
        n_units = sum(len(units["cluster"]) for units in probes)
        if n_units < MIN_UNITS:
            message = f"Skipped {session}: {n_units} good units, fewer than {MIN_UNITS}"
            self.update_status(message)
            return
        clusters = [units["cluster"] for units in probes]
        spikes, domain = merge_spikes(
            [
                read_spikes(folder, *probe)
                for probe in zip(files["probes"].values(), clusters, strict=True)
            ],
            offsets=np.cumsum([0, *map(len, clusters)])[:-1],
        )

        behavior, observed = {}, domain
        if not args.skip_behavior:
            self.update_status("Reading wheel and trials")
            behavior["wheel"] = read_wheel(folder, files["wheel"], domain)
            behavior["trials"] = read_trials(folder / files["trials"], domain)
            observed = behavior["wheel"].domain

        self.update_status("Creating splits")
        splits = make_splits(observed)
        if behavior:
            behavior["trials"].split = trial_splits(behavior["trials"], splits)
        self.update_status("Describing units")
        reference = splits["reference_domain"]
        features = reference_features(
            spikes.timestamps,
            spikes.unit_index,
            n_units,
            start=reference.start[0],
            end=reference.end[0],
        )
        data = Data(
            brainset=self.describe_brainset(path, files),
            subject=SubjectDescription(
                id=PurePosixPath(path).parts[2], species="MUS_MUSCULUS"
            ),
            session=SessionDescription(id=session, recording_date=recording_date(path)),
            device=DeviceDescription(
                id=f"{session}_{'+'.join(files['probes'])}",
                recording_tech="NEUROPIXELS_SPIKES",
            ),
            spikes=spikes,
            units=unit_table(session, probes, features, acronyms),
            domain=domain,
            **behavior,
            **splits,
        )

        self.update_status("Storing")
        with locked(store_path, self.update_status), written_aside(store_path) as aside:
            with h5py.File(aside, "w") as file:
                data.to_hdf5(file, serialize_fn_map={datetime.datetime: date_text})

    def describe_brainset(self, path, files):
        note = self.raw_dir / "simulation.json"
        simulated = note.exists() and path in json.loads(
            note.read_text(encoding="utf-8")
        )
        revisions = sorted(
            {
                revision(file)
                for probe in files["probes"].values()
                for file in probe.values()
            }
            - {""}
        )
        return BrainsetDescription(
            id=self.brainset_id,
            origin_version="simulated"
            if simulated
            else ", ".join(revisions) or "unrevised",
            derived_version="1.0.0",
            source="simulated raw files" if simulated else SOURCE,
            description=(
                "SIMULATED data in the format of IBL's Brain-Wide Map, not a recording: "
                if simulated
                else ""
            )
            + "spikes of good units of Neuropixels probes in a mouse that turns a wheel to answer visual stimuli.",
            min_label=MIN_LABEL,
            reference_s=REFERENCE_S,
            block_s=BLOCK_S,
            valid_fraction=FRACTIONS["valid"],
            test_fraction=FRACTIONS["test"],
            split_seed=SEED,
        )


# Sessions and their files


def check_behavior(path):
    """Refuse to take a file without wheel and trials for one with them."""
    with h5py.File(path) as file:
        complete = {"wheel", "trials"} <= set(file)
    if not complete:
        raise RawFileError(
            expected=f"no {path.name}, or one with wheel and trials",
            found=f"{path}, made with --skip-behavior",
            fix="Add --reprocess to make it anew, or --skip-behavior again.",
        )


def session_id(path):
    """``lab/Subjects/subject/date/001`` -> ``lab_subject_date_001``."""
    lab, _, *rest = PurePosixPath(path).parts
    return "_".join([lab, *rest])


def recording_date(path):
    return datetime.datetime.fromisoformat(PurePosixPath(path).parts[3])


def date_text(moment, **_):
    """The same text on both upstream lines, where only the new one can write a date by itself."""
    return str(moment)


def resolve(name, raw_dir):
    """Path of a session that is named by path or by uuid."""
    if SESSION.fullmatch(name):
        return name
    table_path = raw_dir / "sessions.pqt"
    if not table_path.exists():
        raise RawFileError(
            expected=f"ONE's table of sessions, {table_path}, to find session {name}",
            found="no file there",
            fix="Copy sessions.pqt from a ONE cache, or name the session by its path, lab/Subjects/subject/date/001.",
        )
    columns = read_table(
        table_path, ("lab", "subject", "date", "number"), ("id", "eid")
    )
    for uuid, lab, subject, date, number in zip(
        columns.get("id", columns.get("eid", ())), *(columns[c] for c in ("lab", "subject", "date", "number")),
        strict=True,
    ):  # fmt: skip
        path = f"{lab}/Subjects/{subject}/{str(date)[:10]}/{int(number):03d}"
        if str(uuid) == name and SESSION.fullmatch(path):
            return path
    raise RawFileError(
        expected=f"session {name} in {table_path}",
        found=f"{len(columns['lab'])} other sessions",
        fix="Correct the uuid, or take a newer table.",
    )


def local_files(folder):
    """Files below ``alf``, as POSIX paths relative to the session's folder. Links are followed, but not in a circle."""
    files = []
    for place, folders, names in os.walk(folder / "alf", followlinks=True):
        above = Path(place).relative_to(folder).parents
        if os.path.realpath(place) in {os.path.realpath(folder / p) for p in above}:
            folders.clear()
            continue
        files += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
    return sorted(path for path in files if (folder / path).is_file())


def plain_name(path):
    """A file's path without the dataset's uuid."""
    return re.sub(rf"\.{UUID}(?=\.\w+$)", "", path)


def revision(path):
    """``2024-05-06`` for a file in the folder ``#2024-05-06#``; empty for one in none."""
    found = re.fullmatch(r"#(.+)#", PurePosixPath(path).parent.name)
    return found[1] if found else ""


def revisions_of(paths, name):
    """Files of the dataset ``name`` (a path without uuid and revision), by revision."""
    folder, _, file = name.rpartition("/")
    found = {}
    for path in paths:
        place = PurePosixPath(path).parent
        place = place.parent if revision(path) else place
        if PurePosixPath(plain_name(path)).name == file and place.as_posix() == folder:
            found.setdefault(revision(path), []).append(path)
    return found


def only_one(paths, name):
    if len(paths) > 1:
        raise RawFileError(
            expected=f"one file for {name}",
            found=", ".join(paths),
            fix="Remove all but the one to be read.",
        )
    return paths[0]


def newest(paths, name):
    """Which of ``paths`` holds a dataset in its newest revision; None where there is none."""
    found = revisions_of(paths, name)
    return only_one(found[max(found)], name) if found else None


def sorting_files(paths, folder):
    """The files of a probe's spike sorting, all of one revision, and the names of those that are missing.

    A later revision of a sorting has other clusters: its spikes do not belong to an earlier one's depths. The newest
    revision that has all files is read.
    """
    names = {key: f"{folder}/{file}" for key, file in SORTING_FILES.items()}
    found = {key: revisions_of(paths, name) for key, name in names.items()}
    missing = [names[key] for key in names if not found[key]]
    if missing:
        return dict.fromkeys(names), missing
    whole = set.intersection(*map(set, found.values()))
    if not whole:
        every = sorted(set().union(*found.values()), reverse=True)
        parts = [
            ", ".join(SORTING_FILES[key] for key in names if r in found[key])
            for r in every
        ]
        raise RawFileError(
            expected=f"all of {', '.join(SORTING_FILES.values())} of one revision in {folder}",
            found="; ".join(
                f"of {r or 'the first'}: {part}"
                for r, part in zip(every, parts, strict=True)
            ),
            fix="Fetch the files that one of them lacks.",
        )
    return {key: only_one(found[key][max(whole)], names[key]) for key in names}, []


def later_revision(paths, files):
    """The newest revision of a sorting, where it is incomplete and so another one is read."""
    chosen = PurePosixPath(files["times"])
    folder = chosen.parent.parent if revision(files["times"]) else chosen.parent
    found = [
        r
        for file in SORTING_FILES.values()
        for r in revisions_of(paths, f"{folder}/{file}")
    ]
    return max(found) if max(found) > revision(files["times"]) else None


def find_files(paths, *, behavior):
    """The files of a session that are read, and the names of those that are missing.

    The first is a table with ``wheel`` (a pair), ``trials``, and for each of ``probes`` a table.
    """
    missing = []

    def find(name, optional=False):
        path = newest(paths, name)
        if path is None and not optional:
            missing.append(name)
        return path

    probes = sorted(
        {m[1] for path in paths if (m := re.match(rf"alf/(probe\w+)/{SORTING}/", path))}
    )
    if not probes:
        missing.append(f"alf/probe00/{SORTING}/…")
    files = {"probes": {}}
    for probe in probes:
        folder = f"alf/{probe}/{SORTING}"
        sorting, lacking = sorting_files(paths, folder)
        missing += lacking
        files["probes"][probe] = sorting | {
            "areas": find(
                f"{folder}/channels.brainLocationIds_ccf_2017.npy", optional=True
            )
            or find(
                f"alf/{probe}/electrodeSites.brainLocationIds_ccf_2017.npy",
                optional=True,
            )
            or "",
        }
    if behavior:
        files["wheel"] = [
            find(f"alf/_ibl_wheel.{name}.npy") for name in ("timestamps", "position")
        ]
        files["trials"] = find("alf/_ibl_trials.table.pqt")
    return files, missing


def needed_files(paths, *, behavior, place):
    """What ``find_files`` finds, or an error that names what is missing."""
    files, missing = find_files(paths, behavior=behavior)
    if missing:
        raise RawFileError(
            expected=f"{', '.join(missing)} in {place}",
            found=f"{len(paths)} other files" if paths else "no file",
            fix="Copy them there, or remove the probe's folder; --skip-behavior leaves wheel and trials out.",
        )
    return files


def flat(files):
    """All paths in a table of files."""
    probes = [
        path for probe in files["probes"].values() for path in probe.values() if path
    ]
    return [*probes, *files.get("wheel", ()), *filter(None, [files.get("trials")])]


# Download


def download_session(raw_dir, path, *, behavior, again, report):
    """Fetch what a session lacks. A file ``.downloading`` in its folder says that some may still be missing."""
    folder = raw_dir / path
    mark = folder / ".downloading"
    if not again and is_complete(folder, mark, behavior):
        return
    with locked(mark, report):
        if not again and is_complete(
            folder, mark, behavior
        ):  # another process has fetched the rest
            return
        mark.touch()
        report(f"DOWNLOADING what {folder} lacks")
        prefix = f"data/{path}/"
        sizes = {
            key.removeprefix(prefix): size
            for key, size in list_bucket(f"{prefix}alf/").items()
        }
        wanted = flat(
            needed_files(sorted(sizes), behavior=behavior, place=f"{BUCKET}/{prefix}")
        )
        there = {plain_name(file) for file in local_files(folder)}
        for file in wanted:
            if again or plain_name(file) not in there:
                url = f"{BUCKET}/{quote(prefix + file)}"
                download_file(
                    url, folder / plain_name(file), report, of_size(sizes[file])
                )
        mark.unlink()


def of_size(size):
    """A check of a whole file against the length that the bucket lists."""

    def check(path):
        if bytes_of(path) != size:
            raise RawFileError(
                expected=f"{size:,} bytes of {path.name}, as the bucket lists it",
                found=f"{bytes_of(path):,}",
                fix="Run again; if it stays so, take the file from another source.",
            )

    return check


def is_complete(folder, mark, behavior):
    return (
        not mark.exists() and not find_files(local_files(folder), behavior=behavior)[1]
    )


def list_bucket(prefix):
    """Sizes in bytes of all keys below ``prefix``, by S3's anonymous ListObjectsV2."""
    sizes, query = {}, {"list-type": "2", "prefix": prefix}
    while True:
        root = parse_listing(patiently(lambda query=query: get_listing(query), BUCKET))
        for item in root.iter("Contents"):
            sizes[item.findtext("Key")] = int(item.findtext("Size"))
        token = root.findtext("NextContinuationToken")
        if root.findtext("IsTruncated") != "true" or not token:
            break
        query = query | {"continuation-token": token}
    if not sizes:
        raise RawFileError(
            expected=f"files below {BUCKET}/{prefix}",
            found="none",
            fix="Check the session's path (--sessions).",
        )
    return sizes


def get_listing(query):
    with requests.get(BUCKET, params=query, timeout=(15, 60)) as reply:
        check_status(reply, BUCKET)
        return reply.content


def parse_listing(content):
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 (expat limits expansion)
    except ElementTree.ParseError as error:
        raise RawFileError(
            expected="a bucket's list of files (XML)",
            found=f"{content[:60]!r} ({error})",
            fix="Check that no proxy asks for a sign-in.",
        ) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


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


# Reading the raw files


def load_npy(path, kinds, length=None):
    """A one-dimensional array, mapped from the file. Never unpickles."""
    due = "values" if length is None else length
    expected = f"a NumPy file with a one-dimensional array of {due} numbers at {path}"
    fix = f"Copy the file again, or remove {path} and run with the network on."
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise unopened(path, error, expected=expected, fix=fix) from error
    except (ValueError, EOFError) as error:
        found = f"a damaged, truncated or pickled file of {bytes_of(path):,} bytes ({error})"
        raise RawFileError(expected=expected, found=found, fix=fix) from error
    shape = array.shape
    if len(shape) == 2 and shape[1] == 1:
        array = array[:, 0]
    if (
        array.ndim != 1
        or array.dtype.kind not in kinds
        or (length is not None and len(array) != length)
    ):
        raise RawFileError(
            expected=expected, found=f"shape {shape} of type {array.dtype}", fix=fix
        )
    return array


def read_table(path, needed, optional=()):
    """Columns of a Parquet file as arrays; those of ``optional`` only where it has them."""
    expected = f"a Parquet table{' with the columns ' if needed else ''}{', '.join(needed)} at {path}"
    fix = f"Copy the file again, or remove {path} and run with the network on."
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if set(needed) <= set(there):
                table = file.read(
                    columns=[name for name in (*needed, *optional) if name in there]
                )
                return {name: table[name].to_numpy() for name in table.column_names}
    except OSError as error:
        raise unopened(path, error, expected=expected, fix=fix) from error
    except pa.ArrowException as error:
        raise RawFileError(
            expected=expected, found=f"a damaged file ({error})", fix=fix
        ) from error
    raise RawFileError(
        expected=expected, found=f"the columns {', '.join(there)}", fix=fix
    )


def read_acronyms(path):
    """Acronym of each Allen structure id; empty without the table."""
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(
            path, usecols=["id", "acronym"], dtype={"id": int, "acronym": str}
        )
    except (OSError, ValueError) as error:
        raise RawFileError(
            expected=f"Allen's table of structures, a CSV file with the columns id and acronym, at {path}",
            found=str(error),
            fix="Correct the file, or remove it: areas are then named by their number.",
        ) from error
    return dict(zip(table["id"], table["acronym"], strict=True))


def read_units(folder, name, files):
    """Columns that describe the good units of a probe, in the order of their cluster numbers."""
    metrics = read_table(folder / files["metrics"], ("cluster_id", "label"))
    good = np.flatnonzero(
        np.nan_to_num(metrics["label"].astype(float)) >= MIN_LABEL - 1e-6
    )
    good = good[np.argsort(metrics["cluster_id"][good], kind="stable")]
    cluster = metrics["cluster_id"][good].astype(np.int64)
    channels = load_npy(folder / files["channels"], "iuf")
    depths = load_npy(folder / files["depths"], "iuf", len(channels))
    if len(cluster) and not (
        0 <= cluster[0] and cluster[-1] < len(channels) and (np.diff(cluster) > 0).all()
    ):
        raise RawFileError(
            expected=f"cluster numbers, each once, below {len(channels)}, the length of {files['channels']}",
            found=f"in {files['metrics']} good ones from {cluster[0]} to {cluster[-1]}",
            fix="Take all files of a probe from one revision.",
        )
    channel = channels[cluster].astype(np.int64)
    area_id = np.zeros(len(cluster), dtype=np.int64)
    if files["areas"]:
        locations = load_npy(folder / files["areas"], "iuf")
        if len(channel) and not (channel.min() >= 0 and channel.max() < len(locations)):
            raise RawFileError(
                expected=f"a location for each channel in {files['areas']}",
                found=f"{len(locations)}, for channels up to {channel.max()}",
                fix="Take all files of a probe from one revision.",
            )
        area_id = np.abs(locations[channel]).astype(
            np.int64
        )  # IBL marks the left hemisphere by a minus sign
    return {
        "probe": np.full(len(cluster), name),
        "cluster": cluster,
        "channel": channel,
        "depth": depths[cluster].astype(np.float32),
        "label": metrics["label"][good].astype(np.float32),
        "area_id": area_id,
    }


def read_spikes(folder, files, cluster):
    """Times and rows of the spikes of the clusters ``cluster`` (ascending), and first and last time of all spikes.

    The files are read in blocks, so that memory holds the spikes of good units only.
    """
    times = load_npy(folder / files["times"], "f")
    clusters = load_npy(folder / files["clusters"], "iu", len(times))
    kept, rows, first, last = [], [], np.inf, -np.inf
    for begin in range(0, len(times), BLOCK):
        block = np.asarray(times[begin : begin + BLOCK], dtype=np.float64)
        if not np.isfinite(block).all():
            raise RawFileError(
                expected=f"finite times in {files['times']}",
                found=f"{block[~np.isfinite(block)][0]} after {begin:,} spikes or more",
                fix="Take the published file.",
            )
        first, last = min(first, block.min()), max(last, block.max())
        if len(cluster):
            number = clusters[begin : begin + BLOCK].astype(np.int64)
            row = np.minimum(np.searchsorted(cluster, number), len(cluster) - 1)
            is_good = cluster[row] == number
            kept.append(block[is_good])
            rows.append(row[is_good].astype(np.int32))
    if not first < last:
        raise RawFileError(
            expected=f"spikes in {files['times']}",
            found=f"{len(times)} of them",
            fix="Remove the probe's folder.",
        )
    return (
        np.concatenate([[], *kept]),
        np.concatenate([np.empty(0, np.int32), *rows]),
        (first, last),
    )


def merge_spikes(probes, offsets):
    """Spikes of all probes in order of time, and the span in which every probe records.

    ``probes`` is what ``read_spikes`` gives of each, ``offsets`` the row of its first unit among the units of all.
    """
    times, rows, spans = zip(*probes, strict=True)
    start, end = max(first for first, _ in spans), min(last for _, last in spans)
    if not start < end:
        raise RawFileError(
            expected="probes that record at the same time",
            found="; ".join(f"{first:.1f} to {last:.1f} s" for first, last in spans),
            fix="Use spikes.times, which are on the session's clock.",
        )
    domain = Interval(
        float(start), float(np.nextafter(end, np.inf))
    )  # the last spike lies inside
    times = np.concatenate(times)
    rows = np.concatenate(
        [row + np.int32(offset) for row, offset in zip(rows, offsets, strict=True)]
    )
    inside = (times >= start) & (times <= end)
    order = np.flatnonzero(inside)
    order = order[np.argsort(times[order], kind="stable")]
    return IrregularTimeSeries(
        timestamps=times[order], unit_index=rows[order], domain=domain
    ), domain


def read_wheel(folder, files, domain):
    """Position and velocity of the wheel at 1 kHz, as far as they lie inside ``domain``."""
    timestamps = load_npy(folder / files[0], "f")
    position = load_npy(folder / files[1], "f", len(timestamps))
    start, position, velocity = wheel_velocity(
        np.asarray(timestamps), np.asarray(position), files[0]
    )
    first = max(0, int(np.ceil((domain.start[0] - start) * WHEEL_HZ)))
    last = min(len(position), int((domain.end[-1] - start) * WHEEL_HZ))
    if last <= first:
        raise RawFileError(
            expected=f"spikes and wheel of {folder} on one clock",
            found=f"spikes {domain.start[0]:.1f} to {domain.end[-1]:.1f} s, wheel from {start:.1f} s on for "
            f"{len(position) / WHEEL_HZ:.1f} s",
            fix="Check the files, or leave wheel and trials out with --skip-behavior.",
        )
    return RegularTimeSeries(
        position=position[first:last].astype(np.float32)[
            :, None
        ],  # upstream, continuous values have two dimensions
        velocity=velocity[first:last].astype(np.float32)[:, None],
        sampling_rate=WHEEL_HZ,
        domain_start=start + first / WHEEL_HZ,
    )


def wheel_velocity(timestamps, position, name):
    """First time, and position (rad) and velocity (rad/s) at 1 kHz, as IBL's ``brainbox.behavior.wheel`` has them.

    The position is interpolated linearly; the velocity is 1000 times the difference of the position after a
    Butterworth low-pass (20 Hz, order 8, forward and backward), and 0 at the first sample.
    """
    broken = ~(np.isfinite(timestamps) & np.isfinite(position))
    backward = np.flatnonzero(np.diff(timestamps) < 0)
    duration = timestamps[-1] - timestamps[0] if len(timestamps) else 0.0
    if broken.any() or len(backward) or not duration >= 1.0:
        raise RawFileError(
            expected=f"finite, ascending wheel times over a second or more in {name}",
            found=f"{broken.sum()} samples that are not finite"
            if broken.any()
            else f"{timestamps[backward[0]]:.4f} s before {timestamps[backward[0] + 1]:.4f} s at sample {backward[0]}"
            if len(backward)
            else f"{len(timestamps)} samples over {duration:.3f} s",
            fix="Take the published file, or leave wheel and trials out with --skip-behavior.",
        )
    start = float(timestamps[0])
    times = start + np.arange(int(duration * WHEEL_HZ) + 1) / WHEEL_HZ
    position = np.interp(times, timestamps, position)
    filtered = sosfiltfilt(
        butter(WHEEL_ORDER, WHEEL_CORNER_HZ / WHEEL_HZ * 2, output="sos"), position
    )
    return start, position, np.diff(filtered, prepend=filtered[0]) * WHEEL_HZ


def read_trials(path, domain):
    """Trials as intervals: the table's own, or else from stimulus to response.

    Rows that have none, or that reach out of ``domain``, are left out.
    """
    bounds = {
        "start": ("intervals_0", "stimOn_times"),
        "end": ("intervals_1", "response_times"),
    }
    columns = read_table(
        path, (), [*sum(bounds.values(), ()), *sum(TRIAL_COLUMNS.values(), ())]
    )
    chosen = {
        bound: next((name for name in names if name in columns), None)
        for bound, names in bounds.items()
    }
    fix = (
        "Take the published table, or leave wheel and trials out with --skip-behavior."
    )
    if None in chosen.values():
        raise RawFileError(
            expected=f"columns intervals_0 and intervals_1, or stimOn_times and response_times, in {path}",
            found=f"of the known columns {', '.join(columns) or 'none'}",
            fix=fix,
        )
    start, end = (columns[chosen[bound]].astype(np.float64) for bound in bounds)
    usable = (
        (end > start) & (start >= domain.start[0]) & (end <= domain.end[-1])
    )  # False where one is NaN
    usable = np.flatnonzero(usable)
    usable = usable[np.argsort(start[usable], kind="stable")]
    start, end = start[usable], end[usable]
    if not len(usable) or (start[1:] < end[:-1]).any():
        raise RawFileError(
            expected=f"trials that follow one another in {path}",
            found="trials that overlap"
            if len(usable)
            else "no trial with a start and an end among the spikes",
            fix=fix,
        )
    names = [name for name in sum(TRIAL_COLUMNS.values(), ()) if name in columns]
    return Interval(
        start=start,
        end=end,
        **{name: columns[name][usable].astype(np.float64) for name in names},
        timekeys=[
            "start",
            "end",
            *(name for name in names if name in TRIAL_COLUMNS["times"]),
        ],
    )


# The tables of the output


def unit_table(session, probes, features, acronyms):
    columns = {
        name: np.concatenate([probe[name] for probe in probes]) for name in probes[0]
    }
    area = [
        acronyms.get(number, str(number)) if number else ""
        for number in columns["area_id"].tolist()
    ]
    names = zip(columns["probe"], columns["cluster"], strict=True)
    return ArrayDict(
        id=np.array([f"{session}/{probe}/{cluster:04d}" for probe, cluster in names]),
        area=np.array(area),
        reference_features=features,
        **columns,
    )


def make_splits(observed):
    """Reference window and train, valid and test intervals inside ``observed``, where everything is recorded.

    The first minute is the reference window, and for training. What follows is cut into equal blocks of at least a
    minute (both less in a session of less than a quarter of an hour); a seeded draw says which validate and which test,
    at least one each. Neighbours of one split are joined; before each change of split 1 s is left out, so that neither a
    window nor the wheel's filter sees both sides.
    """
    start, end = float(observed.start[0]), float(observed.end[-1])
    reference_s = min(REFERENCE_S, (end - start) / LEAST_REFERENCES)
    block_s = min(BLOCK_S, (end - start) / LEAST_BLOCKS)
    n_blocks = int((end - start - reference_s) // block_s)
    counts = {
        split: max(1, round(share * n_blocks)) for split, share in FRACTIONS.items()
    }
    if block_s <= 2 * GAP_S:
        raise RawFileError(
            expected=f"a recording of more than {2 * GAP_S * LEAST_BLOCKS:g} s",
            found=f"{end - start:.1f} s",
            fix="Leave the session out with --sessions.",
        )
    edges = np.concatenate(
        [[start], np.linspace(start + reference_s, end, n_blocks + 1)]
    )
    split = np.full(n_blocks + 1, "train")
    order, taken = 1 + np.random.default_rng(SEED).permutation(n_blocks), 0
    for name, count in counts.items():
        split[order[taken : taken + count]] = name
        taken += count
    begins = np.flatnonzero(np.concatenate([[True], split[1:] != split[:-1]]))
    ends = np.concatenate([edges[begins[1:]] - GAP_S, [end]])
    domains = {
        f"{name}_domain": Interval(edges[begins][chosen], ends[chosen])
        for name in ("train", "valid", "test")
        for chosen in [split[begins] == name]
    }
    return domains | {
        "reference_domain": Interval(start, min(start + reference_s, float(ends[0])))
    }


def trial_splits(trials, splits):
    """The split in which all of a trial lies; empty where none does."""
    names = np.full(len(trials), "", dtype="U5")
    for name in ("train", "valid", "test"):
        domain = splits[f"{name}_domain"]
        inside = (trials.start[:, None] >= domain.start) & (
            trials.end[:, None] <= domain.end
        )
        names[inside.any(axis=1)] = name
    return names


# Reference features

ISI_EDGES = np.geomspace(1e-3, 10.0, 21)
BIN_S, LAGS, FANO_BINS = 0.01, 10, 10


def reference_features(spike_times, unit_index, n_units, *, start, end):
    """(n_units, 33) float32: what tells a unit, from its spikes in [start, end).

    Column 0: rate in Hz. 1: standard deviation / mean of the inter-spike intervals. 2-21: share of the intervals in
    each bin between ISI_EDGES, the first and last of which take what lies beyond. 22-31: autocorrelation of counts in
    10 ms bins at lags 1 to 10, the mean product of deviations / variance. 32: variance / mean of counts in 100 ms bins.
    What is not defined is 0. As ``neurobridge_tb.datasets.reference_features`` has them; a test holds both together.
    """
    inside = (spike_times >= start) & (spike_times < end)
    if not inside.any():
        raise RawFileError(
            expected=f"spikes of good units in the reference window, {start:.1f} to {end:.1f} s",
            found="none",
            fix="Make the window longer (--reference-seconds).",
        )
    units = unit_index[inside]
    order = np.argsort(units, kind="stable")
    times, bounds = (
        spike_times[inside][order],
        np.searchsorted(units[order], np.arange(n_units + 1)),
    )
    n_bins = int(np.floor((end - start) / BIN_S + 1e-6))
    n_whole = n_bins // FANO_BINS * FANO_BINS
    features = np.zeros((n_units, 33))
    for unit in np.flatnonzero(np.diff(bounds)):
        own = times[bounds[unit] : bounds[unit + 1]]
        row = features[unit]
        row[0] = len(own) / (end - start)
        isi = np.diff(own)
        if len(isi):
            row[1] = isi.std() / isi.mean() if isi.mean() > 0 else 0.0
            bins = np.clip(np.searchsorted(ISI_EDGES, isi, side="right") - 1, 0, 19)
            row[2:22] = np.bincount(bins, minlength=20) / len(isi)
        bins = np.floor((own - start) / BIN_S).astype(np.int64)
        counts = np.bincount(bins[bins < n_bins], minlength=n_bins).astype(float)
        deviation = counts - counts.mean() if n_bins else counts
        power = deviation @ deviation
        if power > 0:
            for lag in range(1, min(LAGS, n_bins - 1) + 1):
                row[21 + lag] = (
                    deviation[:-lag]
                    @ deviation[lag:]
                    / (n_bins - lag)
                    / (power / n_bins)
                )
        windows = counts[:n_whole].reshape(-1, FANO_BINS).sum(axis=1)
        if windows.sum() > 0:
            row[32] = windows.var() / windows.mean()
    return features.astype(np.float32)
