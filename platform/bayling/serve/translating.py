"""From a request for translations to conversations with the model, and to their answers.

A translation whose glossary terms are not all there is asked for once more, as a further turn of
the same conversation: `Make sure to include these words: …`. That is how BayLing learned to
refine, and it keeps the first answer as a draft. Of 143 first answers without their word, the
quickstart's model mended 95 this way, and 9 when it was asked the same again at another
temperature (at temperature 0 it would only repeat itself). The better of the two is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from bayling.detection import Detected, detect
from bayling.errors import UserError
from bayling.languages import parse
from bayling.prompts import include_prompt, sentence_of, translate_prompt
from bayling.serve import observed
from bayling.serve.answering import Answering, Charge, Piece, Prompt
from bayling.serve.errors import ApiError
from bayling.serve.glossary import Term, occurring, terms_for, unused
from bayling.serve.judging import judge
from bayling.serve.schema import SamplingFields
from bayling.serve.translation_schema import (
    MAX_TRANSLATIONS,
    Glossary,
    TermUse,
    Translation,
    TranslationRequest,
    Turn,
)
from bayling.templates import Message

log = logging.getLogger(__name__)

_CERTAIN = 0.5
"""A language that is detected with less is not reported: rather none than a wrong one."""
_SURE = 0.9
"""With so much a text is taken to be in the very language that it is to be translated into."""


@dataclass(frozen=True)
class Job:
    """One translation to make: a text into a language."""

    index: int
    text_index: int
    source: str | None
    source_detected: bool
    target: str | None
    messages: tuple[Message, ...]
    """What the model is asked."""
    terms: tuple[Term, ...]
    """The glossary, as far as it is about the target."""
    asked: tuple[Term, ...]
    """Those of the terms that the text has."""


@dataclass(frozen=True)
class Delta:
    """Some more text of a translation."""

    index: int
    text: str


@dataclass(frozen=True)
class Restart:
    """What there is of a translation is void: the model is asked once more."""

    index: int


@dataclass(frozen=True)
class Done:
    """A translation is finished."""

    translation: Translation
    prompt_tokens: int
    completion_tokens: int
    """Both of all attempts."""


Event = Delta | Restart | Done


def jobs(request: TranslationRequest, languages: Sequence[str]) -> list[Job]:
    """The translations that a request asks for: texts one after the other, for each its targets.

    Args:
        languages: the model's, among which the language of a text is detected.

    Raises:
        ApiError: something in the request contradicts itself, is missing, or is too much.
    """
    texts = [request.text] if isinstance(request.text, str) else request.text
    targets = _targets(request)
    _check_texts(request, texts, targets)
    glossary = _glossary(request.glossary, targets)
    given = _language(request.source, "source") if request.source else None
    made: list[Job] = []
    into: list[str] | list[None] = targets or [None]
    for text_index, text in enumerate(texts):
        # A turn such as "Make it shorter." says nothing about the language of what it is about.
        detected = None if given or request.history else _detected(text, languages, targets)
        certain = detected is not None and detected.confidence >= _CERTAIN
        source = detected.language if detected is not None and certain else given
        for target in into:
            terms = terms_for(glossary, target)
            asked = tuple(occurring(terms, _subject(request, text)))
            job = Job(
                index=len(made),
                text_index=text_index,
                source=source,
                source_detected=certain,
                target=target,
                messages=_messages(request, text, target, asked),
                terms=terms,
                asked=asked,
            )
            made.append(job)
    return made


def _detected(text: str, languages: Sequence[str], targets: Sequence[str]) -> Detected | None:
    detected = detect(text, languages)
    if detected is not None and detected.language in targets and detected.confidence < _SURE:
        others = [tag for tag in languages if tag not in targets]
        return detect(text, others) or detected
    return detected


def _check_texts(request: TranslationRequest, texts: list[str], targets: list[str]) -> None:
    if not texts:
        raise ApiError(400, "text is an empty list: give at least one", param="text")
    for index, text in enumerate(texts):
        if not text.strip():
            param = "text" if isinstance(request.text, str) else f"text.{index}"
            raise ApiError(400, f"{param} is empty: there is nothing to translate", param=param)
    if request.history:
        if not isinstance(request.text, str):
            raise ApiError(400, "a history goes on with one text, not with several", param="text")
        if len(targets) > 1:
            raise ApiError(
                400, "a history goes on in one language: name one target", param="target"
            )
    elif not targets:
        raise ApiError(400, "target is missing: name a language, for example de", param="target")
    number = len(texts) * max(len(targets), 1)
    if number > MAX_TRANSLATIONS:
        raise ApiError(
            413,
            f"{len(texts)} texts into {len(targets)} languages are {number} translations, and one "
            f"request may ask for {MAX_TRANSLATIONS}: send several",
            param="text",
            code="too_many_translations",
        )


def _targets(request: TranslationRequest) -> list[str]:
    if request.target is None:
        return []
    if isinstance(request.target, str):
        return [_language(request.target, "target")]
    targets = [_language(code, f"target.{n}") for n, code in enumerate(request.target)]
    for index, target in enumerate(targets):
        if target in targets[:index]:
            raise ApiError(400, f"target names {target} twice", param=f"target.{index}")
    return targets


def _language(code: str, param: str) -> str:
    try:
        return parse(code)
    except UserError as error:
        raise ApiError(400, str(error), param=param, code="unknown_language") from None


def _glossary(glossary: Glossary, targets: list[str]) -> Glossary:
    """The request's glossary with its languages as BCP-47 tags."""
    checked: Glossary = {}
    for term, translation in glossary.items():
        param = f"glossary.{term}"
        if isinstance(translation, str):
            if len(targets) > 1:
                example = f'{{"{targets[0]}": "{translation}"}}'
                raise ApiError(
                    400,
                    f"with several targets the glossary has to say for which one {term!r} is "
                    f"{translation!r}, for example {example}",
                    param=param,
                )
            checked[term] = translation
        elif not targets:
            raise ApiError(
                400,
                f"the glossary has {term!r} by language, and no target says which one is wanted: "
                "name it",
                param="target",
            )
        else:
            checked[term] = {
                _language(code, f"{param}.{code}"): words for code, words in translation.items()
            }
    return checked


