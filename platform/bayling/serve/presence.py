"""A request is worked on for as long as somebody waits for its answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WhileAwaited:
    """ASGI middleware that ends the work on a request when its client has gone.

    It comes after the one that reads bodies: the first message is the whole body, and what
    follows can only be that the client leaves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await receive()
        gone = asyncio.ensure_future(_disconnected(receive))
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if not replayed:
                replayed = True
                return body
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


async def _disconnected(receive: Receive) -> Message:
    """Returns the message that says that the client has gone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
