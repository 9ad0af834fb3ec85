"""What every answer has, whatever the route: a version, a browser's instructions, an end."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve.errors import unexpected

log = logging.getLogger(__name__)

_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
_UNLESS_SET = {
    "content-security-policy": "frame-ancestors 'none'",
    # Answers are somebody's texts. Files that may be kept say so themselves.
    "cache-control": "no-store",
}


class Envelope:
    """ASGI middleware. Sets `x-bayling-model-version` and the headers that tell a browser what it
    must not do with an answer; an exception that nobody expected gets an answer too.

    `x-request-id` is not set here: Ray Serve's proxy does, with the client's or its own, and a
    second one would make two of it.
    """

    def __init__(self, app: ASGIApp, version: str) -> None:
        self._app = app
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-bayling-model-version"] = self._version
                headers.update(_ALWAYS)
                for name, value in _UNLESS_SET.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_labelled)
        except Exception:
            log.exception("request %s failed", Headers(scope=scope).get("x-request-id"))
            if started:
                raise
            await unexpected().response()(scope, receive, send_labelled)
