"""An S3 bucket in this process: what reading needs (list, head, get with ranges), over a folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Serve the folders in `folder` as buckets; yields the endpoint."""

    class Handler(_Handler):
        root = folder

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, *args: Any) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._get(head=True)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type" in parse_qs(parts.query):
            self._list(unquote(parts.path).strip("/"), parse_qs(parts.query))
        else:
            self._get(head=False)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        delimited = "delimiter" in query
        keys: dict[str, int] = {}
        common = set()
        for path in sorted((self.root / bucket).rglob("*")):
            key = path.relative_to(self.root / bucket).as_posix()
            if not path.is_file() or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimited and "/" in rest:
                common.add(f"{prefix}{rest.split('/')[0]}/")
            else:
                keys[key] = path.stat().st_size
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z"
            f'</LastModified><ETag>"0"</ETag><Size>{size}</Size></Contents>'
            for key, size in keys.items()
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
            for key in sorted(common)
        )
        body = (
            '<?xml version="1.0"?><ListBucketResult '
            'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>"
            f"<KeyCount>{len(keys) + len(common)}</KeyCount>{contents}{folders}"
            "</ListBucketResult>"
        ).encode()
        self._send(200, body, {"Content-Type": "application/xml"})

    def _get(self, head: bool) -> None:
        path = self.root / unquote(urlsplit(self.path).path).strip("/")
        if not path.is_file():
            body = b"" if head else b"<Error><Code>NoSuchKey</Code></Error>"
            self._send(404, body, {})
            return
        content = path.read_bytes()
        headers = {"ETag": '"0"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if head:
            self._send(200, b"", headers, length=len(content))
        elif asked:
            start = int(asked[1])
            end = min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._send(206, content[start : end + 1], headers)
        else:
            self._send(200, content, headers)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
