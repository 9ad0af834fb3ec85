"""Clients of a node that is about to go are sent elsewhere while it still answers.

Kubernetes keeps new connections away from a pod that is to end, and KubeRay from a Ray cluster that
is replaced. Those that are open stay: their clients would go on asking a cluster whose engines have
left. So its last answers say `connection: close`, and each client's next request makes a new
connection, to where the service points by now.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class LastAnswers:
    """ASGI middleware that ends connections to nodes that are leaving.

    Args:
        leaving: whether the node with this address is; the proxy that a request came through may
            be on another one than the API.
    """

    def __init__(self, app: ASGIApp, leaving: Callable[[str], bool]) -> None:
        self._app = app
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                address = (scope.get("server") or ("",))[0]
                if self._leaving(address):
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last)


class Nodes:
    """Which nodes of the Ray cluster are leaving; asked of Ray once a second, in a thread."""

    def __init__(self) -> None:
        self._leaving: frozenset[str] = frozenset()
        self._here = False
        threading.Thread(target=self._watch, daemon=True, name="leaving nodes").start()

    def leaving(self, address: str) -> bool:
        """Whether this process's node is, or the one with that address."""
        return self._here or address in self._leaving

    def _watch(self) -> None:
        import ray

        # What Ray Train and Ray Serve ask, too; there is no public way.
        from ray._private.state import state

        here = ray.get_runtime_context().get_node_id()
        wait = threading.Event()
        while not wait.wait(_LOOK_EVERY_S):
            try:
                going = state.get_draining_nodes()
                if going and not self._here and here in going:
                    log.warning("this node is leaving: connections end with their next answer")
                nodes = ray.nodes() if going else []
            except Exception as error:  # the control plane may leave first
                log.debug("what leaves cannot be asked: %s", error)
                continue
            self._here = here in going
            self._leaving = frozenset(
                n["NodeManagerAddress"] for n in nodes if n["NodeID"] in going
            )
