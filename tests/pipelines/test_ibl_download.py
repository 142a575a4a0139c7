"""Sessions from a bucket on this machine: listed page by page, resumed, and never half a session taken for a whole."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from ibl_raw import ID, SESSION, pipeline_globals, run_pipeline, session_files, with_uuid, write_session
from pipeline_tools import serving

PAGE = 5


class Bucket(ThreadingHTTPServer):
    """Serves ``files`` by key and lists them as S3 does; each file request takes its trouble from ``troubles``.

    A trouble is an HTTP status to answer with, or a share of the body after which the connection is cut.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.troubles, self.listing_troubles, self.asked, self.ranges = {}, [], [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path in ("", "/"):
            self.list(parse_qs(parts.query))
        else:
            self.send(unquote(parts.path).lstrip("/"))

    def list(self, query):
        trouble = self.server.listing_troubles.pop(0) if self.server.listing_troubles else None
        if isinstance(trouble, int):
            return self.send_error(trouble)
        assert query["list-type"] == ["2"]
        keys = sorted(key for key in self.server.files if key.startswith(query["prefix"][0]))
        first = int(query.get("continuation-token", ["0"])[0])
        more = first + PAGE < len(keys)
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.files[key])}</Size></Contents>"
            for key in keys[first : first + PAGE]
        )
        token = f"<NextContinuationToken>{first + PAGE}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}{token}</ListBucketResult>"
        )
        return self.answer(200, (trouble or body).encode())

    def send(self, key):
        asked = self.headers.get("Range")
        self.server.asked.append((key, asked))
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        if key not in self.server.files or isinstance(trouble, int):
            return self.send_error(trouble or 404)
        body = self.server.files[key]
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        resumable = asked and self.server.ranges and self.headers.get("If-Range") == tag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if resumable else 0
        if start >= len(body) > 0:
            return self.answer(416, b"", **{"Content-Range": f"bytes */{len(body)}", "ETag": tag})
        header = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        header["ETag"] = tag
        return self.answer(206 if start else 200, body[start:], share=trouble or 1.0, **header)

    def answer(self, status, body, share=1.0, **headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: int(share * len(body))])

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket(tmp_path):
    """A bucket with the session under uuid names, sorting and trials in revision folders, and files nobody needs."""
    alf = write_session(tmp_path / "source", session_files())
    server = Bucket()
    for path in sorted(p for p in alf.rglob("*") if p.is_file()):
        name = path.relative_to(tmp_path / "source").as_posix()
        folder, _, file = with_uuid(name).rpartition("/")
        of_sorting = "spikes" in file or "clusters" in file
        middle = "#2024-05-06#/" if of_sorting else "#2025-03-03#/" if "trials" in file else ""
        server.files[f"data/{folder}/{middle}{file}"] = path.read_bytes()
        if of_sorting:
            server.files[f"data/{folder}/{file}"] = b"an older revision"
    server.files[f"data/{SESSION}/alf/_ibl_leftCamera.times.npy"] = b"not needed"
    with serving(server):
        yield server


@pytest.fixture
def functions(bucket):
    functions = pipeline_globals()
    functions["BUCKET"] = bucket.url
    functions["RETRY_WAITS_S"] = (0, 0, 0)
    return functions


@pytest.fixture
def download(bucket, functions, tmp_path):
    def run(session=SESSION, again=False):
        raw = tmp_path / "raw" / "ibl_brain_wide_map_2025"
        functions["download_session"](raw, session, behavior=True, again=again, report=lambda _: None)
        return raw / session

    return run


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


def source(bucket):
    """What is to be fetched, by plain name and size."""
    return {key: body for key, body in bucket.files.items() if body not in (b"not needed", b"an older revision")}


def test_prepare_downloads_what_is_missing_and_only_once(bucket, tmp_path, monkeypatch):
    def run(*options):
        return run_pipeline(tmp_path, monkeypatch, f"--sessions={SESSION}", *options, BUCKET=bucket.url)

    folder = run()
    assert (folder / f"{ID}.h5").exists()
    assert {key for key, _ in bucket.asked} == set(source(bucket))
    bucket.asked.clear()
    run("--reprocess")
    assert not bucket.asked
    run("--redownload")
    assert len(bucket.asked) == len(source(bucket))


def test_files_lie_under_their_names_without_uuid(bucket, download):
    folder = download()
    assert sorted(map(len, contents(folder).values())) == sorted(map(len, source(bucket).values()))
    assert (folder / "alf/probe00/pykilosort/#2024-05-06#/spikes.times.npy").exists()
    assert (folder / "alf/_ibl_wheel.position.npy").exists()
    assert not (folder / ".downloading").exists()


