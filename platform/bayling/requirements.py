"""What a turn asked for, as requirements that a machine can check.

The data stage attaches them to user turns and drops a conversation whose own answer fails
one; the evaluate stage checks a model's answers with the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bayling.languages import in_script


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


CHECKERS: dict[str, Callable[[tuple[str, ...], str, str | None], bool]] = {
    "script": _script,  # the answer is in the script of the language named
    "contains": _contains,  # every value occurs in it verbatim
    "lacks": _lacks,  # no value occurs in it, and it is not empty
    "shorter": _shorter,  # it has fewer characters than the assistant's previous answer
    "changed": _changed,  # it differs from the assistant's previous answer
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
