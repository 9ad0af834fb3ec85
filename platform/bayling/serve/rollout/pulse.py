"""What a controller in a pod of its own tells whoever asks over HTTP: that it lives, and what it
does. It has no door for orders: those go through MLflow.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Pulse:
    """`GET /healthz`: 200 while it beats, 503 after. `GET /status`: what was said last.

    Use as a context manager, which listens on all addresses until the block ends.
    """

    def __init__(self, port: int, within_s: float) -> None:
        """
        Args:
            port: 0 for one that is free.
            within_s: how long a beat counts.

        Raises:
            OSError: the port is taken.
        """
        self._within_s = within_s
        self._beaten = time.monotonic()
        self._said: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("", port), self._handler())
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def beat(self, said: Mapping[str, Any]) -> None:
        """It lives, and does this, as JSON has it."""
        self._said, self._beaten = dict(said), time.monotonic()

    def __enter__(self) -> Pulse:
        threading.Thread(target=self._server.serve_forever, daemon=True, name="pulse").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pulse = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ago = time.monotonic() - pulse._beaten
                alive = ago < pulse._within_s
                path = self.path.partition("?")[0]
                if path == "/status":
                    self._answer(200, {**pulse._said, "seconds_ago": round(ago, 1)})
                elif path == "/healthz":
                    self._answer(200 if alive else 503, {"status": "ok" if alive else "stuck"})
                else:
                    self._answer(404, {"error": "there are /healthz and /status"})

            def _answer(self, status: int, body: Mapping[str, Any]) -> None:
                text = json.dumps(body, ensure_ascii=False).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass  # probes would be all there is in the log

        return Handler
