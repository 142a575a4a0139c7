"""A hub on localhost: the calls of the Hugging Face hub's HTTP interface that uploading and loading need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class EmulatedHub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        commits: For each repository its commits, oldest first: hash and files.
        token: The token that may write; any other is refused.
        requested: Paths of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.token, self.requested = "hf_writer", []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """A commit that adds or replaces files; returns its hash."""
        before = self.commits.setdefault(repo, [])
        content = (before[-1][1] if before else {}) | files
        commit = hashlib.sha1(repr((len(before), sorted(content))).encode()).hexdigest()
        before.append((commit, content))
        return commit


@contextmanager
def emulated_hub() -> Iterator[EmulatedHub]:
    """A running hub, stopped at the end."""
    hub = EmulatedHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: EmulatedHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/]+)", path):
            found = self._commit(match[1], match[2])
            if found is None:
                return
            commit, files = found
            if "/tree/" in path:
                sizes = [{"type": "file", "path": k, "size": len(v), "oid": _oid(v)} for k, v in files.items()]
                return self._answer(sizes)
            return self._answer({"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            found = self._commit(match[1], match[2])
            if found is None:
                return
            commit, files = found
            if match[3] not in files:
                return self._answer({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            content = files[match[3]]
            return self._send(content, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit})
        self._answer({}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.requested.append(self.path)
        path = self.path.partition("?")[0]
        body = self._body()
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.server.commits.setdefault(repo, [])
            return self._answer({"url": f"{self.server.address}/{repo}", "name": repo})
        repo = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [f | {"uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self._answer({"files": files})
        lines = [json.loads(line) for line in body.splitlines() if line]
        files = {v["value"]["path"]: base64.b64decode(v["value"]["content"]) for v in lines if v["key"] == "file"}
        commit = self.server.add(repo, files)
        address = f"{self.server.address}/{repo}/commit/{commit}"
        return self._answer({"commitUrl": address, "commitOid": commit, "hookOutput": ""})

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.server.commits.get(repo)
        if not commits:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        found = {"main": commits[-1]} | {commit: (commit, files) for commit, files in commits}
        if revision not in found:
            self._answer({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return found.get(revision)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """No lines in the tests' output."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
