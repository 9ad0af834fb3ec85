"""The HTTP API: OpenAI's chat completions and models, and translations of its own."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response, StreamingResponse

from bayling import __version__
from bayling.serve import errors, playground, translations
from bayling.serve.answering import Answering, Piece, Prompt
from bayling.serve.envelope import Envelope
from bayling.serve.errors import ApiError, ErrorBody
from bayling.serve.schema import (
    AnswerMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    ModelCard,
    ModelList,
    Status,
    Usage,
)

log = logging.getLogger(__name__)

_ERRORS = (400, 404, 413, 415, 429, 500, 503, 504)


@dataclass(frozen=True)
class About:
    """What the API says of its model."""

    name: str
    version: str
    context_length: int
    languages: list[str]
    page: str | None = None
    """Where the version can be looked at: its page in MLflow."""


def create_app(about: About, answering: Answering, *, at_once: int = 8) -> FastAPI:
    """The API over one model.

    Args:
        at_once: how many translations of one request are made side by side.
    """
    app = FastAPI(
        title="BayLing",
        version=__version__,
        description=f"Model {about.name}, version {about.version}.",
        responses={
            status: {"model": ErrorBody} for status in (400, 404, 413, 415, 429, 500, 503, 504)
        },
    )
    app.add_middleware(Envelope, version=about.version)
    errors.install(app)
    card = ModelCard(
        id=about.name,
        created=int(time.time()),
        version=about.version,
        context_length=about.context_length,
        languages=about.languages,
        page=about.page,
    )

    def check_model(name: str | None) -> None:
        if name is not None and name != about.name:
            raise ApiError(
                404,
                f"there is no model {name!r} here: this server has {about.name!r}",
                param="model",
                code="model_not_found",
            )

    @app.get("/healthz")
    async def healthz() -> Status:
        """This process is alive."""
        return Status()

    @app.get("/readyz")
    async def readyz() -> Status:
        """Requests will be answered; 503 otherwise."""
        try:
            await answering.ready()
        except errors.Unavailable as error:
            raise errors.from_engine(error) from None
        return Status()

    @app.get("/v1/models")
    async def models() -> ModelList:
        return ModelList(data=[card])

    @app.get("/v1/models/{name}")
    async def model(name: str) -> ModelCard:
        check_model(name)
        return card

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(request: ChatRequest) -> Response:
        """An answer to a conversation, at once or as server-sent events."""
        request.refuse_unknown()
        check_model(request.model)
        if request.stream_options is not None and not request.stream:
            raise ApiError(400, "stream_options needs stream=true", param="stream_options")
        messages = [message.message() for message in request.messages]
        prompt = answering.prompt(messages, request, request.stops())
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        created = int(time.time())
        if request.stream:
            pieces = answering.stream(prompt)
            first = await anext(pieces)  # an error up to here still has a status of its own
            with_usage = request.stream_options is not None and request.stream_options.include_usage
            head = {
                "id": identity,
                "object": "chat.completion.chunk",
                "created": created,
                "model": about.name,
            }
            events = _events(head, prompt, first, pieces, with_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        answer = await answering.answer(prompt)
        completion = ChatCompletion(
            id=identity,
            created=created,
            model=about.name,
            choices=[
                Choice(
                    message=AnswerMessage(content=answer.text), finish_reason=answer.finish_reason
                )
            ],
            usage=_usage(len(prompt.ids), answer.tokens),
        )
        return JSONResponse(completion.model_dump())

    app.include_router(
        translations.router(about.name, about.languages, answering, check_model, at_once=at_once)
    )
    app.include_router(playground.router())
    return app


def _usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


async def _events(
    head: dict[str, Any],
    prompt: Prompt,
    first: Piece,
    rest: AsyncIterator[Piece],
    with_usage: bool,
) -> AsyncIterator[str]:
    """Server-sent events of a streamed chat completion, in OpenAI's order."""
    tokens = 0

    def event(delta: dict[str, str], reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        body = {**head, "choices": [choice]}
        return _event({**body, "usage": None} if with_usage else body)

    async def pieces() -> AsyncIterator[Piece]:
        yield first
        if first.finish_reason is None:
            async for piece in rest:
                yield piece

    yield event({"role": "assistant", "content": ""}, None)
    try:
        async for piece in pieces():
            tokens += piece.tokens
            if piece.text:
                yield event({"content": piece.text}, None)
            if piece.finish_reason is not None:
                yield event({}, piece.finish_reason)
    except ApiError as error:
        log.warning("a stream broke off: %s", error)
        yield _event(error.body())
        return
    if with_usage:
        usage = _usage(len(prompt.ids), tokens).model_dump()
        yield _event({**head, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
