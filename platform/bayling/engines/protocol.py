"""What every engine offers: token ids in, token ids out.

An engine knows nothing of text, templates or HTTP. What it cannot honour it refuses by name
before it starts; a request that it accepted never ends without a reason.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from bayling.errors import StageFailed, UserError

MAX_LOGPROBS = 20
"""The most alternatives to a token that a request may ask for, as in OpenAI's API."""


class RequestRefused(UserError):
    """The engine does not take this request. The message names the value and the limit."""


class PromptTooLong(RequestRefused):
    """Prompt and answer together do not fit into the context."""

    def __init__(self, prompt_tokens: int, new_tokens: int, context_length: int) -> None:
        # All arguments go to the base class: that is what survives pickling between replicas.
        super().__init__(prompt_tokens, new_tokens, context_length)
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.context_length = context_length

    def __str__(self) -> str:
        return (
            f"the model's context is {self.context_length} tokens, and this request needs "
            f"{self.prompt_tokens + self.new_tokens}: {self.prompt_tokens} in the prompt and "
            f"{self.new_tokens} for the answer"
        )


class EngineFailed(StageFailed):
    """The engine broke while it worked on a request, or is closed."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    top_p: float = 1.0
    """Draw from the fewest tokens that have this probability together."""
    seed: int | None = None
    """The same seed gives the same draws, whatever else the engine is doing."""
    drawn: int = 0
    """How many tokens were drawn with the seed already: for an answer that is taken up again
    where another replica left it. An engine that cannot wind its generator forward draws
    afresh."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end the answer; they are not part of it."""
    logprobs: int | None = None
    """Whether tokens are to come with their log-probabilities, and with how many of the likeliest
    tokens in their place: None, or 0 to `MAX_LOGPROBS`."""
    json_schema: str | None = None
    """A JSON schema, as JSON, that the answer has to satisfy."""
    adapter: str | None = None
    """The LoRA adapter to answer with, by the name that the engine was given it under."""

    def after(self, made: int) -> Sampling:
        """The rest of an answer of which `made` tokens exist."""
        return replace(self, max_new_tokens=self.max_new_tokens - made, drawn=self.drawn + made)


class Scored(NamedTuple):
    """A token's natural-log probability under the model, before temperature and top-p."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place and their log-probabilities, likeliest first."""


@dataclass(frozen=True)
class Timing:
    """How long the engine took over an answer. An answer in one piece does not show it."""

    waiting_s: float
    """From the request's arrival to its place in the batch."""
    decoding_s: float
    """From the first token to the last."""


class Stopped(NamedTuple):
    """The stop token that ended an answer. It is not part of it."""

    token: int
    score: Scored | None = None
    """Where the request asked for log-probabilities."""


@dataclass(frozen=True)
class Chunk:
    """Tokens that became ready together, in order."""

    ids: list[int]
    finish_reason: str | None = None
    """None while more follows; then stop, length or cancelled."""
    scores: list[Scored] | None = None
    """One for each of `ids`, where the request asked for them."""
    timing: Timing | None = None
    """With the last chunk, from an engine that measures it, of a request that got a token."""
    stopped_by: Stopped | None = None
    """With the last chunk, where a stop token ended the answer."""
    cached_tokens: int = 0
    """With the last chunk: how many of the prompt's tokens the engine had read before."""


@dataclass(frozen=True)
class Load:
    """What an engine has to do at the moment."""

    running: int
    """Requests that it generates for."""
    waiting: int
    """Requests that it has accepted and not begun, scoring included."""
    cache_used: float | None = None
    """The share of the room for keys and values that is taken, 0 to 1; None: not known."""


@dataclass(frozen=True)
class Generated:
    """A whole answer."""

    ids: list[int]
    finish_reason: str


