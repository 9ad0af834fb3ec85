"""A server that is asked instead of an engine: again where that helps, and only there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bayling.errors import StageFailed, UserError
from bayling.evaluate import endpoint
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding

pytestmark = pytest.mark.unit

ROWS = [{"id": str(number), "turns": [f"Say {number}.", "Say it again."]} for number in range(6)]


@contextmanager
def server(*trouble: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat server that repeats the last user turn, after these answers of other kinds."""
    asked: list[dict[str, Any]] = []
    before = list(trouble)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "echo"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                asked.append({**body, "authorization": self.headers.get("authorization")})
                special = before.pop(0) if before else None
            if special is not None:
                self._send(special[0], {"error": {"message": "trouble"}}, special[1])
                return
            said = body["messages"][-1]["content"]
            turns = sum(one["role"] == "user" for one in body["messages"])
            answer = {"role": "assistant", "content": f"{said} ({turns})"}
            self._send(200, {"choices": [{"message": answer}], "usage": {"completion_tokens": 3}})

        def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that gave up left before its answers: that is what one test is about."""

    httpd = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_every_turn_is_asked_after_the_servers_own_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BAYLING_API_KEY", "secret")
    with server() as (url, asked):
        rows, tokens = endpoint.Endpoint(url, EvaluateConfig()).answer(ROWS, Decoding(16))
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert rows[2]["outputs"] == ["Say 2. (1)", "Say it again. (2)"]
    assert tokens == 36
    second = next(one for one in asked if len(one["messages"]) == 3)
    assert second["messages"][1]["content"].endswith("(1)")
    assert (second["model"], second["max_tokens"], second["temperature"]) == ("echo", 16, 0)
    assert {one["authorization"] for one in asked} == {"Bearer secret"}


def test_a_busy_server_is_asked_again() -> None:
    soon = {"retry-after": "0.05"}
    with server((429, soon), (503, soon), (500, soon)) as (url, asked):
        rows, _ = endpoint.Endpoint(url, EvaluateConfig()).answer(ROWS, Decoding(16))
    assert all(len(row["outputs"]) == 2 for row in rows)
    assert len(asked) == 12 + 3


def test_a_server_that_stays_busy_ends_the_stage_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT_S", 0.01)
    said = pytest.raises(StageFailed, match=r"no answer in 6 tries \(the last: 429 trouble\)")
    with server(*[(429, {})] * 100) as (url, _), said:
        endpoint.Endpoint(url, EvaluateConfig()).answer(ROWS, Decoding(16))


def test_a_refusal_is_not_asked_again() -> None:
    with server((401, {})) as (url, asked):
        with pytest.raises(UserError, match="refuses: 401 trouble"):
            endpoint.Endpoint(url, EvaluateConfig(endpoint_concurrency=1)).answer(
                ROWS[:1], Decoding(16)
            )
        assert len(asked) == 1


def test_what_no_server_does_is_refused_and_so_is_no_server() -> None:
    with server() as (url, _):
        asking = endpoint.Endpoint(f"{url}/v1#other", EvaluateConfig())
        assert endpoint.served(url, "NO_KEY") == ["echo  "]
        with pytest.raises(UserError, match="does not search with beams"):
            asking.answer(ROWS, Decoding(16, beams=5))
    with pytest.raises(UserError, match="no OpenAI-compatible server answers at"):
        endpoint.served(url, "NO_KEY")
