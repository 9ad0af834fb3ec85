"""Every request is accounted for when it is over: where it counts, in the log, in its trace."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, fields

from opentelemetry.trace import StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bayling.serve.admission import (
    METRICS_PATH,
    OPEN_FOLDER,
    OPEN_PATHS,
    REPORT_PATH,
    VERSIONS_PATH,
)
from bayling.serve.logs import FIELDS
from bayling.serve.observed import LEFT, Exchange, Observation, Observed, observing
from bayling.serve.tracing import NOWHERE, Tracing

log = logging.getLogger(__name__)

Sink = Callable[[Observed, Sequence[Exchange]], None]
"""Takes a request that is over, and its texts where they are kept. Returns at once."""

_UNCOUNTED = OPEN_PATHS | {METRICS_PATH, VERSIONS_PATH, REPORT_PATH}
_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/translations", "/v1/models")
_OTHER = "other"


def endpoint(path: str) -> str:
    """The name that a path counts under: one of a few, whatever somebody asks for."""
    return next((known for known in _ENDPOINTS if re.match(f"{known}(/|$)", path)), _OTHER)


class Accounting:
    """ASGI middleware; the first that a request meets, so that nobody's answer is missed.

    What probes and people's eyes ask for is not counted, nor the figures themselves.

    Args:
        sinks: who is told.
        keep_texts: whether they are given the texts of prompts and answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        sinks: Sequence[Sink],
        tracing: Tracing = NOWHERE,
        keep_texts: bool = False,
    ) -> None:
        self._app = app
        self._sinks = sinks
        self._tracing = tracing
        self._keep_texts = keep_texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _counts(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        name = endpoint(scope["path"])
        span = self._tracing.request(scope["method"], name, Headers(scope=scope))
        observation = Observation(
            endpoint=name, keep_texts=self._keep_texts, tracing=self._tracing, span=span
        )
        status = LEFT
        ended = False

        # No coroutine of its own: this is called for every event of a stream.
        def send_observed(message: Message) -> Awaitable[None]:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                ended = True
            return send(message)

        with observing(observation):
            try:
                await self._app(scope, receive, send_observed)
            except asyncio.CancelledError:
                raise
            except BaseException:
                observation.failed(500, "internal")
                raise
            finally:
                self._settle(observation, status if ended else LEFT)

    def _settle(self, observation: Observation, status: int) -> None:
        observed = observation.end(status)
        span = observation.span
        span.set_attribute("http.response.status_code", observed.status)
        span.set_attribute("bayling.request_id", observed.request_id)
        if observed.error is not None:
            span.set_attribute("error.type", observed.error)
        if observed.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()
        for sink in self._sinks:
            sink(observed, observation.exchanges)


_WRITTEN = [field.name for field in fields(Observed) if field.name != "at"]
"""Every line has its time."""


def write_down(observed: Observed, exchanges: Sequence[Exchange]) -> None:
    """The sink that makes the log's line of a request."""
    known = {name: getattr(observed, name) for name in _WRITTEN}
    for name, value in known.items():
        if isinstance(value, float):
            known[name] = round(value, 6)
    if exchanges:
        known["texts"] = [asdict(exchange) for exchange in exchanges]
    level = logging.ERROR if observed.status >= 500 else logging.INFO
    log.log(level, "%s %d", observed.endpoint, observed.status, extra={FIELDS: known})


def _counts(method: str, path: str) -> bool:
    return method != "OPTIONS" and path not in _UNCOUNTED and not path.startswith(OPEN_FOLDER)
