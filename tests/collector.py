"""An OpenTelemetry collector: takes spans by OTLP over HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Collected:
    """A span, and which deployment it came from."""

    deployment: str
    span: Any

    @property
    def trace_id(self) -> str:
        found: str = self.span.trace_id.hex()
        return found

    @property
    def attributes(self) -> dict[str, Any]:
        return {one.key: _value(one.value) for one in self.span.attributes}


class Collector:
    def __init__(self) -> None:
        self.spans: list[Collected] = []
        self.bodies = b""

    def of(self, trace_id: str) -> list[Collected]:
        return [one for one in list(self.spans) if one.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        self.bodies += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: _value(one.value) for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(Collected(about["bayling.deployment"], span))


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collecting(port: int) -> Iterator[Collector]:
    """A collector at http://127.0.0.1:PORT/v1/traces."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
