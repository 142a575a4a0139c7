"""Raw files over HTTP from a server on this machine: resumed, retried, and never half a file under the final name."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import h5py
import numpy as np
import pytest
from tvsd_raw import TEST, TRAIN, response_arrays, write_image_names, write_responses


class Server(ThreadingHTTPServer):
    """Serves ``files``; ``ranges``: honours Range; each request takes its trouble from the front of ``troubles``.

    A trouble is an HTTP status to answer with, or a share of the body after which the connection is cut.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.troubles, self.asked = {}, True, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
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
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: int(trouble * len(rest))] if isinstance(trouble, float) else rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


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
        pipeline_module["download_file"](f"{server.url}/{name}", path, report)
        return path

    return run


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


def test_part_of_an_earlier_run_is_continued(download, server, mat, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.mat.part").write_bytes(mat[:1000])
    assert download().read_bytes() == mat
    assert server.asked == [("/x.mat", "bytes=1000-")]


def test_whole_part_of_an_earlier_run_is_taken(download, mat, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.mat.part").write_bytes(mat)
    assert download().read_bytes() == mat


def test_part_that_does_not_fit_is_fetched_anew(download, mat, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.mat.part").write_bytes(mat + b"tail of another file")
    assert download().read_bytes() == mat


def test_server_without_range_sends_from_the_start(download, server, mat):
    server.ranges, server.troubles = False, [0.5]
    assert download().read_bytes() == mat


def test_server_errors_are_tried_again(download, server, mat):
    server.troubles = [503, 500, 429]
    assert download().read_bytes() == mat


def test_giving_up_keeps_the_part_and_says_how_to_go_on(download, server, mat, tmp_path):
    server.ranges, server.troubles = False, [0.5] * 20
    with pytest.raises(ValueError, match=r"whole of http.*[\s\S]*tries without progress[\s\S]*goes on from"):
        download()
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["x.mat.part"]
    assert len(server.asked) == 4


def test_missing_file_names_the_address_at_once(download, server):
    with pytest.raises(ValueError, match=r"a file at http://127.*nothing.mat[\s\S]*404[\s\S]*--base-url"):
        download("nothing.mat")
    assert len(server.asked) == 1


def test_what_is_no_mat_file_is_not_kept(download, server, tmp_path):
    server.files["/x.mat"] = b"<html>please sign in</html>"
    with pytest.raises(ValueError, match="not HDF5"):
        download()
    assert not list((tmp_path / "raw").iterdir())


def test_no_server_is_an_error_that_names_the_address(download, server, pipeline_module, tmp_path):
    url = f"{server.url.rsplit(':', 1)[0]}:1/x.mat"
    with pytest.raises(ValueError, match="whole of http://127.0.0.1:1/x.mat"):
        pipeline_module["download_file"](url, tmp_path / "x.mat", lambda _: None)


def test_prepare_downloads_what_is_missing_and_only_that(server, prepare, tmp_path):
    source = tmp_path / "source"
    write_responses(source / "THINGS_normMUA.mat", response_arrays())
    write_image_names(source / "things_imgs.mat", {"train": TRAIN, "test": TEST})
    server.files = {
        "/TVSD/monkeyF/THINGS_normMUA.mat": (source / "THINGS_normMUA.mat").read_bytes(),
        "/TVSD/monkeyF/_logs/things_imgs.mat": (source / "things_imgs.mat").read_bytes(),
    }
    folder = prepare(f"--base-url={server.url}/TVSD/", "--monkeys=F")
    assert (folder / "monkeyF_norm.h5").exists() and len(server.asked) == 2
    prepare(f"--base-url={server.url}/TVSD/", "--monkeys=F", "--reprocess")
    assert len(server.asked) == 2
    prepare(f"--base-url={server.url}/TVSD/", "--monkeys=F", "--redownload")
    assert len(server.asked) == 4