def test_cut_connection_is_resumed_where_it_was_cut(bucket, download):
    first = next(key for key in bucket.files if "probe00/pykilosort/#2024-05-06#/spikes.times" in key)
    bucket.files[first] = bytes(range(256)) * 2000
    bucket.troubles = [0.5, 0.5]
    folder = download()
    assert (folder / "alf/probe00/pykilosort/#2024-05-06#/spikes.times.npy").read_bytes() == bucket.files[first]
    starts = [asked for key, asked in bucket.asked if key == first]
    assert starts[0] is None and len(starts) == 3
    assert 0 < int(starts[1][6:-1]) < int(starts[2][6:-1]) < len(bucket.files[first])


def test_server_without_range_and_server_errors(bucket, download):
    bucket.ranges, bucket.troubles, bucket.listing_troubles = False, [0.5, 503, 429], [500]
    assert len(contents(download())) == len(source(bucket))


def test_an_interrupted_download_is_not_taken_for_a_whole_session(bucket, download):
    """Cut between the probes: what is there looks like a session with one probe."""
    n_first = sum("probe00" in key for key in source(bucket))
    bucket.troubles = [None] * n_first + [403]
    with pytest.raises(ValueError, match="HTTP status 403"):
        download()
    before = len(bucket.asked)
    folder = download()
    assert (folder / "alf/probe01/pykilosort/#2024-05-06#/clusters.metrics.pqt").exists()
    fetched = {key for key, _ in bucket.asked[before:]}
    assert fetched == set(source(bucket)) - {key for key, _ in bucket.asked[: before - 1]}


def test_part_of_an_earlier_run_is_continued_and_one_that_is_too_long_is_not(bucket, download):
    keys = [key for key in source(bucket) if "wheel" in key]
    folder = download()
    for key, content in zip(keys, (bucket.files[keys[0]][:100], bucket.files[keys[1]] + b"tail"), strict=True):
        path = next(folder.rglob(key.rpartition("/")[2].split(".")[0] + "." + key.split(".")[-3] + ".npy"))
        path.unlink()
        path.with_name(f"{path.name}.part").write_bytes(content)
        version = hashlib.md5(bucket.files[key]).hexdigest()
        path.with_name(f"{path.name}.part.version").write_text(f'"{version}"')
    bucket.asked.clear()
    assert sorted(map(len, contents(download()).values())) == sorted(map(len, source(bucket).values()))
    too_long = f"bytes={len(bucket.files[keys[1]]) + 4}-"
    assert set(bucket.asked) == {(keys[0], "bytes=100-"), (keys[1], too_long), (keys[1], None)}


def test_a_file_of_another_size_is_not_kept(bucket, functions, tmp_path):
    key = next(iter(source(bucket)))
    path = tmp_path / "x.npy"
    url = f"{bucket.url}/{key.replace('#', '%23')}"
    with pytest.raises(ValueError, match="7 bytes of x.npy"):
        functions["download_file"](url, path, lambda _: None, functions["of_size"](7))
    assert not list(tmp_path.glob("x.npy*"))


def test_giving_up_keeps_the_part(bucket, download, tmp_path):
    bucket.ranges, bucket.troubles = False, [0.5] * 40
    with pytest.raises(ValueError, match=r"the whole of http[\s\S]*goes on from where"):
        download()
    assert len(list((tmp_path / "raw").rglob("*.part"))) == 1
    assert not [p for p in (tmp_path / "raw").rglob("*.npy")]


def test_unknown_session_is_named(bucket, download):
    with pytest.raises(ValueError, match=r"files below http.*labX[\s\S]*--sessions"):
        download("labX/Subjects/nobody/2020-01-01/001")


def test_session_that_lacks_files_in_the_bucket_is_named(bucket, download):
    for key in [key for key in bucket.files if "clusters.metrics" in key and "probe01" in key]:
        del bucket.files[key]
    with pytest.raises(ValueError, match=r"alf/probe01/pykilosort/clusters.metrics.pqt in http"):
        download()
    assert not bucket.asked


def test_what_is_no_listing_is_named(bucket, download):
    bucket.listing_troubles = ["<html><p>sign in</html>"]
    with pytest.raises(ValueError, match="list of files"):
        download()


def test_no_server_is_an_error_that_names_the_address(functions):
    with pytest.raises(ValueError, match="the whole of http://127.0.0.1:1"):
        functions["BUCKET"] = "http://127.0.0.1:1"
        functions["list_bucket"]("data/")
