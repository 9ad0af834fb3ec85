"""What a server reads of a body, and when it stops."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from bayling.serve.body import WholeBody

pytestmark = pytest.mark.unit


class Conversation:
    """One request to an app that answers with the length of the body it was given."""

    def __init__(self, *messages: Any, headers: dict[str, str] | None = None) -> None:
        self._messages = list(messages)
        self._headers = headers or {}
        self.given: list[bytes] = []
        self.sent: list[Any] = []
        self.unread = 0
        asyncio.run(self._run())

    async def _run(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.given.append((await receive())["body"])
            assert (await receive())["type"] == "http.disconnect"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def receive() -> Any:
            if not self._messages:
                await asyncio.Event().wait()
            message = self._messages.pop(0)
            if isinstance(message, bytes):
                return {"type": "http.request", "body": message, "more_body": True}
            return message

        async def send(message: Any) -> None:
            self.sent.append(message)

        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        await WholeBody(app, timeout_s=0.2, max_body_bytes=100)(scope, receive, send)
        self.unread = len(self._messages)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def error(self) -> Any:
        return json.loads(self.sent[1]["body"])["error"]

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]


END = {"type": "http.request", "body": b"", "more_body": False}
LEFT = {"type": "http.disconnect"}


def test_the_app_is_given_the_whole_body_at_once_and_then_what_follows() -> None:
    done = Conversation(b"x" * 50, b"y" * 50, END, LEFT)
    assert (done.status, done.given) == (200, [b"x" * 50 + b"y" * 50])


def test_a_body_that_says_that_it_is_too_large_is_not_read() -> None:
    done = Conversation(b"x" * 101, END, headers={"content-length": "101"})
    assert (done.status, done.error["code"], done.unread) == (413, "request_too_large", 2)
    assert "100 bytes" in done.error["message"] and not done.given


def test_a_body_that_does_not_say_how_large_it_is_is_read_up_to_the_limit() -> None:
    done = Conversation(*[b"x" * 60] * 10)
    assert (done.status, done.unread, done.given) == (413, 8, [])
    assert not done.closes


def test_a_body_that_does_not_arrive_is_waited_for_only_so_long() -> None:
    done = Conversation(b"x")
    assert (done.status, done.error["code"]) == (408, "body_timeout")
    assert "0.2 s" in done.error["message"] and done.closes and not done.given


def test_a_body_that_grows_when_it_is_unpacked_is_refused_unread() -> None:
    bomb = gzip.compress(b"x" * 10**6)
    done = Conversation(bomb, END, headers={"content-encoding": "GZIP"})
    assert (done.status, done.error["code"], done.unread) == (
        415,
        "unsupported_content_encoding",
        2,
    )
    plain = Conversation(END, LEFT, headers={"content-encoding": "identity"})
    assert plain.status == 200


def test_half_a_body_whose_sender_has_left_is_no_request() -> None:
    done = Conversation(b"x" * 50, LEFT)
    assert (done.given, done.sent) == ([], [])
