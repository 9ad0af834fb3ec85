"""What a turn asked for, as requirements that a machine can check.

The data stage attaches them to user turns and drops a conversation whose own answer fails
one; the evaluate stage checks a model's answers with the same code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bayling.detection import detect
from bayling.languages import in_script

ALIKE = 0.4
"""What a translation back into the language of the source shares with it at least, and a revised
answer with the one before. Of different sentences of one language few share a quarter."""


@dataclass(frozen=True)
class Requirement:
    """One thing that an answer must satisfy. `kind` is a key of `CHECKERS`."""

    kind: str
    values: tuple[str, ...] = ()


def _script(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return all(in_script(answer, language) for language in values)


def _contains(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return all(value in answer for value in values)


def _lacks(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return bool(answer.strip()) and not any(value in answer for value in values)


def _shorter(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return previous is not None and 0 < len(answer.strip()) < len(previous.strip())


def _changed(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return bool(answer.strip()) and answer.strip() != (previous or "").strip()


def _json(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    try:
        made = json.loads(answer)
    except ValueError:
        return False
    if not isinstance(made, dict) or set(made) != set(values):
        return False
    return all(isinstance(value, str) and value.strip() for value in made.values())


def _wrapped(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    before, after = values
    inside = answer.strip().removeprefix(before).removesuffix(after)
    return bool(inside.strip()) and answer.strip() == before + inside + after


def _extends(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return all(
        answer.strip().startswith(value) and len(answer.strip()) > len(value) for value in values
    )


def _resembles(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    return all(_overlap(answer, value) >= ALIKE for value in values)


def _language(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    found = detect(answer, values)
    return found is not None and found.language == values[0]


def _revises(values: tuple[str, ...], answer: str, previous: str | None) -> bool:
    after, before = _formless(answer), _formless(previous or "")
    return bool(before) and before not in after and _overlap(after, before) >= ALIKE


def _formless(answer: str) -> str:
    """What an answer says, without quotation marks, bold and JSON: of a short one they are much."""
    try:
        made = json.loads(answer)
    except ValueError:
        made = None
    said = " ".join(map(str, made.values())) if isinstance(made, dict) else answer
    return said.replace("**", "").strip(" “”")


def _overlap(one: str, other: str) -> float:
    """The F1 of character trigrams, without case and spaces: 1 for the same text."""
    counts = [Counter(_trigrams(text)) for text in (one, other)]
    shared = sum((counts[0] & counts[1]).values())
    total = sum(counts[0].values()) + sum(counts[1].values())
    return 2 * shared / total if total else 0.0


def _trigrams(text: str) -> list[str]:
    plain = "".join(text.casefold().split())
    return [plain[first : first + 3] for first in range(max(1, len(plain) - 2))] if plain else []


CHECKERS: dict[str, Callable[[tuple[str, ...], str, str | None], bool]] = {
    "script": _script,  # the answer is in the script of the language named
    "contains": _contains,  # every value occurs in it verbatim
    "lacks": _lacks,  # no value occurs in it, and it is not empty
    "shorter": _shorter,  # it has fewer characters than the assistant's previous answer
    "changed": _changed,  # it differs from the assistant's previous answer
    "json": _json,  # it is a JSON object with just these keys, and a text for each
    "wrapped": _wrapped,  # the two values stand around it
    "extends": _extends,  # it begins with the value, and goes on
    "resembles": _resembles,  # it shares at least `ALIKE` of its character trigrams with the value
    "language": _language,  # of the languages named, it looks most like the first
    "revises": _revises,  # it shares as much with the answer before, but does not have it in whole
}


def satisfied(requirement: Requirement, answer: str, previous: str | None) -> bool:
    """Whether `answer` meets the requirement.

    Args:
        previous: the assistant's answer to the turn before; None in the first turn.

    Raises:
        KeyError: no checker of that kind.
    """
    return CHECKERS[requirement.kind](requirement.values, answer, previous)


def all_satisfied(requirements: Iterable[Requirement], answer: str, previous: str | None) -> bool:
    return all(satisfied(requirement, answer, previous) for requirement in requirements)
