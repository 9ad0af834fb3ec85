"""The route of `/v1/translations`: as one JSON answer, or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from bayling import detection
from bayling.serve import observed, streams, translating
from bayling.serve.admission import Asking
from bayling.serve.envelope import answered_by
from bayling.serve.errors import ApiError, broken_off
from bayling.serve.fleet import Fleet, conversation_key
from bayling.serve.schema import Usage, usage
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


def router(fleet: Fleet, *, at_once: int, keep_alive_s: float) -> APIRouter:
    """The route, over all versions that are served.

    Args:
        at_once: how many translations of one request the engines are given at a time, so that a
            long list neither overflows their queue nor leaves others waiting behind it.
    """
    routes = APIRouter()
    detection.load()  # half a second that no request should wait for

    @routes.post("/v1/translations", response_model=TranslationResponse)
    async def translations(
        request: TranslationRequest, http: Request, asking: Asking
    ) -> TranslationResponse | Response:
        """Translations of one text or of several, or the next turn of refining one.

        With `stream`, server-sent events: `translation.delta`, `translation.restart` and
        `translation`, each with the index of the translation that it is about; at the end
        `translation.usage`.
        """
        request.refuse_unknown()
        # Not in the event loop: a thousand texts take a tenth of a second to look at.
        jobs = await asyncio.to_thread(translating.jobs, request, fleet.main.languages)
        version = fleet.choose(request.model, conversation_key(jobs[0].messages))
        answered_by(http, version.version)
        events = Translator(version.answering, request, jobs, asking.charge).run(at_once)
        if request.stream:
            observed.current().streamed = True
            lines = _lines(fleet.name, await streams.begun(events, keep_alive_s))
            return StreamingResponse(lines, media_type="text/event-stream")
        made: list[Done] = []
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    made.append(event)
        answers: list[Translation] = [done.translation for done in made]
        return TranslationResponse(
            model=fleet.name,
            translations=sorted(answers, key=lambda translation: translation.index),
            usage=_usage(made),
        )

    return routes


async def _lines(name: str, events: AsyncIterator[Event | None]) -> AsyncIterator[str]:
    made: list[Done] = []
    try:
        async for event in events:
            if event is None:
                yield streams.WAITING
                continue
            if isinstance(event, Done):
                made.append(event)
            yield _line(_body(event))
    except ApiError as error:
        yield broken_off(error)
        return
    yield _line(UsageEvent(model=name, usage=_usage(made)))
    yield streams.DONE


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
    return usage(
        sum(done.prompt_tokens for done in made),
        sum(done.completion_tokens for done in made),
        observed.current().cached_tokens,
    )