def _subject(request: TranslationRequest, text: str) -> str:
    """The text in which glossary terms are looked for: all that the user has said so far."""
    return "\n".join([*(sentence_of(turn) for turn in _said(request)), text])


def _said(request: TranslationRequest) -> list[str]:
    turns = [message.message() for message in request.history]
    return [turn.content for turn in turns if turn.role == "user"]


def _messages(
    request: TranslationRequest, text: str, target: str | None, asked: Sequence[Term]
) -> tuple[Message, ...]:
    lines = [text]
    if not request.history and target is not None:
        lines = [translate_prompt(text, target, request.prompt_language)]
    # A conversation asks for a word once, or once more when it turns out to be missing.
    if fresh := unused(asked, "\n".join(_said(request))):
        lines.append(include_prompt(_words(fresh), request.prompt_language))
    if request.instructions:
        lines.append(request.instructions)
    history = [message.message() for message in request.history]
    return (*history, Message("user", "\n".join(lines)))


def _words(terms: Sequence[Term]) -> list[str]:
    return list(dict.fromkeys(term.translation for term in terms))


@dataclass(frozen=True)
class _Attempt:
    messages: tuple[Message, ...]
    """Those that the model was given."""
    text: str
    finish_reason: str
    missing: tuple[Term, ...]


