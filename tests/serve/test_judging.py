"""Whether live translations are in the language that was asked for."""

from __future__ import annotations

import pytest

from bayling.serve.judging import judge, off_target
from bayling.serve.observed import Observation

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "target", "verdict"),
    [
        ("Guten Morgen", "de", False),
        ("Guten Morgen", "ru", True),
        ("Доброе утро", "ru", False),
        ("早上好", "zh", False),
        ("Good morning", "zh", True),
        ("2024-03-21 12:30", "zh", None),
        ("", "de", None),
    ],
)
def test_a_wrong_script_is_another_language_and_digits_are_in_none(
    text: str, target: str, verdict: bool | None
) -> None:
    assert off_target(text, target) is verdict


def test_a_list_of_texts_is_looked_at_in_part() -> None:
    observation = Observation()
    for text in ("Guten Morgen", "12:30", "Доброе утро", *["早上好"] * 97):
        judge(observation, text, "de")
    assert 2 <= observation.judged < 10
    assert observation.off_target == observation.judged - 1


def test_without_a_target_nothing_is_judged() -> None:
    observation = Observation()
    judge(observation, "Guten Morgen", None)
    assert observation.judged == 0