class Engine(Protocol):
    """A model that generates for many requests at a time. Safe to call from any thread."""

    @property
    def context_length(self) -> int:
        """Prompt and answer together, in tokens."""
        ...

    def generate(
        self,
        request_id: str,
        token_ids: Sequence[int],
        sampling: Sampling,
        *,
        every_s: float = 0.0,
    ) -> AsyncIterator[Chunk]:
        """The answer as it is made; only the last chunk has a finish reason.

        Leaving the iterator early cancels the request.

        Args:
            every_s: after the first chunk there is at most one in each stretch of this length.
                Tokens made meanwhile travel together, because a chunk costs more to move than a
                token to make. `math.inf` gives one chunk, at the end.

        Raises:
            RequestRefused: the request cannot be honoured; nothing was generated.
            EngineFailed: the engine broke.
        """
        ...

    def generate_all(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """The answers to many prompts, in the order of the prompts. Blocks.

        Args:
            sampling: one for all prompts, or one for each.
            on_done: called in this thread with the number of answers finished so far.

        Raises:
            RequestRefused: one of them cannot be honoured; nothing was generated.
            EngineFailed: the engine broke.
        """
        ...

    async def score(
        self,
        request_id: str,
        token_ids: Sequence[int],
        top: int = 0,
        adapter: str | None = None,
    ) -> list[Scored]:
        """How likely each token is after those before it; of all tokens but the first.

        Args:
            top: how many of the likeliest tokens come with each, 0 to `MAX_LOGPROBS`.
            adapter: as in `Sampling`.

        Raises:
            RequestRefused: fewer than two tokens, more than the context, or unknown ones.
            EngineFailed: the engine broke.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """End a request with the finish reason `cancelled`; for a request that scores, with
        EngineFailed. Unknown ids are left alone."""
        ...

    def ongoing(self) -> int:
        """How many requests are generating or waiting."""
        ...

    def load(self) -> Load:
        """What `ongoing` counts, in its parts. Cheap enough to be asked every second."""
        ...

    def health(self) -> None:
        """Returns when the engine can take requests.

        Raises:
            EngineFailed: it cannot, and will not recover by itself; the message says why.
        """
        ...

    def close(self) -> None:
        """End the engine; requests in flight fail."""
        ...


def check_ids(token_ids: Sequence[int], vocab_size: int) -> None:
    """Raise RequestRefused for no tokens at all, or for ids that the model does not have."""
    if not token_ids:
        raise RequestRefused("the prompt is empty: give at least one token")
    for token in (min(token_ids), max(token_ids)):
        if not 0 <= token < vocab_size:
            raise RequestRefused(
                f"token id {token} is outside the model's vocabulary of {vocab_size}"
            )


def check_score(token_ids: Sequence[int], top: int, context_length: int, vocab_size: int) -> None:
    """Raise RequestRefused for a text that no engine could score."""
    check_ids(token_ids, vocab_size)
    _check_logprobs(top)
    if not 2 <= len(token_ids) <= context_length:
        raise RequestRefused(
            f"a text to score must have 2 to {context_length} tokens, not {len(token_ids)}"
        )


def check_request(
    token_ids: Sequence[int], sampling: Sampling, context_length: int, vocab_size: int
) -> None:
    """Raise RequestRefused for a request that no engine could honour."""
    check_ids(token_ids, vocab_size)
    if sampling.max_new_tokens < 1:
        raise RequestRefused(f"max_new_tokens must be at least 1, not {sampling.max_new_tokens}")
    if len(token_ids) + sampling.max_new_tokens > context_length:
        raise PromptTooLong(len(token_ids), sampling.max_new_tokens, context_length)
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise RequestRefused(f"temperature must be 0 or more, not {sampling.temperature}")
    if not 0 < sampling.top_p <= 1:
        raise RequestRefused(f"top_p must be above 0 and at most 1, not {sampling.top_p}")
    if sampling.logprobs is not None:
        _check_logprobs(sampling.logprobs)


def _check_logprobs(top: int) -> None:
    if not 0 <= top <= MAX_LOGPROBS:
        raise RequestRefused(f"log-probabilities come with 0 to {MAX_LOGPROBS} tokens, not {top}")
