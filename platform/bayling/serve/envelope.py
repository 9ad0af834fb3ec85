"""What every exchange has, whatever the route: a version, a size limit, an answer."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve.errors import ApiError, unexpected

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 * 2**20
"""Some hundred times what a context of 2,048 tokens can hold."""


class Envelope:
    """ASGI middleware. Sets `x-bayling-model-version` on every answer.

    A body that is too large is refused before anything parses it, and an exception that
    nobody expected gets an answer. `x-request-id` is not set here: Ray Serve's proxy does,
    with the client's or its own, and a second one would make two of it.
    """

    def __init__(self, app: ASGIApp, version: str, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._version = version
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-bayling-model-version"] = self._version
            await send(message)

        try:
            body = await self._body(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send_labelled)
            return
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._app(scope, receive_again, send_labelled)
        except Exception:
            log.exception("request %s failed", Headers(scope=scope).get("x-request-id"))
            if started:
                raise
            await unexpected().response()(scope, receive, send_labelled)

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