class Translator:
    """Makes the translations of one request."""

    def __init__(
        self,
        answering: Answering,
        request: TranslationRequest,
        jobs: Sequence[Job],
        charge: Charge,
    ) -> None:
        """Raises ApiError for a job that the model cannot be asked; none is begun then."""
        self._answering = answering
        self._charge = charge
        self._fields: SamplingFields = request
        self._prompt_language = request.prompt_language
        self._stream = request.stream
        self._jobs = [(job, self._prompt(job.messages)) for job in jobs]

    async def run(self, at_once: int) -> AsyncGenerator[Event, None]:
        """Make all translations; yields what comes of them, of several in turns.

        They are begun in order. Leaving the iterator early cancels those that are not finished,
        and so does the failure of one of them.

        Args:
            at_once: how many are being made at a time.

        Raises:
            ApiError: one of the translations failed.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        places = asyncio.Semaphore(at_once)

        async def work(job: Job, prompt: Prompt) -> None:
            async with places, aclosing(self._translate(job, prompt)) as made:
                async for event in made:
                    events.put_nowait(event)

        tasks = [asyncio.create_task(work(job, prompt)) for job, prompt in self._jobs]
        everything = asyncio.gather(*tasks)
        everything.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await everything
        finally:
            for task in tasks:
                task.cancel()

    async def _translate(self, job: Job, prompt: Prompt) -> AsyncGenerator[Event, None]:
        attempts: list[_Attempt] = []
        prompt_tokens = completion_tokens = 0
        again: Prompt | None = prompt
        messages = job.messages
        while again is not None:
            text, reason, tokens = "", "stop", 0
            restarting = bool(attempts)
            try:
                async with aclosing(self._pieces(again)) as pieces:
                    async for piece in pieces:
                        if restarting:
                            yield Restart(job.index)
                            restarting = False
                        tokens += len(piece.ids)
                        text += piece.text
                        reason = piece.finish_reason or reason
                        if piece.text:
                            yield Delta(job.index, piece.text)
            except ApiError as error:
                if not attempts:
                    raise
                log.warning("a glossary term stays missing, as asking again failed: %s", error)
                break
            prompt_tokens += len(again.ids)
            completion_tokens += tokens
            attempt = _Attempt(messages, text, reason, tuple(unused(job.asked, text)))
            attempts.append(attempt)
            messages, again = self._again(attempt) if len(attempts) == 1 else ((), None)
        # The first of equals: a second answer that is no better has only strayed further.
        best = min(attempts, key=lambda attempt: len(attempt.missing))
        judge(observed.current(), best.text, job.target)
        yield Done(_translation(job, best, len(attempts)), prompt_tokens, completion_tokens)

    def _again(self, attempt: _Attempt) -> tuple[tuple[Message, ...], Prompt | None]:
        """The further turn that asks for what is missing; no prompt where none is to be asked."""
        if not attempt.missing:
            return (), None
        turn = include_prompt(_words(attempt.missing), self._prompt_language)
        messages = (
            *attempt.messages,
            Message("assistant", attempt.text),
            Message("user", turn),
        )
        try:
            return messages, self._prompt(messages)
        except ApiError:  # the context has no room for it
            return (), None

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        return self._answering.prompt(messages, self._fields, param="text")

    async def _pieces(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        if not self._stream:
            answer = await self._answering.answer(prompt, self._charge)
            yield Piece(answer.text, answer.ids, finish_reason=answer.finish_reason)
            return
        pieces = self._answering.stream(prompt, self._charge)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece


def _translation(job: Job, attempt: _Attempt, attempts: int) -> Translation:
    turns = [*attempt.messages, Message("assistant", attempt.text)]
    return Translation(
        index=job.index,
        text_index=job.text_index,
        text=attempt.text,
        source=job.source,
        source_detected=job.source_detected,
        target=job.target,
        finish_reason=attempt.finish_reason,
        attempts=attempts,
        glossary=[
            TermUse(
                term=term.term,
                translation=term.translation,
                applicable=term in job.asked,
                used=term in job.asked and term not in attempt.missing,
            )
            for term in job.terms
        ],
        messages=[Turn(role=turn.role, content=turn.content) for turn in turns],
    )
