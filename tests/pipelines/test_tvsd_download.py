"""Raw files over HTTP from a server on this machine: resumed, retried, and never half a file under the final name."""

import hashlib
import multiprocessing
import resource
import zlib
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import h5py
import numpy as np
import pytest
from pipeline_tools import serving
from tvsd_raw import (
    TEST,
    TRAIN,
    mapping,
    response_arrays,
    traces,
    trial_table,
    write_image_names,
    write_mapping,
    write_responses,
    write_trials,
)


class Server(ThreadingHTTPServer):
    """Serves ``files``; ``ranges``: honours Range; each request takes its trouble from the front of ``troubles``.

    ``versions`` names a content by its ETag, its date of change, or not at all.

    A trouble is an HTTP status to answer with, a share of the body after which the connection is cut, or bytes to send
    instead of the body, whose length the header gives.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.versions, self.troubles, self.asked = {}, True, "ETag", [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    extra_length = 0  # that is announced and not sent

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append((self.path, asked))
        body = server.files.get(self.path)
        trouble = server.troubles.pop(0) if server.troubles else None
        status = 404 if body is None else trouble if isinstance(trouble, int) else 200
        if status != 200:
            self.send_error(status)
            return
        version = self.version(body)
        known = self.headers.get("If-Range")
        resumable = asked and server.ranges and (known is None or known == version)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if resumable else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if version:
            self.send_header(server.versions, version)
        rest = trouble if isinstance(trouble, bytes) else body[start:]
        self.send_header("Content-Length", str(len(rest) + self.extra_length))
        self.end_headers()
        self.wfile.write(rest[: int(trouble * len(rest))] if isinstance(trouble, float) else rest)

    def version(self, body):
        if self.server.versions == "ETag":
            return f'"{hashlib.md5(body).hexdigest()}"'
        if self.server.versions == "Last-Modified":
            return formatdate(zlib.crc32(body), usegmt=True)
        return None

    def log_message(self, *_):
        pass


def write_part(path, content, server_content):
    """The part of an earlier run, of the version that the server had then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_name(f"{path.name}.version").write_text(f'"{hashlib.md5(server_content).hexdigest()}"')


@pytest.fixture
def server():
    server = Server()
    with serving(server):
        yield server


@pytest.fixture
def mat(server, tmp_path):
    """Bytes of a small HDF5 file, served as /x.mat."""
    with h5py.File(tmp_path / "source.mat", "w") as file:
        file["x"] = np.random.default_rng(0).random(50_000)
    server.files["/x.mat"] = (tmp_path / "source.mat").read_bytes()
    return server.files["/x.mat"]


@pytest.fixture
def download(server, tmp_path, pipeline_module):
    pipeline_module["RETRY_WAITS_S"] = (0, 0, 0)

    def run(name="x.mat", report=lambda _: None):
        path = tmp_path / "raw" / name
        pipeline_module["download_file"](f"{server.url}/{name}", path, report, pipeline_module["check_raw_file"])
        return path

    return run


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_download_reports_progress(download, mat):
    reports = []
    assert download(report=reports.append).read_bytes() == mat
    assert reports[-1] == "DOWNLOADING x.mat 100 %"


def test_cut_connection_is_resumed_where_it_was_cut(download, server, mat):
    server.troubles = [0.5, 0.5]
    path = download()
    assert path.read_bytes() == mat and not path.with_name("x.mat.part").exists()
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in server.asked[1:]]
    assert len(starts) == 2 and 0 < starts[0] < starts[1]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("byte", [0, 1, 511, 512, 65_536, 200_000, -1])
def test_download_cut_at_any_byte(download, server, mat, byte, ranges):
    server.ranges = ranges
    server.troubles = [byte % len(mat) / len(mat)]
    assert download().read_bytes() == mat


def test_another_length_than_announced_is_tried_again(download, server, mat, monkeypatch):
    monkeypatch.setattr(Handler, "extra_length", 100)
    with pytest.raises(ValueError, match=r"whole of http.*[\s\S]*tries without progress[\s\S]*100 more expected"):
        download()
    monkeypatch.setattr(Handler, "extra_length", 0)
    assert download().read_bytes() == mat


def test_shorter_file_on_the_server_is_not_kept(download, server, mat, tmp_path):
    server.troubles = [mat[:100_000]]
    with pytest.raises(ValueError, match="100,000 bytes of a file that is damaged or truncated"):
        download()
    assert files(tmp_path / "raw") == []
    assert download().read_bytes() == mat


def test_rest_of_another_file_is_not_kept(download, server, mat, tmp_path):
    # What went before was no such file, whatever its version says.
    write_part(tmp_path / "raw" / "x.mat.part", b"MATLAB 5.0" + bytes(1000), mat)
    with pytest.raises(ValueError, match="v5 file"):
        download()
    assert files(tmp_path / "raw") == []


def test_disk_full_keeps_the_part_and_says_how_to_go_on(download, server, mat, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # writing beyond fails, as on a full disk
    try:
        with pytest.raises(ValueError, match=r"room for x.mat in .*raw[\s\S]*writing failed[\s\S]*goes on from"):
            download()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path / "raw") == ["x.mat.part", "x.mat.part.version"]
    assert download().read_bytes() == mat
    assert server.asked[-1][1] == "bytes=200000-"


def test_part_of_an_earlier_run_is_continued(download, server, mat, tmp_path):
    write_part(tmp_path / "raw" / "x.mat.part", mat[:1000], mat)
    assert download().read_bytes() == mat
    assert server.asked == [("/x.mat", "bytes=1000-")]


