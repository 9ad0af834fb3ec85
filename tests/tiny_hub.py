"""A hub in this process: the routes that the real client asks for, over folders on disk.

A file of more than a kilobyte is kept as large files are: known by its sha256.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1024


@dataclass
class Hub:
    """Its repositories, what it was asked for, and how it is to misbehave."""

    url: str
    repositories: dict[str, Path] = field(default_factory=dict)
    licence: str = "llama2"
    token: str | None = None
    """Without this token every repository is gated."""
    accepts: bool = True
    """Whether the token's account has accepted the licence."""
    flip: set[str] = field(default_factory=set)
    """Files of which one byte arrives changed."""
    stall: set[str] = field(default_factory=set)
    """Files that stop half-way until `go` is set."""
    go: threading.Event = field(default_factory=threading.Event)
    sent: list[str] = field(default_factory=list)
    """Names of the files whose content was sent in full."""
    tokens: set[str] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Hub]:
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silence."""

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, head: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        given = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if given:
            self.hub.tokens.add(given)
        if info := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._if_allowed(info[1], info[2] or "main", given, self._info)
        elif tree := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            self._if_allowed(tree[1], tree[2], given, self._tree)
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._if_allowed(file[1], file[2], given, lambda name: self._file(name, file[3], head))
        else:
            self._fail(404, "RepoNotFound")

    def _if_allowed(self, name: str, revision: str, given: str, work: Any) -> None:
        if name not in self.hub.repositories:
            self._fail(404 if given else 401, "RepoNotFound")
        elif self.hub.token is not None and given != self.hub.token:
            if given:
                self._fail(401, None, "Invalid credentials in Authorization header")
            else:
                self._fail(401, "GatedRepo")
        elif not self.hub.accepts:
            self._fail(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._fail(404, "RevisionNotFound")
        else:
            work(name)

    def _info(self, name: str) -> None:
        self._json(
            {
                "id": name,
                "modelId": name,
                "sha": COMMIT,
                "tags": [],
                "cardData": {"license": self.hub.licence},
                "siblings": [{"rfilename": path.name} for path in self._paths(name)],
            }
        )

    def _tree(self, name: str) -> None:
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": "original"}
        ]
        for path in self._paths(name):
            content = path.read_bytes()
            entry: dict[str, Any] = {"type": "file", "size": len(content), "path": path.name}
            if len(content) > LARGE:
                sha = hashlib.sha256(content).hexdigest()
                entry |= {"oid": "1" * 40}
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
            else:
                entry["oid"] = _git_id(content)
            entries.append(entry)
        self._json(entries)

    def _file(self, name: str, file: str, head: bool) -> None:
        content = (self.hub.repositories[name] / file).read_bytes()
        large = len(content) > LARGE
        etag = hashlib.sha256(content).hexdigest() if large else _git_id(content)
        if file in self.hub.flip:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if head:
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        if file in self.hub.stall:
            self.hub.go.wait(300)
        self.hub.sent.append(file)  # before the client has it all, and the test looks
        self.wfile.write(content[half:])

    def _paths(self, name: str) -> list[Path]:
        return sorted(path for path in self.hub.repositories[name].iterdir() if path.is_file())

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str | None, message: str = "no") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
