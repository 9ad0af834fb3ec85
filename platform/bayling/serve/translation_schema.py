"""The bodies of `/v1/translations`: its request, its answer, and the events of its stream."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from bayling.serve.schema import ChatMessage, SamplingFields, Text, Usage

MAX_TRANSLATIONS = 256
"""Texts times targets of one request."""
MAX_TERMS = 1000
"""Entries of one glossary."""

Phrase = Annotated[Text, Field(min_length=1, max_length=500, pattern=r"\S")]
Glossary = dict[Phrase, Phrase | dict[str, Phrase]]


class TranslationRequest(SamplingFields):
    text: Text | list[Text]
    """What to translate. After a history: the user's next turn, as it is."""
    target: str | list[str] | None = None
    """A language code, or several: each text is then translated into each of them. Only after a
    history it may be missing."""
    source: str | None = None
    """The language of the text. Without one it is detected, among the model's languages. It comes
    back in the answer; BayLing's prompt does not name it."""
    glossary: Glossary = Field(default_factory=dict, max_length=MAX_TERMS)
    """Term → its translation, `{"heart": "Herz"}`; for several targets term → language code → its
    translation, `{"heart": {"de": "Herz", "fr": "cœur"}}`, which one target takes as well. Terms
    that a text does not have are not asked for."""
    instructions: Text | None = None
    """Further wishes, for example `Use the formal address.`"""
    history: list[ChatMessage] = Field(default_factory=list)
    """The turns before, for refining a translation step by step: the `messages` of an answer."""
    prompt_language: Literal["en", "zh"] = "en"
    """The language of the instruction that the model is given."""
    stream: bool = False
    """Answer with server-sent events while the translations are made."""


class Turn(BaseModel):
    role: str
    content: str


class TermUse(BaseModel):
    """What became of one glossary term."""

    term: str
    translation: str
    applicable: bool
    """Whether the text has the term. If not, the model was not asked for it."""
    used: bool
    """Whether the model was asked for the translation of the term, and wrote it."""


class Translation(BaseModel):
    index: int
    """Its place in the answer: texts one after the other, each in the order of the targets."""
    text_index: int
    """Which of the texts it is a translation of."""
    text: str
    source: str | None
    """The language of the text; null where it was neither given nor could be told."""
    source_detected: bool
    """Whether `source` was detected rather than given."""
    target: str | None
    finish_reason: str
    attempts: int
    """2 where the first answer lacked a glossary term, and the model was asked once more."""
    glossary: list[TermUse]
    messages: list[Turn]
    """The whole conversation with this answer at its end. Sent back as `history`, the model
    refines it."""


class TranslationResponse(BaseModel):
    model: str
    translations: list[Translation]
    usage: Usage


class DeltaEvent(BaseModel):
    """Some more text of one translation."""

    object: Literal["translation.delta"] = "translation.delta"
    index: int
    delta: str


class RestartEvent(BaseModel):
    """The text of one translation so far is void: the model was asked once more."""

    object: Literal["translation.restart"] = "translation.restart"
    index: int


class TranslationEvent(BaseModel):
    """One translation is finished. Its text counts, whatever the deltas were."""

    object: Literal["translation"] = "translation"
    index: int
    translation: Translation


class UsageEvent(BaseModel):
    """All translations are finished."""

    object: Literal["translation.usage"] = "translation.usage"
    model: str
    usage: Usage
