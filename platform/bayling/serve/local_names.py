"""What keeps web pages away from a server that is open to programs on its own machine.

A page of another site can have its own name lead to 127.0.0.1 (DNS rebinding); to the browser it
then is of the same origin as the server and may read every answer. But it is still asked for under
that name, and that is in the Host header.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bayling.serve.config import LOCAL_HOSTS
from bayling.serve.errors import ApiError

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\[\]:]*)(?::\d+)?")


class LocalNamesOnly:
    """ASGI middleware: answers requests to localhost's names, and refuses others with 421.

    Any port will do: a tunnel may lead here from another one, and no page can have such a name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            host = Headers(scope=scope).get("host", "")
            if not is_local(host):
                error = ApiError(
                    421,
                    f"this server asks for no key and so answers to {', '.join(LOCAL_HOSTS)} "
                    f"only, not to {host!r}: let it ask for keys, with serve.auth=on",
                    code="misdirected_request",
                )
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_local(host: str) -> bool:
    """Whether a Host header names this machine as only this machine does."""
    found = _HOST.fullmatch(host.strip())
    return found is not None and found["name"].strip("[]").lower() in LOCAL_HOSTS
