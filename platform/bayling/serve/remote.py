"""Tokens from the replicas of an engine deployment, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from bayling.engines.protocol import Chunk, EngineFailed, Sampling, Scored
from bayling.serve import observed
from bayling.serve.errors import Overloaded, Starting, Unavailable

log = logging.getLogger(__name__)

_ATTEMPTS = 4
"""How often a request is given to a replica. One that brings engines down must not bring all
of them down."""
_PAUSE_S = 0.25
"""Before the second attempt, and twice as long before each one after it."""


_PLAIN = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""What travels are this package's own classes, which need none of cloudpickle's care for what
cannot be imported: a tenth of what an engine's replica had its interpreter do."""


class RemoteTokens:
    """`Tokens` from the replicas of one engine application.

    A request whose replica dies is given to another one. What was generated until then goes
    along as part of the prompt, so that a stream goes on where it stopped.
    """

    def __init__(
        self, application: str, cold_start_wait_s: float, count: Callable[[int], None]
    ) -> None:
        """
        Args:
            count: told 1 when a request begins, to be worked on or to wait for a replica, and -1
                when it is over.
        """
        self._application = application
        self._cold_start_wait_s = cold_start_wait_s
        self._count = count
        self._handle: DeploymentHandle | None = None
        self._streaming: DeploymentHandle | None = None

    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        self._count(1)
        try:
            chunks = self._generate_somewhere(request_id, token_ids, sampling, every_s)
            async with aclosing(chunks):  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk
        finally:
            self._count(-1)

    async def _generate_somewhere(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, every_s: float
    ) -> AsyncIterator[Chunk]:
        observation = observed.current()
        made: list[int] = []
        for attempt in range(_ATTEMPTS):
            chunks = self._generate(
                f"{request_id}-{attempt}",
                [*token_ids, *made],
                sampling.after(len(made)) if made else sampling,
                every_s,
            )
            try:
                async with aclosing(chunks):  # type: ignore[type-var]
                    async for chunk in chunks:
                        yield chunk
                        made += chunk.ids
                return
            except (Lost, EngineFailed) as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                log.warning("the request goes on elsewhere: %s", error)
                observation.retries += 1
                if len(made) == sampling.max_new_tokens:  # only its end was lost
                    yield Chunk([], "length", None if sampling.logprobs is None else [])
                    return
                await asyncio.sleep(_PAUSE_S * 2**attempt)

    async def _generate(
        self, request_id: str, token_ids: list[int], sampling: Sampling, every_s: float
    ) -> AsyncIterator[Chunk]:
        """One attempt."""
        finished = False
        observation = observed.current()
        span = observation.tracing.call(
            observation.span,
            observation.endpoint,
            observation.version,
            (observation.request_id, len(token_ids), sampling),
        )
        try:
            chunks = self._streams().generate.remote(
                request_id, token_ids, sampling, every_s, span.headers()
            )
            try:
                # The first, empty chunk says that a replica has taken the request.
                await self._taken(anext(chunks))
                async for chunk in chunks:
                    finished = chunk.finish_reason is not None
                    span.made(chunk)
                    yield chunk
            except BaseException:
                if not finished:  # whoever wanted the rest has left
                    chunks.cancel()
                raise
        except Exception as error:
            own = _own(error)
            span.failed(own)
            if own is error:
                raise
            raise own from error
        finally:
            span.end()
        if not finished:
            raise Lost("the answer broke off")

    async def score(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        self._count(1)
        try:
            return await self._score_somewhere(request_id, token_ids, top, adapter)
        finally:
            self._count(-1)

    async def _score_somewhere(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._engine().score.remote(
                    f"{request_id}-{attempt}", list(token_ids), top, adapter
                )
                try:
                    scores: list[Scored] = await answer
                    return scores
                except BaseException:
                    answer.cancel()
                    raise
            except (RayError, RayServeException) as error:
                own = _own(error)
                if not isinstance(own, Lost) or attempt == _ATTEMPTS - 1:
                    raise own from error
            except EngineFailed:
                if attempt == _ATTEMPTS - 1:
                    raise
            observed.current().retries += 1
            await asyncio.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _engine(self) -> DeploymentHandle:
        if self._handle is None:
            self._handle = serve.get_app_handle(self._application).options(**_PLAIN)
        return self._handle

    def _streams(self) -> DeploymentHandle:
        if self._streaming is None:
            self._streaming = self._engine().options(stream=True)
        return self._streaming

    async def _taken(self, first: Any) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._cold_start_wait_s):
                await first
        except TimeoutError:
            raise Starting(self._cold_start_wait_s) from None
        observed.current().taken(time.monotonic() - began)


class Lost(Unavailable):
    """The replica that worked on the request is gone."""


def _own(error: Exception) -> Exception:
    """What the engine raised, without the wrapping it travelled in."""
    if isinstance(error, BackPressureError):
        return Overloaded()
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, Exception) else error
    if isinstance(error, RayError | RayServeException):
        return Lost("the engine that worked on this request is gone")
    return error
