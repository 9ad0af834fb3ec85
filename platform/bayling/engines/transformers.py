"""The engine that runs a model with transformers: continuous batching on one thread.

Between two tokens of the running requests, new ones come in and finished ones leave. What a
request is answered does not depend on which others are running.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from bayling.engines import scoring
from bayling.engines.batch import Batch, Step
from bayling.engines.loading import load_model
from bayling.engines.memory import cache_tokens
from bayling.engines.protocol import (
    Chunk,
    EngineFailed,
    Generated,
    Load,
    RequestRefused,
    Sampling,
    Scored,
    Timing,
    check_request,
    check_score,
)
from bayling.errors import UserError

log = logging.getLogger(__name__)

_Any = TypeVar("_Any", "_Request", "_Scoring")

_PREFILL_TOKENS = 4096
"""The most prompt tokens, padding included, between two tokens of the running requests."""
_FAILURES_IN_A_ROW = 3
"""After so many failed steps without a good one the engine counts as broken."""


@dataclass(eq=False)
class _Request:
    id: str
    token_ids: list[int]
    sampling: Sampling
    every_s: float
    deliver: Callable[[Chunk | EngineFailed], None]
    """Called on the engine's thread; must not block."""
    pending: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    """Of the pending tokens, where the request asked for them."""
    due: float = 0.0
    """When the next chunk may be delivered."""
    arrived: float = field(default_factory=time.monotonic)
    admitted: float = math.nan
    """When it got its place in the batch."""
    first: float = math.nan
    """When it got its first token."""

    @property
    def longest(self) -> int:
        """The tokens it will have in the cache at most."""
        return len(self.token_ids) + self.sampling.max_new_tokens

    def take(self, step: Step, now: float) -> str | None:
        """Note a token down and deliver what is due; the finish reason when it was the last."""
        if math.isnan(self.first):
            self.first = now
        if not step.stopped:
            self.pending.append(step.token)
            if step.score is not None:
                self.scores.append(step.score)
        if step.stopped or step.full:
            return "stop" if step.stopped else "length"
        if now >= self.due and self.every_s != math.inf:
            self._hand_over(None)
            self.due = now + self.every_s
        return None

    def finish(self, reason: str) -> None:
        self._hand_over(reason)

    def _hand_over(self, reason: str | None) -> None:
        asked = self.sampling.logprobs is not None
        timing = None if reason is None else self._timing()
        self.deliver(Chunk(self.pending, reason, self.scores if asked else None, timing))
        self.pending, self.scores = [], []

    def _timing(self) -> Timing | None:
        if math.isnan(self.first):  # cancelled while it waited
            return None
        return Timing(self.admitted - self.arrived, time.monotonic() - self.first)


@dataclass(eq=False)
class _Scoring:
    id: str
    token_ids: list[int]
    top: int
    deliver: Callable[[list[Scored] | EngineFailed], None]
    """Called on the engine's thread; must not block."""


