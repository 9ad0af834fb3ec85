"""From a request to an answer in text: the step between HTTP and a source of tokens."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from bayling.engines.protocol import Chunk, PromptTooLong, Sampling, Scored, Stopped
from bayling.serve import observed
from bayling.serve.decoding import Placeholders, StopStrings, TextDecoder
from bayling.serve.errors import ApiError, from_engine
from bayling.serve.schema import SamplingFields
from bayling.templates import ChatFormat, Message, TemplateError

Charge = Callable[[int], None]
"""Told how many tokens a request has used."""


class Tokens(Protocol):
    """Where tokens come from: an engine, here or in other processes."""

    def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        """As `bayling.engines.protocol.Engine`; raises Overloaded and Unavailable besides."""
        ...

    async def score(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        """As `bayling.engines.protocol.Engine`; raises Overloaded and Unavailable besides."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A checked request in tokens."""

    ids: list[int]
    sampling: Sampling
    billed: int
    """The tokens that its caller is charged for the prompt."""
    stops: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """What to write in place of the model's placeholders."""


@dataclass(frozen=True)
class Piece:
    """Some text of an answer."""

    text: str
    ids: list[int]
    """The tokens that were generated for it."""
    scores: list[Scored] | None = None
    """One for each token, where the request asked for them."""
    finish_reason: str | None = None
    stopped_by: Stopped | None = None
    """With the last piece, where a stop token ended the answer."""


@dataclass(frozen=True)
class Answer:
    text: str
    ids: list[int]
    scores: list[Scored] | None
    finish_reason: str
    stopped_by: Stopped | None = None


@dataclass(frozen=True)
class Limits:
    """What a request gets at most, and when it gets it."""

    context_length: int
    max_new_tokens: int
    """The longest answer to a request that names no limit."""
    stream_interval_s: float
    timeout_s: float
    """From the request to the end of its answer."""


