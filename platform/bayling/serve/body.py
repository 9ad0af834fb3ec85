"""A request's body: all of it, in time, not too large and as it is; or the reason why not."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve import observed
from bayling.serve.errors import ApiError

MAX_BODY_BYTES = 2 * 2**20
"""Some hundred times what a context of 2,048 tokens can hold."""


class WholeBody:
    """ASGI middleware that has read the body before anything parses it.

    Args:
        timeout_s: within which the body must arrive.
    """

    def __init__(
        self, app: ASGIApp, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(Headers(scope=scope))
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except TimeoutError:
            await self._too_slow().response()(scope, receive, send)
            return
        if body is None:
            return
        observed.current().arrived()
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_again, send)

    def _check(self, headers: Headers) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            # Two megabytes of gzip may be two gigabytes of text.
            raise ApiError(
                415,
                f"a body in content-encoding: {encoding} is not taken: send it as it is",
                code="unsupported_content_encoding",
                headers={"accept-encoding": "identity"},
            )
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None when the client has left before its end."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ApiError:
        # The connection stays: closed while the client still sends, it would never read this.
        return ApiError(
            413,
            f"the body is larger than the {self._max_body_bytes} bytes that this server takes",
            code="request_too_large",
        )

    def _too_slow(self) -> ApiError:
        # Closed: what comes of this body later would hold the connection for as long as it likes.
        return ApiError(
            408,
            f"the body did not arrive within {self._timeout_s:g} s",
            code="body_timeout",
            headers={"connection": "close"},
        )
