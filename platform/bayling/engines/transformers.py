"""The engine that runs a model with transformers: continuous batching on one thread.

Between two tokens of the running requests, new ones come in and finished ones leave. What a
request is answered does not depend on which others are running.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch

from bayling.engines import scoring
from bayling.engines.batch import Batch, Step
from bayling.engines.folder import check_context
from bayling.engines.intake import Intake, Request, Text, in_short
from bayling.engines.loading import load_model
from bayling.engines.memory import cache_tokens
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import EngineFailed, Load, RequestRefused, Stopped
from bayling.errors import UserError

log = logging.getLogger(__name__)

_PREFILL_TOKENS = 4096
"""The most prompt tokens, padding included, between two tokens of the running requests."""
_KEPT = 0.25
"""The share of the room for keys and values that is for conversations to be gone on with."""
_FAILURES_IN_A_ROW = 3
"""After so many failed steps without a good one the engine counts as broken."""


class TransformersEngine(Intake):
    """An `Engine` over one model in this process."""

    def __init__(self, folder: str | Path, options: EngineOptions) -> None:
        """
        Raises:
            UserError: the folder holds no model that it can run, or it lacks what is asked for.
        """
        _refuse(options)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._model = load_model(folder, options.device, options.dtype)
        config = self._model.config.get_text_config()
        context_length = options.context_length or int(config.max_position_embeddings)
        super().__init__(context_length, int(config.vocab_size))
        check_context(Path(folder), context_length, config)
        self._max_batch = options.max_batch
        room = cache_tokens(self._model, context_length, options.kv_cache_gib)
        kept = min(int(_KEPT * room), room - context_length)
        self._batch = Batch(self._model, options.max_batch, room - kept, kept)
        self._rows: list[Request] = []
        """The requests in the batch; only the engine's thread touches it and the batch."""
        self._waiting: deque[Request] = deque()
        self._scoring: deque[Text] = deque()
        self._cancelled: set[Request | Text] = set()
        self._failures = 0
        self._last_failure = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        # A thread inside torch while the interpreter goes away takes the process down with it.
        atexit.register(self.close)

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

    def _cancel(self, request: Request | Text) -> None:
        with self._change:
            if self._known.get(request.id) is request:
                self._cancelled.add(request)
                self._change.notify()

    def _begin(self, requests: Sequence[Request | Text]) -> None:
        for request in requests:
            if isinstance(request, Request):
                self._waiting.append(request)
            else:
                self._scoring.append(request)
        self._change.notify()

    def _check_own(self, request: Request) -> None:
        if request.sampling.json_schema is not None:
            raise RequestRefused(
                "the engine 'transformers' cannot hold an answer to a JSON schema: leave "
                "response_format out, or serve with engine=vllm"
            )

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter is not None:
            raise RequestRefused(f"there is no adapter {adapter!r}")

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._turn():
                    pass
            reason = "the engine was closed while it worked on this request"
        except BaseException as error:  # the thread ends: health() has to know why
            log.exception("the engine's thread ended")
            self._last_failure = f"({in_short(error)})"
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
            for request in admitted:
                request.cached_tokens = self._batch.known(request.token_ids)
            new = [request for request in admitted if not request.cached_tokens]
            known = [request for request in admitted if request.cached_tokens]
            for requests in (new, known):
                if requests:
                    self._prefill(requests)
            if self._rows:
                self._hand_out(0, self._batch.step())
            if texts:
                self._score(texts)
            self._failures = 0
        except Exception as error:
            # Nobody can say what the step left behind, so all who took part start over.
            log.exception("a step of the engine failed")
            self._failures += 1
            self._last_failure = f"({in_short(error)})"
            failed: set[Request | Text] = {*self._rows, *admitted, *texts}
            self._rows = []
            self._batch.clear()
            self._fail(failed, f"the engine failed {self._last_failure}")
        return True

    def _drop_waiting(self, cancelled: set[Request | Text]) -> None:
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

    def _admit(self) -> list[Request]:
        """Take from the queue what fits into the batch, the cache and one prefill."""
        free = self._max_batch - len(self._rows)
        # While more wait than fit, a few places at once are filled in one pass: a prefill
        # costs the running requests about a token, however few prompts are in it.
        if len(self._waiting) > free and free < max(1, self._max_batch // 8):
            return []
        admitted: list[Request] = []
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

    def _admit_texts(self) -> list[Text]:
        """Take as many texts to score as one pass takes."""
        lengths = [len(text.token_ids) for text in self._scoring]
        return [self._scoring.popleft() for _ in range(scoring.fitting(lengths, self._vocab_size))]

    def _score(self, texts: list[Text]) -> None:
        scores = scoring.score_texts(
            self._model, [text.token_ids for text in texts], [text.top for text in texts]
        )
        self._forget(texts)
        for text, result in zip(texts, scores, strict=True):
            text.deliver(result)

    def _prefill(self, requests: list[Request]) -> None:
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
            request = self._rows[row]
            if math.isnan(request.first):
                request.first = now
            if step.stopped:
                request.stopped_by = Stopped(step.token, step.score)
            else:
                request.add(step.token, step.score)
            if step.stopped or step.full:
                reasons[row] = "stop" if step.stopped else "length"
            else:
                request.hand_over(now)
        # First out, then told: whoever has the last token may use the request id again.
        for request, reason in zip(self._leave(list(reasons)), reasons.values(), strict=True):
            request.finish(reason)

    def _leave(self, rows: list[int]) -> list[Request]:
        """Take rows out of the batch; returns their requests."""
        if not rows:
            return []
        gone = [self._rows[row] for row in rows]
        self._rows = [self._rows[row] for row in self._batch.remove(rows)]
        self._forget(gone)
        return gone


def _refuse(options: EngineOptions) -> None:
    """Raise UserError for what only vLLM can do."""
    for key, asked in (
        ("adapters", bool(options.adapters)),
        ("tensor_parallel", options.tensor_parallel != 1),
        ("quantization", options.quantization is not None),
    ):
        if asked:
            raise UserError(
                f"serve.{key} needs the engine vLLM: install it and serve with engine=vllm, or "
                "leave the key out"
            )
