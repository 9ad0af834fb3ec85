"""Who gets in, and how often: the ASGI middleware before everything that costs work.

It looks at headers only, so that nothing is read from a caller who is not let in.
"""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve import observed
from bayling.serve.errors import ApiError, Overloaded, from_engine
from bayling.serve.keyring import KeyRing
from bayling.serve.limits import LimitReached, Limits, Meter, Meters

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""What probes ask for, and the page in which a person then types a key.

The API's own documentation is not among them: whoever may use the API may read which model is
behind it, and `/docs` runs scripts from elsewhere, which no page beside a typed-in key should.
"""
OPEN_FOLDER = "/playground/"
"""The files of that page."""
METRICS_PATH = "/metrics"
VERSIONS_PATH = "/internal/versions"
REPORT_PATH = "/internal/report"
ANYBODY = "anybody"
"""The caller's name where no key is asked for."""


class Caller:
    """Who sent a request. Handlers find it with `caller`."""

    def __init__(self, name: str, meter: Meter) -> None:
        self.name = name
        self._meter = meter

    def charge(self, tokens: int) -> None:
        """Count what the request has used, prompt and answer; to be called when it is over.

        Over is also an answer whose reader has left: the tokens up to then were used.
        """
        self._meter.charge(tokens)


async def caller(request: Request) -> Caller:  # not async, it would wait for a thread
    """Who sent a request; for FastAPI's `Depends`. Where nobody is asked, anybody."""
    found = getattr(request.state, "caller", None)
    return found if isinstance(found, Caller) else Caller(ANYBODY, Meter(Limits()))


Asking = Annotated[Caller, Depends(caller)]
"""The parameter of a route by which it learns who asks."""


class Admission:
    """Lets requests through that have a valid key and are within its limits.

    Args:
        keys: None lets everybody in, and the limits hold for all of them together.
        limits: those of keys that have none of their own.
        capacity: how many requests may be inside at a time, whoever sends them. What the engines
            refuse has been read, checked and made into tokens first; what is refused here costs
            next to nothing, and so an overload leaves time for those that are inside.
        share: the part of the limits that holds here: 1/R with R processes behind one address.
        open_metrics: whether `/metrics` and `/internal/versions` are for everybody.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing | None,
        limits: Limits,
        capacity: int,
        *,
        share: float = 1.0,
        open_metrics: bool = False,
    ) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._meters = Meters(share)
        self._capacity = max(1, round(capacity * share))
        self._inside = 0
        self._open = OPEN_PATHS | ({METRICS_PATH, VERSIONS_PATH} if open_metrics else frozenset())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a route of another kind would be one without a door
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            name, meter = self._caller(scope)
            observed.current().key = name
            if scope["method"] == "POST" and self._inside >= self._capacity:
                raise from_engine(Overloaded())
            meter.enter()
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except LimitReached as reached:
            observed.current().limit = reached.limit
            await _too_early(reached, meter).response()(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = Caller(name, meter)
        self._inside += 1
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._inside -= 1
                meter.leave()

        async def send_metered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(meter.headers())
            elif not message.get("more_body", False):
                leave()  # before the client has its answer, and may send the next request
            await send(message)

        try:
            await self._app(scope, receive, send_metered)
        finally:
            leave()

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(OPEN_FOLDER)

    def _caller(self, scope: Scope) -> tuple[str, Meter]:
        if self._keys is None:
            return ANYBODY, self._meters.of(ANYBODY, self._limits)
        scheme, _, presented = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise _unauthorized("this server asks for an API key: send authorization: Bearer KEY")
        key = self._keys.owner(presented.strip())
        if key is None:
            raise _unauthorized("the API key is not valid")
        return key.name, self._meters.of(key.id, self._limits.with_own(key.limits))


def _unauthorized(message: str) -> ApiError:
    headers = {"www-authenticate": "Bearer"}
    return ApiError(401, message, code="invalid_api_key", headers=headers)


def _too_early(reached: LimitReached, meter: Meter) -> ApiError:
    seconds = str(max(1, math.ceil(reached.wait_s)))
    headers = {**meter.headers(), "retry-after": seconds}
    return ApiError(429, str(reached), code="rate_limit_exceeded", headers=headers)
