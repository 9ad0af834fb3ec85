"""Whether live translations are in the language that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

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


def judge(observation: Observation, texts: Sequence[str], target: str | None) -> None:
    """Look at the first translations of a request and note down what they are.

    Args:
        target: the language that was asked for; without one nothing is judged.
    """
    if target is None:
        return
    for text in texts[:_ANSWERS]:
        verdict = off_target(text[:_CHARACTERS], target)
        if verdict is not None:
            observation.judged += 1
            observation.off_target += verdict
