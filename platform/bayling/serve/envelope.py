"""What every exchange has, whatever the route: an id, a version, a size limit, an answer."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve.errors import ApiError, unexpected

log = logging.getLogger(__name__)

_VERSION = "bayling.version"
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
"""A client's own id that may stand in a header and in a log."""
MAX_BODY_BYTES = 2 * 2**20
"""Some hundred times what a context of 2,048 tokens can hold."""


def answered_by(request: Request, version: str) -> None:
    """Note down which version of the model answers a request, for its header."""
    request.scope[_VERSION] = version


class Envelope:
    """ASGI middleware. Sets `x-bayling-model-version` and `x-request-id` on every answer.

    A body that is too large is refused before anything parses it, an exception that nobody
    expected gets an answer, and a request whose client has gone is not worked on any longer.
    """

    def __init__(
        self, app: ASGIApp, version: Callable[[], str], max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        """
        Args:
            version: of the model, for answers that none has been chosen for.
        """
        self._app = app
        self._version = version
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        started = False

        async def send_labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-bayling-model-version"] = scope.get(_VERSION) or self._version()
                headers["x-request-id"] = request_id
            await send(message)

        try:
            body = await self._body(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send_labelled)
            return
        try:
            await self._run(scope, body, receive, send_labelled)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await unexpected().response()(scope, receive, send_labelled)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer; for as long as somebody waits for it."""
        gone = asyncio.ensure_future(_disconnected(receive))
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if not replayed:
                replayed = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await asyncio.shield(gone)

        answering = asyncio.ensure_future(self._app(scope, receive_again, send))
        try:
            await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            gone.cancel()
            if not answering.done():
                answering.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await answering

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body is larger than the {self._max_body_bytes} bytes that this server takes",
            code="request_too_large",
        )


async def _disconnected(receive: Receive) -> Message:
    """Returns the message that says that the client has gone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
