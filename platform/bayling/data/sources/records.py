"""Records, as JSON, Parquet, Arrow and tables with a header have them, and what their keys mean.

A form recognises records by their keys and reads one into rows. How records are stored is another
matter, and of no interest here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bayling.data.sources.columns import columns_of, language_of
from bayling.data.sources.rows import Pair, Parallel, Place, Question, Rejected, Talk, rejected
from bayling.requirements import Requirement
from bayling.templates import Message, TemplateError, check_turns

Record = Mapping[str, Any]
AnyRow = Pair | Parallel | Talk | Question | Rejected


class Malformed(Exception):
    """A record that does not have what its form says. The message is the reason."""


@dataclass(frozen=True)
class Reading:
    """What is known of a file beside its records."""

    languages: tuple[str, ...] = ()
    """Of pairs the language of the source and that of the target; of conversations theirs."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By role, see `config.ROLES`."""
    register: str | None = None


@dataclass(frozen=True)
class Form:
    """A kind of record."""

    kind: str
    """pairs, conversations or questions."""
    recognises: Callable[[Record], bool]
    read: Callable[[Record, Place, Reading], Iterator[AnyRow]]


def form_of(records: Sequence[Record]) -> str | None:
    """The name in `FORMS` of the form that most of the records have, the first one if equal."""
    votes = Counter(
        next((name for name, form in FORMS.items() if form.recognises(record)), "")
        for record in records
    )
    best = max((name for name in votes if name), key=lambda name: votes[name], default=None)
    # One odd record among others must not decide over a file.
    return best if best is not None and 2 * votes[best] >= len(records) else None


def read(
    name: str, records: Iterator[tuple[int, Any]], file: str, reading: Reading
) -> Iterator[AnyRow]:
    """The rows of records that come with their line or row number; a malformed one is rejected."""
    form = FORMS[name]
    for number, record in records:
        if isinstance(record, Rejected):
            yield record
            continue
        if not isinstance(record, Mapping):
            kind = {list: "a list", str: "a text", type(None): "null"}.get(type(record), "a value")
            yield rejected(file, number, f"{kind}, not an object with keys", record)
            continue
        try:
            yield from form.read(record, Place(file, number), reading)
        except Malformed as error:
            yield rejected(file, number, str(error), _shown(record))


def _shown(record: Record) -> str:
    import json

    return json.dumps(record, ensure_ascii=False, default=str)


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise Malformed(f"{key!r} is {'missing' if value is None else 'no text'}")
    return value


def _optional(record: Record, *keys: str) -> str:
    """The first of these keys that is there, as text; empty where none is, or it is null."""
    for key in keys:
        if record.get(key) is not None:
            return _text(record, key)
    return ""


def _id(record: Record, *keys: str) -> str | None:
    for key in keys or ("id",):
        if (value := record.get(key)) is not None:
            return str(value)
    return None


# Pairs


def _is_translation(record: Record) -> bool:
    return isinstance(record.get("translation"), Mapping)