def test_whole_part_of_an_earlier_run_is_taken(download, mat, tmp_path):
    write_part(tmp_path / "raw" / "x.mat.part", mat, mat)
    assert download().read_bytes() == mat


def test_part_that_does_not_fit_is_fetched_anew(download, mat, tmp_path):
    write_part(tmp_path / "raw" / "x.mat.part", mat + b"tail of another file", mat)
    assert download().read_bytes() == mat


def test_server_without_range_sends_from_the_start(download, server, mat):
    server.ranges, server.troubles = False, [0.5]
    assert download().read_bytes() == mat


def test_server_errors_are_tried_again(download, server, mat):
    server.troubles = [503, 500, 429]
    assert download().read_bytes() == mat


def test_giving_up_keeps_the_part_and_says_how_to_go_on(download, server, mat, tmp_path):
    server.ranges, server.troubles = False, [0.5] * 20
    with pytest.raises(ValueError, match=r"whole of http.*[\s\S]*tries without progress[\s\S]*goes on from where"):
        download()
    assert files(tmp_path / "raw") == ["x.mat.part", "x.mat.part.version"]
    assert len(server.asked) == 4


def test_missing_file_names_the_address_at_once(download, server):
    with pytest.raises(ValueError, match=r"a file at http://127.*nothing.mat[\s\S]*404[\s\S]*by hand"):
        download("nothing.mat")
    assert len(server.asked) == 1


def test_what_is_no_mat_file_is_not_kept(download, server, tmp_path):
    server.files["/x.mat"] = b"<html>please sign in</html>"
    with pytest.raises(ValueError, match="not HDF5"):
        download()
    assert files(tmp_path / "raw") == []


def test_no_server_is_an_error_that_names_the_address(download, server, pipeline_module, tmp_path):
    url = f"{server.url.rsplit(':', 1)[0]}:1/x.mat"
    with pytest.raises(ValueError, match="whole of http://127.0.0.1:1/x.mat"):
        pipeline_module["download_file"](url, tmp_path / "x.mat", lambda _: None)


@pytest.mark.parametrize("versions", ["ETag", "Last-Modified", "none"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_at_equal_length_is_never_mixed(download, server, mat, ranges, versions):
    server.ranges, server.versions, server.troubles = ranges, versions, [0.5, 0.5, 404]
    with pytest.raises(ValueError, match="404"):
        download()
    with h5py.File(io := BytesIO(mat), "r+") as file:
        file["x"][...] = 1.0
    changed = io.getvalue()
    assert len(changed) == len(mat) and changed != mat
    server.files["/x.mat"] = changed
    assert download().read_bytes() == changed


def test_a_part_whose_version_nobody_noted_is_fetched_anew(download, server, mat, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.mat.part").write_bytes(b"x" * 1000)
    assert download().read_bytes() == mat
    assert server.asked == [("/x.mat", None)]


def test_s3_names_what_it_sends_by_its_checksum(download, server, mat, monkeypatch):
    """A byte that was changed on the way, with the length as it should be."""
    monkeypatch.setattr(Handler, "version_string", lambda self: "AmazonS3")
    server.troubles = [mat[:-1] + bytes([mat[-1] ^ 1])]
    assert download().read_bytes() == mat
    assert len(server.asked) == 2


@pytest.fixture
def published(server, tmp_path):
    """The raw files of monkey F, on the server; returns the pipeline's constant that names it."""
    folder = tmp_path / "published"
    table = trial_table()
    write_responses(folder / "THINGS_normMUA.mat", response_arrays())
    write_image_names(folder / "_logs" / "things_imgs.mat", {"train": TRAIN, "test": TEST})
    write_mapping(folder / "_logs" / "1024chns_mapping_20220105.mat", mapping())
    write_trials(folder / "THINGS_MUA_trials.mat", table, traces(table.shape[1]))
    server.files = {
        f"/TVSD/monkeyF/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.mat")
    }
    return {"GIN": f"{server.url}/TVSD"}


def test_prepare_downloads_what_is_missing_and_only_that(server, published, prepare):
    folder = prepare(**published)
    assert (folder / "monkeyF_norm.h5").exists() and len(server.asked) == 2
    prepare("--reprocess", **published)
    assert len(server.asked) == 2
    prepare("--redownload", **published)
    assert len(server.asked) == 4
    prepare(item="monkeyF_trials", **published)
    names = [path.rpartition("/")[2] for path, _ in server.asked[4:]]
    assert names == ["1024chns_mapping_20220105.mat", "THINGS_MUA_trials.mat"]
    assert (folder / "monkeyF_trials.h5").exists()


def test_two_processes_download_a_file_once(server, published, prepare, tmp_path):
    fork = multiprocessing.get_context("fork")
    items = ("monkeyF_norm", "monkeyF_trials")
    processes = [fork.Process(target=prepare, kwargs={"item": item, **published}) for item in items]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.asked) == len({path for path, _ in server.asked}) == 4


def test_a_mapping_that_is_none_is_not_kept(server, published, prepare, tmp_path):
    server.files["/TVSD/monkeyF/_logs/1024chns_mapping_20220105.mat"] = b"<html>please sign in</html>"
    with pytest.raises(ValueError, match="'mapping'"):
        prepare(item="monkeyF_trials", **published)
    assert "1024chns_mapping_20220105.mat" not in files(tmp_path / "raw" / "tvsd" / "monkeyF" / "_logs")
