"""From messages to an answer in text: the step between HTTP and a source of tokens."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from bayling.engines.protocol import Chunk, PromptTooLong, Sampling
from bayling.serve.decoding import StopStrings, TextDecoder
from bayling.serve.errors import ApiError, from_engine
from bayling.serve.schema import SamplingFields
from bayling.templates import ChatFormat, Message, TemplateError


class Tokens(Protocol):
    """Where tokens come from: an engine, here or in other processes."""

    def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        """As `bayling.engines.protocol.Engine`; raises Overloaded and Unavailable besides."""
        ...

    async def ready(self) -> None:
        """Returns when requests would be answered; raises Unavailable otherwise."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A checked request in tokens."""

    ids: list[int]
    sampling: Sampling
    stops: list[str]


@dataclass(frozen=True)
class Piece:
    """Some text of an answer."""

    text: str
    tokens: int
    """How many tokens were generated for it."""
    finish_reason: str | None = None


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: int
    finish_reason: str


class Answering:
    """Answers conversations with one model."""

    def __init__(
        self,
        chat: ChatFormat,
        tokens: Tokens,
        *,
        context_length: int,
        max_new_tokens: int,
        stream_interval_s: float,
        timeout_s: float,
    ) -> None:
        self._chat = chat
        self._stop_ids = tuple(chat.stop_ids)
        self._tokens = tokens
        self._context_length = context_length
        self._max_new_tokens = max_new_tokens
        self._stream_interval_s = stream_interval_s
        self._timeout_s = timeout_s

    async def ready(self) -> None:
        await self._tokens.ready()

    def prompt(
        self,
        messages: Sequence[Message],
        fields: SamplingFields,
        stops: Sequence[str] = (),
        *,
        param: str = "messages",
    ) -> Prompt:
        """The tokens that the model is given, and how it is to answer.

        Args:
            param: the field that the messages came in, for the error.

        Raises:
            ApiError: turns out of order, a control token in a text, or a prompt that leaves
                no room for the answer.
        """
        try:
            ids = self._chat.prompt_ids(messages)
        except TemplateError as error:
            raise ApiError(400, str(error), param=param) from None
        wanted = fields.token_limit()
        room = self._context_length - len(ids)
        # A limit that somebody named must fit; the default shrinks to what is left.
        new = min(self._max_new_tokens, room) if wanted is None else wanted
        if room < max(new, 1):
            raise ApiError(
                400,
                str(PromptTooLong(len(ids), max(new, 1), self._context_length)),
                param=param if room < 1 else "max_tokens",
                code="context_length_exceeded",
            )
        sampling = Sampling(
            max_new_tokens=new,
            temperature=fields.temperature or 0.0,
            top_p=1.0 if fields.top_p is None else fields.top_p,
            seed=fields.seed,
            stop_ids=self._stop_ids,
        )
        return Prompt(ids, sampling, list(stops))

    async def answer(self, prompt: Prompt, charge: Callable[[int], None]) -> Answer:
        """The whole answer.

        Args:
            charge: told once, at the end, the tokens of the prompt and those generated; also when
                it ends because nobody waits for it any more, but not when it was refused.

        Raises:
            ApiError: the model is overloaded, unavailable, too slow or broken.
        """
        # Stop strings are matched here, so the tokens have to come while they are made.
        every_s = self._stream_interval_s if prompt.stops else math.inf
        pieces = [piece async for piece in self._pieces(prompt, every_s, charge)]
        return Answer(
            "".join(piece.text for piece in pieces),
            sum(piece.tokens for piece in pieces),
            pieces[-1].finish_reason or "stop",
        )

    def stream(self, prompt: Prompt, charge: Callable[[int], None]) -> AsyncIterator[Piece]:
        """The answer as it is made; only the last piece has a finish reason.

        Args:
            charge: as in `answer`.

        Raises:
            ApiError: as `answer`; the first piece comes only when tokens do, so that an
                overloaded server can still say so with a status.
        """
        return self._pieces(prompt, self._stream_interval_s, charge)

    async def _pieces(
        self, prompt: Prompt, every_s: float, charge: Callable[[int], None]
    ) -> AsyncIterator[Piece]:
        decoder = TextDecoder(self._chat.tokenizer)
        stops = StopStrings(prompt.stops)
        used = len(prompt.ids)
        deadline = time.monotonic() + self._timeout_s
        chunks = self._tokens.generate(
            uuid.uuid4().hex, prompt.ids, prompt.sampling, every_s=every_s
        )
        try:
            # Leaving early closes the chunks, and that cancels the generation.
            async with aclosing(chunks):  # type: ignore[type-var]
                while True:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        chunk = await anext(chunks)
                    piece = _piece(chunk, decoder, stops)
                    used += piece.tokens
                    yield piece
                    if piece.finish_reason is not None:
                        return
        except Exception as error:
            if used == len(prompt.ids) and not isinstance(error, TimeoutError):
                used = 0  # refused, or broken before anything came of it
            raise from_engine(error) from error
        finally:
            charge(used)


def _piece(chunk: Chunk, decoder: TextDecoder, stops: StopStrings) -> Piece:
    text = ""
    for count, token in enumerate(chunk.ids, 1):
        certain, stopped = stops.push(decoder.push([token]))
        text += certain
        if stopped:
            return Piece(text, count, "stop")
    if chunk.finish_reason is not None:
        certain, stopped = stops.push(decoder.flush())
        text += certain if stopped else certain + stops.flush()
    return Piece(text, len(chunk.ids), chunk.finish_reason)
