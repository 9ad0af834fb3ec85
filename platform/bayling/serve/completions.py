"""`/v1/completions`: a text, or token ids, gone on with as it stands.

With `echo` and `logprobs` it scores a text, which is what lm-evaluation-harness asks for.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bayling.engines.protocol import Scored, Stopped
from bayling.serve import observed, streams
from bayling.serve.admission import Asking
from bayling.serve.answering import Answer, Answering, Charge, Piece, Prompt, choices
from bayling.serve.completion_schema import Completion, CompletionChoice, CompletionRequest
from bayling.serve.envelope import answered_by
from bayling.serve.errors import ApiError, broken_off
from bayling.serve.fleet import Fleet
from bayling.serve.schema import usage
from bayling.serve.token_text import TokenTexts


@dataclass(frozen=True)
class _Asked:
    """One of a request's prompts."""

    text: str
    """What is echoed."""
    prompt: Prompt
    charge: Charge


def router(fleet: Fleet, keep_alive_s: float) -> APIRouter:
    """The route, over all versions that are served."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_model=Completion)
    async def completions(request: CompletionRequest, http: Request, asking: Asking) -> Response:
        """Continuations of one text or of several, at once or as server-sent events."""
        request.refuse_unknown()
        version = fleet.choose(request.model, str(request.prompt)[:200])
        answered_by(http, version.version)
        asked = [
            _asked(version.answering, request, one, asking.charge) for one in request.prompts()
        ]
        prompt_tokens = sum(len(one.prompt.ids) for one in asked)
        head: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": fleet.name,
        }
        n = request.n or 1
        if request.stream:
            observed.current().streamed = True
            echoes = [one.text if request.echo else "" for one in asked for _ in range(n)]
            pieces = streams.merged(
                [
                    version.answering.stream(choice, asking.charge)
                    for one in asked
                    for choice in choices(one.prompt, n)
                ]
            )
            begun = await streams.begun(pieces, keep_alive_s)
            with_usage = request.stream_options is not None and request.stream_options.include_usage
            texts = TokenTexts.of(version.answering.chat.tokenizer)
            events = _events(head, begun, echoes, texts, prompt_tokens if with_usage else None)
            return StreamingResponse(events, media_type="text/event-stream")
        made: list[CompletionChoice] = []
        tokens = 0
        for one in asked:
            for answer, choice in await _choices(version.answering, request, one, n, len(made)):
                made.append(choice)
                tokens += len(answer.ids)
        body = Completion(
            **head,
            choices=made,
            usage=usage(prompt_tokens, tokens, observed.current().cached_tokens),
        )
        return JSONResponse(body.model_dump())

    return routes


def _asked(
    answering: Answering, request: CompletionRequest, text: str | list[int], charge: Charge
) -> _Asked:
    # With no new tokens asked for, the engine is not asked for any either.
    new = request.new_tokens()
    prompt = answering.continuation(text, request, new, request.stops())
    if not isinstance(text, str):
        text = str(answering.chat.tokenizer.decode(prompt.ids, skip_special_tokens=False))
    return _Asked(text, prompt, charge)


async def _choices(
    answering: Answering,
    request: CompletionRequest,
    asked: _Asked,
    n: int,
    first: int,
) -> list[tuple[Answer, CompletionChoice]]:
    """The answers to one prompt, as they are and as they are sent."""
    scored: list[Scored | None] | None = None
    prompt = asked.prompt
    if request.echo and request.logprobs is not None:
        ids = prompt.ids
        # Of the first token nobody can say how likely it is.
        rest = await answering.score(ids, request.logprobs, asked.charge) if len(ids) > 1 else []
        scored = [None, *rest]
        prompt = replace(prompt, billed=0)  # that was paid for just now
    if prompt.sampling.max_new_tokens:
        answers = await answering.answer_all(choices(prompt, n), asked.charge)
    else:
        answers = [Answer("", [], None if request.logprobs is None else [], "length")] * n
    texts = TokenTexts.of(answering.chat.tokenizer)

    def logprobs(answer: Answer) -> dict[str, Any] | None:
        if answer.scores is None:
            return None
        made, scores = _with_end(answer.ids, answer.scores, answer.stopped_by)
        if scored is None:
            return texts.completion(made, scores, len(asked.text) if request.echo else 0)
        return texts.completion([*prompt.ids, *made], [*scored, *scores], 0)

    return [
        (
            answer,
            CompletionChoice(
                index=first + index,
                text=(asked.text if request.echo else "") + answer.text,
                logprobs=logprobs(answer),
                finish_reason=answer.finish_reason,
            ),
        )
        for index, answer in enumerate(answers)
    ]


def _with_end(
    ids: list[int], scores: list[Scored], end: Stopped | None
) -> tuple[list[int], list[Scored]]:
    """An answer's tokens with the one that stopped it.

    vLLM and OpenAI list that one too, and who asks for one token, as lm-eval does to have a prompt
    scored, counts on getting one.
    """
    if end is None or end.score is None:
        return ids, scores
    return [*ids, end.token], [*scores, end.score]


async def _events(
    head: dict[str, Any],
    pieces: AsyncIterator[tuple[int, Piece] | None],
    echoes: list[str],
    texts: TokenTexts,
    prompt_tokens: int | None,
) -> AsyncIterator[str]:
    """Server-sent events of streamed completions.

    Args:
        prompt_tokens: for the usage at the end, where it is wanted.
    """
    tokens = 0
    written = [len(echo) for echo in echoes]

    def event(index: int, text: str, logprobs: Any = None, reason: str | None = None) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return streams.event({**head, "choices": [choice]})

    for index, echo in enumerate(echoes):
        if echo:
            yield event(index, echo)
    try:
        async for arrived in pieces:
            if arrived is None:
                yield streams.WAITING
                continue
            index, piece = arrived
            tokens += len(piece.ids)
            logprobs = None
            if piece.scores is not None:
                ids, scores = _with_end(piece.ids, piece.scores, piece.stopped_by)
                logprobs = texts.completion(ids, scores, written[index]) if ids else None
            written[index] += len(piece.text)
            if piece.text or piece.scores or piece.finish_reason is not None:
                yield event(index, piece.text, logprobs, piece.finish_reason)
    except ApiError as error:
        yield broken_off(error)
        return
    if prompt_tokens is not None:
        counts = usage(prompt_tokens, tokens, observed.current().cached_tokens).model_dump()
        yield streams.event({**head, "choices": [], "usage": counts})
    yield streams.DONE
