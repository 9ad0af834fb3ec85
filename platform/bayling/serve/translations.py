"""`/v1/translations`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from bayling.errors import UserError
from bayling.languages import parse
from bayling.prompts import translate_prompt
from bayling.serve import observed
from bayling.serve.admission import Asking
from bayling.serve.envelope import answered_by
from bayling.serve.errors import ApiError
from bayling.serve.fleet import Fleet, conversation_key
from bayling.serve.judging import judge
from bayling.serve.schema import Translation, TranslationRequest, TranslationResponse, usage
from bayling.templates import Message


def router(fleet: Fleet) -> APIRouter:
    """The route, over all versions that are served."""
    routes = APIRouter()

    @routes.post("/v1/translations")
    async def translations(
        request: TranslationRequest, http: Request, asking: Asking
    ) -> TranslationResponse:
        """Translations of one text or of several, or the next turn of refining one."""
        request.refuse_unknown()
        source = _language(request.source, "source") if request.source else None
        target = _language(request.target, "target") if request.target else None
        conversations = _conversations(request, target)
        version = fleet.choose(request.model, conversation_key(conversations[0]))
        answered_by(http, version.version)
        prompts = [
            version.answering.prompt(messages, request, param="text") for messages in conversations
        ]
        answers = await version.answering.answer_all(prompts, asking.charge)
        judge(observed.current(), [answer.text for answer in answers], target)
        return TranslationResponse(
            model=fleet.name,
            translations=[
                Translation(
                    text=answer.text,
                    source=source,
                    target=target,
                    finish_reason=answer.finish_reason,
                )
                for answer in answers
            ],
            usage=usage(
                sum(len(prompt.ids) for prompt in prompts),
                sum(len(answer.ids) for answer in answers),
            ),
        )

    return routes


def _conversations(request: TranslationRequest, target: str | None) -> list[list[Message]]:
    """What the model is asked: one conversation for each text."""
    texts = [request.text] if isinstance(request.text, str) else request.text
    if not texts:
        raise ApiError(400, "text is an empty list: give at least one", param="text")
    if request.history:
        if not isinstance(request.text, str):
            raise ApiError(400, "a history goes on with one text, not with several", param="text")
        turns = texts
    elif target is None:
        raise ApiError(400, "target is missing: name a language, for example de", param="target")
    else:
        turns = [translate_prompt(text, target, request.prompt_language) for text in texts]
    if request.instructions:
        turns = [f"{turn}\n{request.instructions}" for turn in turns]
    history = [message.message() for message in request.history]
    return [[*history, Message("user", turn)] for turn in turns]


def _language(code: str, param: str) -> str:
    try:
        return parse(code)
    except UserError as error:
        raise ApiError(400, str(error), param=param, code="unknown_language") from None