def _translation(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    given = record.get("translation")
    if not isinstance(given, Mapping):
        raise Malformed("'translation' is no object of texts by language")
    texts = {
        tag: text
        for code, text in given.items()
        if isinstance(text, str) and (tag := language_of(code))
    }
    if len(texts) < 2:
        raise Malformed("'translation' has no texts in two languages that the Unicode CLDR knows")
    yield Parallel(texts, place, reading.register, _id(record))


def _is_constraints(record: Record) -> bool:
    return {"src", "tgt"} <= record.keys() and bool({"constraint", "constraints"} & record.keys())


def _constraints(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    words = record.get("constraint", record.get("constraints"))
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Malformed("'constraint' is no list of words")
    source_lang, target_lang = reading.languages
    yield Pair(
        source_lang,
        target_lang,
        _text(record, "src"),
        _text(record, "tgt"),
        place,
        tuple(("", word) for word in words),
        reading.register,
        _id(record),
    )


def _is_columns(record: Record) -> bool:
    return bool(columns_of(record))


def _columns(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    columns = reading.columns
    register = _optional(record, columns["register"]) if "register" in columns else ""
    register_or_none = register or reading.register
    name = _id(record, columns["id"]) if "id" in columns else None
    if "source" not in columns:
        # A sentence may lack some of the languages.
        texts = {
            role: text
            for role, column in columns.items()
            if role not in ("register", "id") and isinstance(text := record.get(column), str)
        }
        if len(texts) < 2:
            raise Malformed("there are no texts in two languages")
        yield Parallel(texts, place, register_or_none, name)
        return
    sides = [
        _language(record, columns[role]) if role in columns else reading.languages[index]
        for index, role in enumerate(("source_lang", "target_lang"))
    ]
    if sides[0] == sides[1]:
        raise Malformed(f"both languages are {sides[0]!r}")
    source, target = _text(record, columns["source"]), _text(record, columns["target"])
    terms = _terms(record.get("terms", record.get("glossary")))
    yield Pair(sides[0], sides[1], source, target, place, terms, register_or_none, name)


def _language(record: Record, column: str) -> str:
    code = _text(record, column)
    if (tag := language_of(code)) is None:
        raise Malformed(f"{column!r} is {code!r}, which the Unicode CLDR does not know")
    return tag


def _terms(value: Any) -> tuple[tuple[str, str], ...]:
    if value in (None, ""):
        return ()
    if isinstance(value, Mapping):
        value = list(value.items())
    found = []
    for item in value if isinstance(value, list) else [None]:
        pair = [item.get("source"), item.get("target")] if isinstance(item, Mapping) else item
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(isinstance(side, str) for side in pair)
        ):
            raise Malformed("the terms are neither a mapping nor a list of [source, target]")
        found.append((pair[0], pair[1]))
    return tuple(found)


# Conversations


_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}


def _is_messages(record: Record) -> bool:
    return _has_items(record.get("messages"), "role")


def _is_sharegpt(record: Record) -> bool:
    turns = record.get("conversations")
    return _has_items(turns, "from") or _has_items(turns, "role")


def _has_items(value: Any, key: str) -> bool:
    return isinstance(value, list) and any(
        isinstance(item, Mapping) and key in item for item in value
    )


def _messages(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    turns = record.get("messages", record.get("conversations"))
    if not isinstance(turns, list) or not turns:
        raise Malformed("there are no messages")
    messages = [_message(turn, index) for index, turn in enumerate(turns, 1)]
    if isinstance(record.get("system"), str) and record["system"] and messages[0].role != "system":
        messages.insert(0, Message("system", record["system"]))
    keys = ("task", "source_lang", "target_lang", "origin")
    note = {key: record[key] for key in keys if isinstance(record.get(key), str)}
    yield _talk(messages, record, place, reading, note)


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise Malformed(f"message {number} is no object")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise Malformed(f"message {number} has the role {said!r}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise Malformed(f"message {number} has parts that are no text")
        content = "".join(str(part) for part in parts)
    if not isinstance(content, str):
        raise Malformed(f"message {number} has no text")
    required = turn.get("requirements") or []
    try:
        requirements = tuple(
            Requirement(str(item["kind"]), tuple(map(str, item["values"]))) for item in required
        )
    except (KeyError, TypeError):
        raise Malformed(f"message {number} has requirements without kind and values") from None
    return Message(role, content, requirements)


def _is_instances(record: Record) -> bool:
    return isinstance(record.get("instruction"), str) and isinstance(record.get("instances"), list)


def _instances(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    if not record.get("instances"):
        raise Malformed("'instances' is empty")
    for instance in record["instances"]:
        if not isinstance(instance, Mapping):
            raise Malformed("'instances' holds what is no object")
        yield from _alpaca({**record, **instance}, place, reading)


_ASKED = ("instruction", "prompt", "question")
_GIVEN = ("input", "context")
_ANSWERED = ("output", "response", "answer", "completion")


def _is_alpaca(record: Record) -> bool:
    # A multiple choice has an answer, too, and is no instruction.
    return (
        any(isinstance(record.get(key), str) for key in _ASKED)
        and any(isinstance(record.get(key), str) for key in _ANSWERED)
        and "options" not in record
    )


def _alpaca(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    asked, given = _optional(record, *_ASKED), _optional(record, *_GIVEN)
    if given.strip() and given.strip().lower() not in ("<noinput>", "<no input>"):
        asked = f"{asked}\n{given}" if asked.strip() else given
    if not asked.strip():
        raise Malformed("the instruction is empty")
    messages = []
    if system := _optional(record, "system"):
        messages.append(Message("system", system))
    for turn in record.get("history") or []:
        if (
            not isinstance(turn, list | tuple)
            or len(turn) != 2
            or not all(isinstance(side, str) for side in turn)
        ):
            raise Malformed("'history' is no list of [question, answer]")
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    answer = _optional(record, *_ANSWERED)
    yield _talk([*messages, *_belle(asked), Message("assistant", answer)], record, place, reading)


def _belle(asked: str) -> list[Message]:
    """BELLE writes whole conversations into the instruction: `Human:…\\nAssistant:…\\nHuman:…`."""
    parts = re.split(r"(?:^|\n)(Human|Assistant)[:：]", asked)
    if parts[0].strip() or parts[1::2][:2] != ["Human", "Assistant"]:
        return [Message("user", asked)]
    turns = [
        Message("user" if who == "Human" else "assistant", text.strip())
        for who, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    # The answer that follows belongs to the last, empty `Assistant:`.
    return turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns


def _talk(
    messages: Sequence[Message],
    record: Record,
    place: Place,
    reading: Reading,
    note: Mapping[str, str] | None = None,
) -> Talk:
    try:
        check_turns(messages)
    except TemplateError as error:
        raise Malformed(str(error)) from None
    if messages[-1].role != "assistant":
        raise Malformed("the last message has no answer")
    if not any(message.content.strip() for message in messages if message.role == "assistant"):
        raise Malformed("the answer is empty")
    said = next((record[key] for key in ("language", "lang") if record.get(key)), None)
    language = language_of(said) if isinstance(said, str) else None
    if language is None and reading.languages:
        language = reading.languages[0]
    return Talk(tuple(messages), place, language, _id(record, "id", "conversation_id"), note or {})


# Questions


def _is_knowledge(record: Record) -> bool:
    return {"question", "options"} <= record.keys()


def _knowledge(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    options = record.get("options") or []
    if not isinstance(options, list):
        raise Malformed("'options' is no list")
    passage, question = _optional(record, "passage"), _text(record, "question")
    text = "\n".join(part for part in (passage, question, *map(str, options)) if part)
    yield Question((text,), place, _id(record))


def _is_questions(record: Record) -> bool:
    return "question_id" in record and bool({"text", "turns"} & record.keys())


def _questions(record: Record, place: Place, reading: Reading) -> Iterator[AnyRow]:
    turns = record.get("turns", record.get("text"))
    turns = [turns] if isinstance(turns, str) else turns
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise Malformed("'text' is neither a question nor a list of them")
    yield Question(tuple(turns), place, _id(record, "question_id"))


FORMS: dict[str, Form] = {
    "messages": Form("conversations", _is_messages, _messages),
    "sharegpt": Form("conversations", _is_sharegpt, _messages),
    "translation": Form("pairs", _is_translation, _translation),
    "constraints": Form("pairs", _is_constraints, _constraints),
    "instances": Form("conversations", _is_instances, _instances),
    "knowledge": Form("questions", _is_knowledge, _knowledge),
    "alpaca": Form("conversations", _is_alpaca, _alpaca),
    "questions": Form("questions", _is_questions, _questions),
    "columns": Form("pairs", _is_columns, _columns),
}
"""In the order in which they are tried."""
