"""The route of `/v1/translations`: as one JSON answer, or as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from bayling import detection
from bayling.serve import translating
from bayling.serve.answering import Answering
from bayling.serve.errors import ApiError, ErrorBody
from bayling.serve.schema import Usage
from bayling.serve.translating import Delta, Done, Event, Restart, Translator
from bayling.serve.translation_schema import (
    DeltaEvent,
    RestartEvent,
    Translation,
    TranslationEvent,
    TranslationRequest,
    TranslationResponse,
    UsageEvent,
)

log = logging.getLogger(__name__)


def router(
    name: str,
    languages: Sequence[str],
    answering: Answering,
    check_model: Callable[[str | None], None],
    *,
    at_once: int,
) -> APIRouter:
    """The route, over one model.

    Args:
        name: what the model is called in answers.
        languages: the model's; the language of a text is detected among them.
        check_model: raises ApiError for a model that a request names and this server lacks.
        at_once: how many translations of one request the engines are given at a time, so that a
            long list neither overflows their queue nor leaves others waiting behind it.
    """
    routes = APIRouter()
    detection.load()  # half a second that no request should wait for

    @routes.post("/v1/translations", response_model=TranslationResponse)
    async def translations(request: TranslationRequest) -> TranslationResponse | Response:
        """Translations of one text or of several, or the next turn of refining one.

        With `stream`, server-sent events: `translation.delta`, `translation.restart` and
        `translation`, each with the index of the translation that it is about; at the end
        `translation.usage`.
        """
        request.refuse_unknown()
        check_model(request.model)
        # Not in the event loop: a thousand texts take a tenth of a second to look at.
        jobs = await asyncio.to_thread(translating.jobs, request, languages)
        events = Translator(answering, request, jobs).run(at_once)
        if request.stream:
            first = await anext(events)  # an error up to here still has a status of its own
            lines = _lines(name, first, events)
            return StreamingResponse(lines, media_type="text/event-stream")
        made: list[Done] = []
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    made.append(event)
        answers: list[Translation] = [done.translation for done in made]
        return TranslationResponse(
            model=name,
            translations=sorted(answers, key=lambda translation: translation.index),
            usage=_usage(made),
        )

    return routes


async def _lines(name: str, first: Event, rest: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    made: list[Done] = []

    async def events() -> AsyncIterator[Event]:
        yield first
        async for event in rest:
            yield event

    try:
        # Whoever leaves the stream closes the translations with it.
        async with aclosing(rest):
            async for event in events():
                if isinstance(event, Done):
                    made.append(event)
                yield _line(_body(event))
    except ApiError as error:
        log.warning("a stream of translations broke off: %s", error)
        yield _line(ErrorBody.model_validate(error.body()))
        return
    yield _line(UsageEvent(model=name, usage=_usage(made)))
    yield "data: [DONE]\n\n"


def _body(event: Event) -> BaseModel:
    match event:
        case Delta(index, text):
            return DeltaEvent(index=index, delta=text)
        case Restart(index):
            return RestartEvent(index=index)
        case Done(translation):
            return TranslationEvent(index=translation.index, translation=translation)


def _line(body: BaseModel) -> str:
    return f"data: {body.model_dump_json()}\n\n"


def _usage(made: Sequence[Done]) -> Usage:
    prompt_tokens = sum(done.prompt_tokens for done in made)
    completion_tokens = sum(done.completion_tokens for done in made)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
