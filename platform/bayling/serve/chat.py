"""`/v1/chat/completions`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bayling.serve import observed, streams
from bayling.serve.admission import Asking
from bayling.serve.answering import Answer, Piece, Prompt, choices
from bayling.serve.envelope import answered_by
from bayling.serve.errors import ApiError, broken_off
from bayling.serve.fleet import Fleet, Version, conversation_key
from bayling.serve.schema import (
    AnswerMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    usage,
)
from bayling.serve.token_text import TokenTexts


def router(fleet: Fleet, keep_alive_s: float) -> APIRouter:
    """The route, over all versions that are served."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(request: ChatRequest, http: Request, asking: Asking) -> Response:
        """An answer to a conversation, or several, at once or as server-sent events."""
        request.refuse_unknown()
        if request.stream_options is not None and not request.stream:
            raise ApiError(400, "stream_options needs stream=true", param="stream_options")
        messages = [message.message() for message in request.messages]
        version = fleet.choose(request.model, conversation_key(messages))
        answered_by(http, version.version)
        prompt = version.answering.prompt(messages, request, request.stops())
        prompts = choices(prompt, request.n or 1)
        head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if request.stream else "chat.completion",
            "created": int(time.time()),
            "model": fleet.name,
        }
        if request.stream:
            observed.current().streamed = True
            pieces = streams.merged(
                [version.answering.stream(one, asking.charge) for one in prompts]
            )
            begun = await streams.begun(pieces, keep_alive_s)
            with_usage = request.stream_options is not None and request.stream_options.include_usage
            events = _events(head, version, prompt, begun, len(prompts), with_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        answers = await version.answering.answer_all(prompts, asking.charge)
        texts = TokenTexts.of(version.answering.chat.tokenizer)

        def logprobs(answer: Answer) -> dict[str, Any] | None:
            return None if answer.scores is None else texts.chat(answer.ids, answer.scores)

        completion = ChatCompletion(
            **head,
            choices=[
                Choice(
                    index=index,
                    message=AnswerMessage(content=answer.text),
                    logprobs=logprobs(answer),
                    finish_reason=answer.finish_reason,
                )
                for index, answer in enumerate(answers)
            ],
            usage=usage(
                len(prompt.ids),
                sum(len(answer.ids) for answer in answers),
                observed.current().cached_tokens,
            ),
        )
        return JSONResponse(completion.model_dump())

    return routes


async def _events(
    head: dict[str, Any],
    version: Version,
    prompt: Prompt,
    pieces: AsyncIterator[tuple[int, Piece] | None],
    n: int,
    with_usage: bool,
) -> AsyncIterator[str]:
    """Server-sent events of a streamed chat completion, in OpenAI's order."""
    # What is the same in every event is written once: events are most of the work for a
    # small model.
    start = json.dumps({**head, "usage": None} if with_usage else head, ensure_ascii=False)[:-1]
    texts = TokenTexts.of(version.answering.chat.tokenizer)
    tokens = 0

    def event(index: int, delta: str, logprobs: str = "null", reason: str = "null") -> str:
        return (
            f'data: {start}, "choices": [{{"index": {index}, "delta": {delta}, '
            f'"logprobs": {logprobs}, "finish_reason": {reason}}}]}}\n\n'
        )

    for index in range(n):
        yield event(index, '{"role": "assistant", "content": ""}')
    try:
        async for arrived in pieces:
            if arrived is None:
                yield streams.WAITING
                continue
            index, piece = arrived
            tokens += len(piece.ids)
            logprobs = "null"
            if piece.scores:
                logprobs = json.dumps(texts.chat(piece.ids, piece.scores), ensure_ascii=False)
            if piece.text or piece.scores:
                content = json.dumps(piece.text, ensure_ascii=False)
                yield event(index, f'{{"content": {content}}}', logprobs)
            if piece.finish_reason is not None:
                yield event(index, "{}", reason=json.dumps(piece.finish_reason))
    except ApiError as error:
        yield broken_off(error)
        return
    if with_usage:
        counts = usage(len(prompt.ids), tokens, observed.current().cached_tokens).model_dump()
        yield streams.event({**head, "choices": [], "usage": counts})
    yield streams.DONE
