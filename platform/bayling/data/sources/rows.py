"""What readers yield: pairs, sentences in several languages, conversations, and what is malformed.

Texts are as they stand in the data, without the line's end: cleaning is not a reader's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bayling.templates import Message


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands."""

    file: str
    """Its address; of aligned files, the one of the first language."""
    line: int
    """From 1: the line of a text, the number of the row in a JSON array, Parquet or Arrow file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence in two languages. It is read once, in one direction; either side may be empty."""

    source_lang: str
    """A BCP-47 tag."""
    target_lang: str
    source: str
    target: str
    place: Place
    terms: tuple[tuple[str, str], ...] = ()
    """Glossary entries: a term of the source and its translation. The term of the source is empty
    where the data only says which words the target has to contain."""
    register: str | None = None
    """As the data calls it: formal, informal, spoken, …"""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Parallel:
    """One sentence in all languages that the data has it in."""

    texts: Mapping[str, str]
    """By BCP-47 tag, in the order of the source's languages."""
    place: Place
    register: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation: system if there is one, then user and assistant in turn, an answer last."""

    messages: tuple[Message, ...]
    place: Place
    language: str | None = None
    """Where the data says it; nothing is guessed."""
    id: str | None = None
    note: Mapping[str, str] = field(default_factory=dict)
    """Of this platform's own conversations: `task`, `source_lang`, `target_lang`, `origin`."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question without an answer to learn: a row of an evaluation suite."""

    turns: tuple[str, ...]
    """What the user says, turn by turn."""
    place: Place
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be read."""

    place: Place
    reason: str
    text: str
    """The row as far as it can be shown, at most `SHOWN` characters of it."""


Row = Pair | Talk | Question | Rejected

SHOWN = 500


def rejected(file: str, line: int, reason: str, text: object) -> Rejected:
    """A row with the beginning of what stood there."""
    shown = text if isinstance(text, str) else repr(text)
    return Rejected(Place(file, line), reason, shown[:SHOWN])