class Answering:
    """Answers requests with one version of a model."""

    def __init__(
        self,
        chat: ChatFormat,
        tokens: Tokens,
        limits: Limits,
        names: Mapping[str, str] | None = None,
        adapter: str | None = None,
    ) -> None:
        """
        Args:
            names: what to write in place of the model's placeholders.
            adapter: what the engine is to answer with, by its name there.
        """
        self.chat = chat
        self.limits = limits
        self._tokens = tokens
        self._names = dict(names or {})
        self._adapter = adapter

    def using(self, adapter: str) -> Answering:
        """The same, with an adapter."""
        return Answering(self.chat, self._tokens, self.limits, self._names, adapter)

    def prompt(
        self,
        messages: Sequence[Message],
        fields: SamplingFields,
        stops: Sequence[str] = (),
        *,
        param: str = "messages",
    ) -> Prompt:
        """A conversation as the tokens that the model is given, and how it is to answer.

        Args:
            param: the field that the messages came in, for the error.

        Raises:
            ApiError: turns out of order, a control token in a text, or a prompt that leaves
                no room for the answer.
        """
        observation = observed.current()
        span = observation.tracing.prompt(observation.span)
        try:
            ids = self.chat.prompt_ids(messages)
        except TemplateError as error:
            raise ApiError(400, str(error), param=param) from None
        finally:
            span.end()
        sampling = self._sampling(fields, len(ids), fields.token_limit(), self.chat.stop_ids, param)
        said = "".join(message.content for message in messages)
        # Whoever writes a placeholder wants it translated as it stands.
        names = {place: name for place, name in self._names.items() if place not in said}
        return Prompt(ids, sampling, len(ids), stops, names)

    def continuation(
        self,
        text: str | Sequence[int],
        fields: SamplingFields,
        new_tokens: int,
        stops: Sequence[str] = (),
    ) -> Prompt:
        """A text, or token ids, to be gone on with as it stands; without a chat template.

        Raises:
            ApiError: an empty prompt, unknown token ids, or no room for the answer.
        """
        ids = list(self.chat.tokenizer(text)["input_ids"] if isinstance(text, str) else text)
        if not ids:
            raise ApiError(400, "the prompt is empty: give at least one token", param="prompt")
        sampling = self._sampling(fields, len(ids), new_tokens, self.chat.stop_ids, "prompt")
        return Prompt(ids, sampling, len(ids), stops)

    def _sampling(
        self,
        fields: SamplingFields,
        prompt_tokens: int,
        wanted: int | None,
        stop_ids: Sequence[int],
        param: str,
    ) -> Sampling:
        room = self.limits.context_length - prompt_tokens
        # A limit that somebody named must fit; the default shrinks to what is left.
        new = min(self.limits.max_new_tokens, room) if wanted is None else wanted
        least = 1 if wanted is None else wanted
        if room < max(new, least):
            raise ApiError(
                400,
                str(PromptTooLong(prompt_tokens, max(new, least), self.limits.context_length)),
                param=param if room < 1 else "max_tokens",
                code="context_length_exceeded",
            )
        return Sampling(
            max_new_tokens=new,
            temperature=fields.temperature or 0.0,
            top_p=1.0 if fields.top_p is None else fields.top_p,
            seed=fields.seed,
            stop_ids=tuple(stop_ids),
            logprobs=fields.alternatives(),
            json_schema=fields.schema_of_answer(),
            adapter=self._adapter,
        )

    async def answer(self, prompt: Prompt, charge: Charge) -> Answer:
        """The whole answer.

        Args:
            charge: told once, at the end, the tokens of the prompt and those generated; also when
                it ends because nobody waits for it any more, but not when it was refused.

        Raises:
            ApiError: the model is overloaded, unavailable, too slow or broken.
        """
        # Stop strings are matched here, so the tokens have to come while they are made.
        every_s = self.limits.stream_interval_s if prompt.stops else math.inf
        pieces = [piece async for piece in self._pieces(prompt, every_s, charge)]
        scores = [score for piece in pieces for score in piece.scores or ()]
        return Answer(
            "".join(piece.text for piece in pieces),
            [token for piece in pieces for token in piece.ids],
            None if prompt.sampling.logprobs is None else scores,
            pieces[-1].finish_reason or "stop",
            pieces[-1].stopped_by,
        )

    async def answer_all(self, prompts: Sequence[Prompt], charge: Charge) -> list[Answer]:
        """The answers to several prompts at a time. One that fails takes the others along.

        Raises:
            ApiError: as `answer`.
        """
        if len(prompts) == 1:
            return [await self.answer(prompts[0], charge)]
        tasks = [asyncio.ensure_future(self.answer(prompt, charge)) for prompt in prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def stream(self, prompt: Prompt, charge: Charge) -> AsyncIterator[Piece]:
        """The answer as it is made; only the last piece has a finish reason.

        Args:
            charge: as in `answer`.

        Raises:
            ApiError: as `answer`; the first piece comes only when tokens do, so that an
                overloaded server can still say so with a status.
        """
        return self._pieces(prompt, self.limits.stream_interval_s, charge)

    async def score(self, ids: Sequence[int], top: int, charge: Charge) -> list[Scored]:
        """How likely each token is after those before it; of all tokens but the first.

        Raises:
            ApiError: as `answer`.
        """
        observation = observed.current()
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                scores = await self._tokens.score(observation.engine_id(), ids, top, self._adapter)
        except Exception as error:
            raise from_engine(error) from error
        charge(len(ids))
        observation.prompt_tokens += len(ids)
        return scores

    async def _pieces(self, prompt: Prompt, every_s: float, charge: Charge) -> AsyncIterator[Piece]:
        writer = _Writer(self.chat, prompt)
        observation = observed.current()
        text = self._text(prompt) if observation.keep_texts else ""
        pace = observation.answer(prompt.billed, text)
        made = 0
        refused = False  # or broken before anything came of it
        deadline = time.monotonic() + self.limits.timeout_s
        chunks = self._tokens.generate(
            observation.engine_id(), prompt.ids, prompt.sampling, every_s=every_s
        )
        try:
            # Leaving early closes the chunks, and that cancels the generation.
            async with aclosing(chunks):  # type: ignore[type-var]
                while True:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        chunk = await anext(chunks)
                    piece = writer.write(chunk)
                    made += len(piece.ids)
                    pace.made(len(piece.ids), piece.text, chunk, piece.finish_reason)
                    yield piece
                    if piece.finish_reason is not None:
                        return
        except Exception as error:
            refused = not made and not isinstance(error, TimeoutError)
            raise from_engine(error) from error
        finally:
            pace.end(refused)
            if not refused:
                charge(prompt.billed + made)

    def _text(self, prompt: Prompt) -> str:
        """What the model is given."""
        return str(self.chat.tokenizer.decode(prompt.ids, skip_special_tokens=False))


class _Writer:
    """Turns one answer's tokens into its text."""

    def __init__(self, chat: ChatFormat, prompt: Prompt) -> None:
        self._decoder = TextDecoder(chat.tokenizer)
        self._names = Placeholders(prompt.names)
        self._stops = StopStrings(prompt.stops)

    def write(self, chunk: Chunk) -> Piece:
        text = ""
        if not self._stops:
            text = self._names.push(self._decoder.push(chunk.ids))
        else:
            for count, token in enumerate(chunk.ids, 1):
                certain, stopped = self._stops.push(self._names.push(self._decoder.push([token])))
                text += certain
                if stopped:
                    scores = None if chunk.scores is None else chunk.scores[:count]
                    return Piece(text, chunk.ids[:count], scores, "stop")
        reason, stopped_by = chunk.finish_reason, chunk.stopped_by
        if reason is not None:
            rest = self._names.push(self._decoder.flush()) + self._names.flush()
            certain, stopped = self._stops.push(rest)
            text += certain if stopped else certain + self._stops.flush()
            if stopped:
                reason, stopped_by = "stop", None
        return Piece(text, chunk.ids, chunk.scores, reason, stopped_by)


def choices(prompt: Prompt, n: int) -> list[Prompt]:
    """A prompt `n` times, each with draws of its own: the same ones for the same seed."""
    seed = prompt.sampling.seed
    if seed is None:
        return [prompt] + [replace(prompt, billed=0)] * (n - 1)
    return [prompt] + [
        replace(prompt, sampling=replace(prompt.sampling, seed=_seed(seed, index)), billed=0)
        for index in range(1, n)
    ]


def _seed(seed: int, index: int) -> int:
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # what fits into 63 bits fits every engine
