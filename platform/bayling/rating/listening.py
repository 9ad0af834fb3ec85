"""The page's server: a socket, the link that leads to it, and the end by Ctrl-C."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from bayling.errors import UserError

_EVERYWHERE = ("0.0.0.0", "::")
_GRACE_S = 2
"""For requests that are being answered when the server ends."""


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise UserError(
            f"port {port} on {host} cannot be listened on ({error.strerror or error}): choose "
            "another with --port"
        ) from None


def link(listening: socket.socket, token: str | None) -> str:
    """What a rater opens. The token stands behind a `#`, so that no server writes it to a log."""
    host, port = listening.getsockname()[:2]
    if host in _EVERYWHERE:
        host = _own_address()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/{f'#{token}' if token else ''}"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answer until KeyboardInterrupt, which is raised when all requests are answered."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _own_address() -> str:
    """Where others find this machine: the address by which it would reach them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of a network that does not exist; nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
