"""What every answer has, whatever the route: a version, a browser's instructions, an end."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve import logs, observed
from bayling.serve.errors import unexpected

log = logging.getLogger(__name__)

_VERSION = "bayling.version"
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
"""A client's own id that may stand in a header and in a log."""
_ODD = re.compile(r"[^\w.:-]", re.ASCII)
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


def answered_by(request: Request, version: str) -> None:
    """Note down which version of the model answers a request, for its header."""
    request.scope[_VERSION] = version
    observed.current().version = version


class Envelope:
    """ASGI middleware. Sets `x-bayling-model-version` and the headers that tell a browser what it
    must not do with an answer; an exception that nobody expected gets an answer too.

    Args:
        version: of the model, for answers that none has been chosen for.
        name_requests: whether to set `x-request-id`, the client's own or a new one. Behind Ray
            Serve's proxy not: it does, and a second one would make two of it.
    """

    def __init__(self, app: ASGIApp, version: Callable[[], str], name_requests: bool) -> None:
        self._app = app
        self._version = version
        self._name_requests = name_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not self._name_requests:
            # Serve takes any id. What stands in a log is of the same form here as there.
            request_id = _ODD.sub("_", request_id)[:128]
        elif not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        observed.current().request_id = request_id
        logs.about(request_id)
        started = False

        async def send_labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-bayling-model-version"] = scope.get(_VERSION) or self._version()
                if self._name_requests:
                    headers["x-request-id"] = request_id
                headers.update(_ALWAYS)
                for name, value in _UNLESS_SET.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_labelled)
        except Exception:
            log.exception("the request failed")
            if started:
                raise
            await unexpected().response()(scope, receive, send_labelled)
