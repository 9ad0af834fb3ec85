"""What is known of a request when it is over, and how it becomes known on the way.

Whoever works on a request finds its `Observation` with `current()` and notes down what only
they know. It travels as a context variable, as trace contexts do: the tokens of a stream are made
in other tasks than the one that took the request, and none of them should carry it by hand.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry.trace import Span

from bayling.engines.protocol import Chunk
from bayling.serve.tracing import NOWHERE, Tracing

LEFT = 499
"""The status of a request whose client did not wait for the answer; nginx's number for it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One request, at its end. Holds no text."""

    at: float
    """When it ended, in seconds since 1970."""
    request_id: str
    endpoint: str
    key: str
    """The name of the caller's key; empty where it had none that is valid."""
    version: str
    """Of the model; empty for a request that none was chosen for."""
    status: int
    """As answered; of a stream that broke off, the one that it would have had before it began."""
    error: str | None
    """The code in the error object, or `client_left`."""
    limit: str | None
    """Which of its key's limits it came up against."""
    streamed: bool
    prompt_tokens: int
    cached_tokens: int
    """Of the prompts' tokens, those that an engine had read before."""
    completion_tokens: int
    ttft_s: float | None
    """From the whole request to its first token."""
    tpot_s: float | None
    """The mean time of an output token after an answer's first."""
    queued_s: float | None
    """How long it waited for an engine, one that was starting included, and for a place there."""
    total_s: float
    """From the whole request to the end of its answer."""
    finish_reasons: tuple[str, ...]
    """Of each answer that came to its end."""
    retries: int
    """How often it was given to another replica."""
    judged: int
    """How many of its translations were looked at for their language."""
    off_target: int
    """How many of these were in another language than asked for."""
    trace_id: str | None


@dataclass
class Exchange:
    """The texts of one answer. Kept only where the configuration says so."""

    prompt: str
    answer: str = ""


@dataclass
class Observation:
    """A request that is being worked on."""

    request_id: str = ""
    endpoint: str = ""
    key: str = ""
    version: str = ""
    streamed: bool = False
    keep_texts: bool = False
    tracing: Tracing = NOWHERE
    span: Span = field(default_factory=NOWHERE.nothing)
    """Of the whole request."""
    began: float = field(default_factory=time.monotonic)
    failure: tuple[int, str | None] | None = None
    """The status and the code of the error that it ended with."""
    limit: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None
    decoding_s: float = 0.0
    decoded: int = 0
    """The tokens that `decoding_s` is the time of."""
    taken_s: float | None = None
    """Until a replica had taken each of its answers."""
    waiting_s: float = 0.0
    """Until the last of them had its place there."""
    finish_reasons: list[str] = field(default_factory=list)
    retries: int = 0
    judged: int = 0
    off_target: int = 0
    exchanges: list[Exchange] = field(default_factory=list)

    def arrived(self) -> None:
        """All of it is there: from here on the time is the server's, not the client's."""
        self.began = time.monotonic()

    def failed(self, status: int, code: str | None) -> None:
        """It gets an error in place of an answer, or in the middle of one."""
        self.failure = (status, code)

    def engine_id(self) -> str:
        """A name for one answer's work in an engine: a client may use its own id twice."""
        return f"{self.request_id or secrets.token_hex(8)}/{secrets.token_hex(4)}"

    def taken(self, after_s: float) -> None:
        """A replica has taken one of its answers."""
        self.taken_s = max(self.taken_s or 0.0, after_s)

    def answer(self, billed: int, prompt: str = "") -> Pace:
        """One of its answers begins.

        Args:
            billed: the tokens of the prompt, 0 where another answer has them already.
            prompt: the text, where texts are kept.
        """
        exchange = Exchange(prompt)
        if self.keep_texts:
            self.exchanges.append(exchange)
        return Pace(self, billed, exchange)

    def end(self, status: int) -> Observed:
        """What there is to know of it.

        Args:
            status: of the answer as the client got it, for a request without a failure.
        """
        code = None
        if self.failure is not None:
            status, code = self.failure
        elif status == LEFT:
            code = "client_left"
        return Observed(
            at=time.time(),
            request_id=self.request_id,
            endpoint=self.endpoint,
            key=self.key,
            version=self.version,
            status=status,
            error=code,
            limit=self.limit,
            streamed=self.streamed,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            ttft_s=None if self.first_token is None else self.first_token - self.began,
            tpot_s=self.decoding_s / self.decoded if self.decoded else None,
            queued_s=None if self.taken_s is None else self.taken_s + self.waiting_s,
            total_s=time.monotonic() - self.began,
            finish_reasons=tuple(self.finish_reasons),
            retries=self.retries,
            judged=self.judged,
            off_target=self.off_target,
            trace_id=self.tracing.trace_id(self.span),
        )


class Pace:
    """How one answer of a request comes along."""

    def __init__(self, observation: Observation, billed: int, exchange: Exchange) -> None:
        self._observation = observation
        self._billed = billed
        self._has_prompt = billed > 0
        """Several answers may have one prompt, which counts once."""
        self._exchange = exchange
        self._first: float | None = None
        self._last = 0.0
        self._tokens = 0
        self._at_first = 0
        """How many tokens came together with the first."""

    def made(self, tokens: int, text: str, chunk: Chunk, finish_reason: str | None) -> None:
        """A piece of the answer is there.

        Args:
            tokens: those of the chunk that are part of the answer.
            finish_reason: the answer's, which may end before its chunk does.
        """
        observation = self._observation
        now = time.monotonic()
        if tokens and self._first is None:
            self._at_first = tokens
            if finish_reason is None or tokens == 1:
                self._first = now
            elif chunk.timing is not None:
                # All in one piece: what lies between its tokens only the engine has seen.
                self._first, self._at_first = now - chunk.timing.decoding_s, 1
            if self._first is not None:
                observation.first_token = min(observation.first_token or self._first, self._first)
        if tokens:
            self._last = now
        self._tokens += tokens
        observation.completion_tokens += tokens
        self._exchange.answer += text
        self._bill()
        if self._has_prompt:
            observation.cached_tokens += chunk.cached_tokens
        if chunk.timing is not None:
            observation.waiting_s = max(observation.waiting_s, chunk.timing.waiting_s)
        if finish_reason is not None:
            observation.finish_reasons.append(finish_reason)
        self._settle()

    def end(self, refused: bool) -> None:
        """No more of it comes.

        Args:
            refused: the server did not take it, so that its prompt costs nothing.
        """
        if not refused:
            self._bill()

    def _bill(self) -> None:
        self._observation.prompt_tokens += self._billed
        self._billed = 0

    def _settle(self) -> None:
        """Count what was made since the last piece; a stream may be left after any of them."""
        if self._first is None or self._tokens <= self._at_first:
            return
        observation = self._observation
        observation.decoding_s += self._last - self._first
        observation.decoded += self._tokens - self._at_first
        self._first, self._at_first = self._last, self._tokens


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def current() -> Observation:
    """The request that is being worked on; outside of one, an observation that nobody reads."""
    return _current.get() or Observation()


@contextmanager
def observing(observation: Observation) -> Iterator[None]:
    """Make it the current one for what runs inside the block, tasks that begin there included."""
    token = _current.set(observation)
    try:
        yield
    finally:
        _current.reset(token)
