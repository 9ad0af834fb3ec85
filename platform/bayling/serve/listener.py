"""The API's own HTTP server, on a machine where nothing has to stand before it.

Ray Serve's proxy takes about as long for a small model's token as the model does. Where the API
is one replica on the machine that is asked, it listens itself; in a cluster, Ray Serve's
ingress is in front.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from bayling.errors import StageFailed

_BACKLOG = 2048
_KEEP_ALIVE_S = 90
"""Longer than load balancers keep idle connections, so that it is they who close them."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # they are Ray's


class Listener:
    """A running server. See `start`."""

    def __init__(self, serving: asyncio.Task[None]) -> None:
        self._serving = serving

    @staticmethod
    async def start(app: FastAPI, host: str, port: int) -> Listener:
        """Listen from now on, on the running event loop.

        Raises:
            OSError: the port is taken.
        """
        bound = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=_BACKLOG,
        )
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        return Listener(asyncio.create_task(_Server(config).serve([bound])))

    def check(self) -> None:
        """Raise StageFailed when it has ended."""
        if self._serving.done():
            raise StageFailed("the API has stopped listening")
