"""Whether live translations are in the language that was asked for."""

from __future__ import annotations

from bayling.languages import in_script
from bayling.serve.observed import Observation

_ANSWERS = 4
"""Of one request, so many are looked at,"""
_CHARACTERS = 400
"""and so much of each: a request costs a few hundred microseconds at most."""


def off_target(text: str, target: str) -> bool | None:
    """Whether a text is in another language than `target`; None where nobody can tell.

    Told by its script: a wrong language in the right script passes.
    """
    if not any(character.isalpha() for character in text):
        return None
    return not in_script(text, target)


def judge(observation: Observation, text: str, target: str | None) -> None:
    """Look at a translation, if enough of its request's were not looked at yet, and note down
    what it is.

    Args:
        target: the language that was asked for; without one it is not judged.
    """
    if target is None or observation.judged >= _ANSWERS:
        return
    verdict = off_target(text[:_CHARACTERS], target)
    if verdict is not None:
        observation.judged += 1
        observation.off_target += verdict
