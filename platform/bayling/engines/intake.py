"""From a call to a request and back: the same for every engine that works on a thread of its own.

Callers are on any event loop or thread. A request enters once, is known until it has ended, and
everything that comes of it is delivered to where it was asked for.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from bayling.engines.protocol import (
    Chunk,
    EngineFailed,
    Generated,
    Load,
    RequestRefused,
    Sampling,
    Scored,
    Stopped,
    Timing,
    check_request,
    check_score,
)

Failure = EngineFailed | RequestRefused


@dataclass(eq=False)
class Request:
    """An answer that is being generated, or waits for it."""

    id: str
    token_ids: list[int]
    sampling: Sampling
    every_s: float
    deliver: Callable[[Chunk | Failure], None]
    """Called on the engine's thread; must not block."""
    arrived: float = field(default_factory=time.monotonic)
    admitted: float = math.nan
    """When it got its place in the batch."""
    first: float = math.nan
    """When it got its first token."""
    stopped_by: Stopped | None = None
    """The stop token that ended the answer."""
    cached_tokens: int = 0
    """How many of the prompt's had been read before."""
    _pending: list[int] = field(default_factory=list)
    _scores: list[Scored] = field(default_factory=list)
    """Of the pending tokens, where the request asked for them."""
    _due: float = 0.0
    """When the next chunk may be delivered."""

    @property
    def longest(self) -> int:
        """The tokens of its prompt and its answer together at most."""
        return len(self.token_ids) + self.sampling.max_new_tokens

    def add(self, token: int, score: Scored | None) -> None:
        """Note a token of the answer down."""
        self._pending.append(token)
        if score is not None:
            self._scores.append(score)

    def hand_over(self, now: float) -> None:
        """Deliver what there is, unless it is too soon for another chunk."""
        if now >= self._due and self.every_s != math.inf and self._pending:
            self._hand_over(None)
            if self.every_s:
                # At the same moments as others, so that what is ready for many goes in one go.
                self._due = (now // self.every_s + 1) * self.every_s

    def finish(self, reason: str) -> None:
        """Deliver the last chunk."""
        self._hand_over(reason)

    def fail(self, failure: Failure) -> None:
        self.deliver(failure)

    def _hand_over(self, reason: str | None) -> None:
        asked = self.sampling.logprobs is not None
        timing = None if reason is None else self._timing()
        scores = self._scores if asked else None
        cached = 0 if reason is None else self.cached_tokens
        self.deliver(Chunk(self._pending, reason, scores, timing, self.stopped_by, cached))
        self._pending, self._scores = [], []

    def _timing(self) -> Timing | None:
        if math.isnan(self.first):  # cancelled while it waited
            return None
        return Timing(self.admitted - self.arrived, time.monotonic() - self.first)


@dataclass(eq=False)
class Text:
    """A text that is to be scored."""

    id: str
    token_ids: list[int]
    top: int
    adapter: str | None
    deliver: Callable[[list[Scored] | Failure], None]
    """Called on the engine's thread; must not block."""

    def fail(self, failure: Failure) -> None:
        self.deliver(failure)


class Intake(ABC):
    """What an engine offers its callers. How requests are worked on is the subclass's."""

    def __init__(self, context_length: int, vocab_size: int) -> None:
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._known: dict[str, Request | Text] = {}
        """Every request that has not ended."""
        self._closing = False
        self._change = threading.Condition()
        """Guards what callers and the engine's thread both touch."""

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def vocab_size(self) -> int:
        """The token ids that the model knows are those below."""
        return self._vocab_size

    async def generate(
        self,
        request_id: str,
        token_ids: Sequence[int],
        sampling: Sampling,
        *,
        every_s: float = 0.0,
    ) -> AsyncIterator[Chunk]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | Failure] = asyncio.Queue()

        def deliver(item: Chunk | Failure) -> None:
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody waits for this any more
                self._cancel(request)

        request = Request(request_id, list(token_ids), sampling, every_s, deliver)
        self.take([request])
        try:
            while True:
                item = await arrived.get()
                if not isinstance(item, Chunk):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            self._cancel(request)

    def generate_all(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        finished: queue.SimpleQueue[tuple[int, Chunk | Failure]] = queue.SimpleQueue()

        def collect(index: int, item: Chunk | Failure) -> None:
            finished.put((index, item))

        requests = [
            Request(
                f"batch-{id(finished)}-{index}",
                list(token_ids),
                own,
                math.inf,
                partial(collect, index),
            )
            for index, (token_ids, own) in enumerate(zip(prompts, each, strict=True))
        ]
        # Neighbours in length are prefilled together with little padding; the long ones go
        # first, so that the batch is not left with one straggler at the end.
        self.take(sorted(requests, key=lambda request: -len(request.token_ids)))
        answers: dict[int, Generated] = {}
        try:
            while len(answers) < len(requests):
                index, item = finished.get()
                if not isinstance(item, Chunk):
                    raise item
                answers[index] = Generated(item.ids, item.finish_reason or "cancelled")
                if on_done is not None:
                    on_done(len(answers))
        finally:
            for request in requests:
                self._cancel(request)
        return [answers[index] for index in range(len(requests))]

    async def score(
        self,
        request_id: str,
        token_ids: Sequence[int],
        top: int = 0,
        adapter: str | None = None,
    ) -> list[Scored]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[list[Scored]] = loop.create_future()

        def settle(item: list[Scored] | Failure) -> None:
            if arrived.done():  # whoever asked has left
                return
            if isinstance(item, list):
                arrived.set_result(item)
            else:
                arrived.set_exception(item)

        def deliver(item: list[Scored] | Failure) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
                loop.call_soon_threadsafe(settle, item)

        text = Text(request_id, list(token_ids), top, adapter, deliver)
        self.take_text(text)
        try:
            return await arrived
        finally:
            self._cancel(text)

    def take(self, requests: Sequence[Request]) -> None:
        """Work on requests, and deliver what comes of each to where it says itself.

        Raises:
            RequestRefused: one of them cannot be honoured; nothing was begun.
            EngineFailed: the engine broke.
        """
        for request in requests:
            check_request(
                request.token_ids, request.sampling, self._context_length, self._vocab_size
            )
            self._check_adapter(request.sampling.adapter)
            self._check_own(request)
        self._enter(requests)

    def take_text(self, text: Text) -> None:
        """Score a text, and deliver what comes of it to where it says itself.

        Raises:
            RequestRefused: fewer than two tokens, more than the context, or unknown ones.
            EngineFailed: the engine broke.
        """
        check_score(text.token_ids, text.top, self._context_length, self._vocab_size)
        self._check_adapter(text.adapter)
        self._enter([text])

    def cancel(self, request_id: str) -> None:
        with self._change:
            request = self._known.get(request_id)
        if request is not None:
            self._cancel(request)

    def ongoing(self) -> int:
        with self._change:
            return len(self._known)

    @abstractmethod
    def load(self) -> Load: ...

    @abstractmethod
    def health(self) -> None: ...

    @abstractmethod
    def _begin(self, requests: Sequence[Request | Text]) -> None:
        """Have these worked on, which are all requests or all texts. Called with `_change` held,
        on the caller's thread."""

    @abstractmethod
    def _cancel(self, request: Request | Text) -> None:
        """End this request if it is still known. Called on the caller's thread."""

    @abstractmethod
    def _check_own(self, request: Request) -> None:
        """Raise RequestRefused for what other engines might honour and this one cannot."""

    @abstractmethod
    def _check_adapter(self, adapter: str | None) -> None:
        """Raise RequestRefused for an adapter that this engine does not have."""

    def _enter(self, requests: Sequence[Request] | Sequence[Text]) -> None:
        """Note requests down as known, and begin."""
        self.health()
        with self._change:
            if self._closing:
                raise EngineFailed("the engine is closed")
            for request in requests:
                if request.id in self._known:
                    raise RequestRefused(f"the request id {request.id!r} is in use")
            self._known.update((request.id, request) for request in requests)
            self._begin(requests)

    def _fail(self, requests: Iterable[Request | Text], reason: str) -> None:
        """Fail those that are still known."""
        requests = [one for one in requests if self._known.get(one.id) is one]
        self._forget(requests)
        for request in requests:
            request.fail(EngineFailed(reason))

    def _forget(self, requests: Iterable[Request | Text]) -> None:
        with self._change:
            for request in requests:
                # Another one may have taken up the id since.
                if self._known.get(request.id) is request:
                    del self._known[request.id]


def in_short(error: BaseException) -> str:
    """An exception in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