class TransformersEngine:
    """An `Engine` over one model in this process. See `bayling.engines.load` for the arguments."""

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        max_batch: int = 32,
        context_length: int | None = None,
        kv_cache_gib: float | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._model = load_model(folder, device, dtype)
        config = self._model.config.get_text_config()
        self._vocab_size = int(config.vocab_size)
        self._context_length = context_length or int(config.max_position_embeddings)
        if self._context_length > config.max_position_embeddings:
            raise UserError(
                f"the model in {folder} was made for {config.max_position_embeddings} positions: "
                f"a context length of {context_length} is beyond them"
            )
        self._max_batch = max_batch
        self._cache_tokens = cache_tokens(self._model, self._context_length, kv_cache_gib)
        self._batch = Batch(self._model, max_batch, self._cache_tokens)
        self._rows: list[_Request] = []
        """The requests in the batch; only the engine's thread touches it and the batch."""
        self._waiting: deque[_Request] = deque()
        self._scoring: deque[_Scoring] = deque()
        self._known: dict[str, _Request | _Scoring] = {}
        """Every request that has not finished."""
        self._cancelled: set[_Request | _Scoring] = set()
        self._failures = 0
        self._last_failure = ""
        self._closing = False
        self._change = threading.Condition()
        """Guards everything above but the batch and its rows."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        # A thread inside torch while the interpreter goes away takes the process down with it.
        atexit.register(self.close)

    @property
    def context_length(self) -> int:
        return self._context_length

    async def generate(
        self,
        request_id: str,
        token_ids: Sequence[int],
        sampling: Sampling,
        *,
        every_s: float = 0.0,
    ) -> AsyncIterator[Chunk]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | EngineFailed] = asyncio.Queue()

        def deliver(item: Chunk | EngineFailed) -> None:
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody waits for this any more
                self._cancel(request)

        request = _Request(request_id, list(token_ids), sampling, every_s, deliver)
        self._submit([request])
        try:
            while True:
                item = await arrived.get()
                if isinstance(item, EngineFailed):
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
        finished: queue.SimpleQueue[tuple[int, Chunk | EngineFailed]] = queue.SimpleQueue()

        def collect(index: int, item: Chunk | EngineFailed) -> None:
            finished.put((index, item))

        requests = [
            _Request(
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
        self._submit(sorted(requests, key=lambda request: -len(request.token_ids)))
        answers: dict[int, Generated] = {}
        try:
            while len(answers) < len(requests):
                index, item = finished.get()
                if isinstance(item, EngineFailed):
                    raise item
                answers[index] = Generated(item.ids, item.finish_reason or "cancelled")
                if on_done is not None:
                    on_done(len(answers))
        finally:
            for request in requests:
                self._cancel(request)
        return [answers[index] for index in range(len(requests))]

    async def score(self, request_id: str, token_ids: Sequence[int], top: int = 0) -> list[Scored]:
        check_score(token_ids, top, self._context_length, self._vocab_size)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[list[Scored]] = loop.create_future()

        def settle(item: list[Scored] | EngineFailed) -> None:
            if arrived.done():  # whoever asked has left
                return
            if isinstance(item, EngineFailed):
                arrived.set_exception(item)
            else:
                arrived.set_result(item)

        def deliver(item: list[Scored] | EngineFailed) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
                loop.call_soon_threadsafe(settle, item)

        request = _Scoring(request_id, list(token_ids), top, deliver)
        self._enter([request], self._scoring)
        try:
            return await arrived
        finally:
            self._cancel(request)

    def cancel(self, request_id: str) -> None:
        with self._change:
            request = self._known.get(request_id)
        if request is not None:
            self._cancel(request)

    def ongoing(self) -> int:
        with self._change:
            return len(self._known)

    def load(self) -> Load:
        with self._change:
            waiting = len(self._waiting) + len(self._scoring)
            return Load(len(self._known) - waiting, waiting, self._batch.cache_used())

    def health(self) -> None:
        if self._closing or not self._thread.is_alive():
            raise EngineFailed(f"the engine's thread has ended {self._last_failure}".rstrip())
        if self._failures >= _FAILURES_IN_A_ROW:
            raise EngineFailed(f"{self._failures} steps in a row failed {self._last_failure}")

    def close(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _cancel(self, request: _Request | _Scoring) -> None:
        with self._change:
            if self._known.get(request.id) is request:
                self._cancelled.add(request)
                self._change.notify()

    def _submit(self, requests: list[_Request]) -> None:
        for request in requests:
            check_request(
                request.token_ids, request.sampling, self._context_length, self._vocab_size
            )
            if request.sampling.json_schema is not None:
                raise RequestRefused(
                    "the engine 'transformers' cannot hold an answer to a JSON schema: leave "
                    "response_format out, or serve with engine=vllm"
                )
        self._enter(requests, self._waiting)

    def _enter(self, requests: Sequence[_Any], queue: deque[_Any]) -> None:
        """Note requests down as known and put them into a queue."""
        self.health()
        with self._change:
            if self._closing:
                raise EngineFailed("the engine is closed")
            for request in requests:
                if request.id in self._known:
                    raise RequestRefused(f"the request id {request.id!r} is in use")
            self._known.update((request.id, request) for request in requests)
            queue.extend(requests)
            self._change.notify()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._turn():
                    pass
            reason = "the engine was closed while it worked on this request"
        except BaseException as error:  # the thread ends: health() has to know why
            log.exception("the engine's thread ended")
            self._last_failure = f"({_in_short(error)})"
            reason = f"the engine ended {self._last_failure}"
        with self._change:
            self._closing = True
        self._fail(list(self._known.values()), reason)

    def _turn(self) -> bool:
        """Drop, admit, and one token for everybody; False when the engine is to end."""
        with self._change:
            while not (
                self._rows or self._waiting or self._scoring or self._cancelled or self._closing
            ):
                self._change.wait()
            if self._closing:
                return False
            cancelled, self._cancelled = self._cancelled, set()
            self._drop_waiting(cancelled)
            admitted = self._admit()
            texts = self._admit_texts()
        try:
            rows = [row for row, request in enumerate(self._rows) if request in cancelled]
            for request in self._leave(rows):
                request.finish("cancelled")
            if admitted:
                self._prefill(admitted)
            if self._rows:
                self._hand_out(0, self._batch.step())
            if texts:
                self._score(texts)
            self._failures = 0
        except Exception as error:
            # Nobody can say what the step left behind, so all who took part start over.
            log.exception("a step of the engine failed")
            self._failures += 1
            self._last_failure = f"({_in_short(error)})"
            failed: set[_Request | _Scoring] = {*self._rows, *admitted, *texts}
            self._rows = []
            self._batch.clear()
            self._fail(failed, f"the engine failed {self._last_failure}")
        return True

    def _drop_waiting(self, cancelled: set[_Request | _Scoring]) -> None:
        if not cancelled:
            return
        for request in [request for request in self._waiting if request in cancelled]:
            self._waiting.remove(request)
            del self._known[request.id]
            request.finish("cancelled")
        for text in [text for text in self._scoring if text in cancelled]:
            self._scoring.remove(text)
            del self._known[text.id]
            text.deliver(EngineFailed("the request was cancelled"))

    def _admit(self) -> list[_Request]:
        """Take from the queue what fits into the batch, the cache and one prefill."""
        free = self._max_batch - len(self._rows)
        # While more wait than fit, a few places at once are filled in one pass: a prefill
        # costs the running requests about a token, however few prompts are in it.
        if len(self._waiting) > free and free < max(1, self._max_batch // 8):
            return []
        admitted: list[_Request] = []
        longest = 0
        columns = max((request.longest for request in self._rows), default=0)
        while self._waiting and len(admitted) < free:
            candidate = self._waiting[0]
            # Every row is as wide as the longest one. In the order of arrival, so that a long
            # request is not overtaken for ever.
            columns = max(columns, candidate.longest)
            if not self._batch.has_room(len(self._rows) + len(admitted) + 1, columns):
                break
            longest = max(longest, len(candidate.token_ids))
            if admitted and longest * (len(admitted) + 1) > _PREFILL_TOKENS:
                break
            admitted.append(self._waiting.popleft())
        return admitted

    def _admit_texts(self) -> list[_Scoring]:
        """Take as many texts to score as one pass takes."""
        lengths = [len(text.token_ids) for text in self._scoring]
        return [self._scoring.popleft() for _ in range(scoring.fitting(lengths, self._vocab_size))]

    def _score(self, texts: list[_Scoring]) -> None:
        scores = scoring.score_texts(
            self._model, [text.token_ids for text in texts], [text.top for text in texts]
        )
        self._forget(texts)
        for text, result in zip(texts, scores, strict=True):
            text.deliver(result)

    def _prefill(self, requests: list[_Request]) -> None:
        now = time.monotonic()
        for request in requests:
            request.admitted = now
        steps = self._batch.add(
            [request.token_ids for request in requests],
            [request.sampling for request in requests],
        )
        first = len(self._rows)
        self._rows.extend(requests)
        self._hand_out(first, steps)

    def _hand_out(self, first: int, steps: list[Step]) -> None:
        """Give the rows from `first` on their tokens, and take out those that are finished."""
        now = time.monotonic()
        reasons = {}
        for row, step in enumerate(steps, first):
            reason = self._rows[row].take(step, now)
            if reason is not None:
                reasons[row] = reason
        # First out, then told: whoever has the last token may use the request id again.
        for request, reason in zip(self._leave(list(reasons)), reasons.values(), strict=True):
            request.finish(reason)

    def _leave(self, rows: list[int]) -> list[_Request]:
        """Take rows out of the batch; returns their requests."""
        if not rows:
            return []
        gone = [self._rows[row] for row in rows]
        self._rows = [self._rows[row] for row in self._batch.remove(rows)]
        self._forget(gone)
        return gone

    def _fail(self, requests: Iterable[_Request | _Scoring], reason: str) -> None:
        requests = [request for request in requests if request.id in self._known]
        self._forget(requests)
        for request in requests:
            request.deliver(EngineFailed(reason))

    def _forget(self, requests: Iterable[_Request | _Scoring]) -> None:
        with self._change:
            for request in requests:
                self._known.pop(request.id, None)


def _in_short(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
