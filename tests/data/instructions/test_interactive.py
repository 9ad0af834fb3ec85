"""Conversations that go on: every answer is right, and checked; who copies does not pass."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from bayling.data.instructions import interactive
from bayling.data.instructions.building import Dropped
from bayling.data.instructions.forms import PromptShares
from bayling.data.instructions.refinements import KINDS, WORDS
from bayling.data.tables import Pair
from bayling.requirements import Requirement, all_satisfied, satisfied
from bayling.templates import Conversation

pytestmark = pytest.mark.unit

PAIR = Pair(
    "en",
    "de",
    "In 1998 the delegates of India met. They talked for 12 hours about Sweden.",
    "Im Jahr 1998 trafen sich die Abgeordneten von Indien. Sie sprachen 12 Stunden über Schweden.",
    "opus",
    "x.en",
    1,
)
MORE = Pair("en", "de", "Nobody left early.", "Niemand ging früher.", "opus", "x.en", 2)
ENGLISH = PromptShares(1, 0, 0, 0)


def many(pair: Pair = PAIR, shares: PromptShares = ENGLISH) -> list[Conversation]:
    made = []
    for seed in range(400):
        try:
            made.append(interactive.build(pair, MORE, random.Random(seed), shares, 6))
        except Dropped:
            continue
    return made


def kind_of(prompt: str) -> str:
    """Which kind of refinement a prompt asks for."""
    for words in WORDS.values():
        for kind, forms in words.items():
            for form in forms:
                before, _, rest = form.partition("{")
                after = rest.rpartition("}")[2] if rest else ""
                if rest and prompt.startswith(before) and prompt.endswith(after):
                    return kind
                if prompt == form:
                    return kind
    raise AssertionError(prompt)


def test_there_are_at_least_eight_kinds_in_two_languages_and_all_occur() -> None:
    assert len(KINDS) >= 8
    for language, name in (("en", ENGLISH), ("zh", PromptShares(0, 1, 0, 0))):
        made = many(shares=name)
        turns = Counter(kind_of(turn.content) for one in made for turn in one.messages[2::2])
        assert set(turns) == set(WORDS[language]) == set(KINDS)
        assert {len(one.messages) // 2 for one in made} == {2, 3, 4, 5, 6}


def test_every_answer_meets_its_requirements_and_the_one_before_does_not() -> None:
    for one in many():
        previous = None
        for user, assistant in zip(one.messages[::2], one.messages[1::2], strict=True):
            assert user.requirements
            assert all_satisfied(user.requirements, assistant.content, previous)
            if previous is not None:
                assert not all_satisfied(user.requirements, previous, previous)
                assert not all_satisfied(user.requirements, "", previous)
            previous = assistant.content


def test_earlier_wishes_stand() -> None:
    """After bold and quotation marks, another number changes the number only."""
    seen = 0
    for one in many():
        kinds = [kind_of(turn.content) for turn in one.messages[2::2]]
        if kinds[:2] != ["bold", "number"]:
            continue
        seen += 1
        first, bold, number = (turn.content for turn in one.messages[1:6:2])
        assert bold.replace("**", "") == first == PAIR.target
        assert number.count("**") == 2
        [contains] = [
            item.values[0]
            for item in one.messages[4].requirements
            if item.kind == "contains" and item.values[0].isdigit()
        ]
        old = "1998" if "1998" not in number else "12"
        assert number == bold.replace(old, contains)
    assert seen > 3


def test_a_number_changes_on_both_sides() -> None:
    """What comes back into English has the number that was asked for last."""
    seen = 0
    for one in many():
        kinds = [kind_of(turn.content) for turn in one.messages[2::2]]
        if kinds[-1] == "back" and "number" in kinds and "first" not in kinds:
            wanted = [
                item.values[0]
                for turn in one.messages[2:-2:2]
                for item in turn.requirements
                if item.kind == "contains" and item.values[0].isdigit()
            ][-1]
            assert wanted in one.messages[-1].content
            seen += 1
    assert seen > 3


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("It opens at 10:30.", "Es öffnet um 10:30 Uhr."),
        ("It costs 3.50 now.", "Es kostet jetzt 3,50."),
        ("On 2021-05-12 it rained.", "Am 2021-05-12 regnete es."),
        ("There were 5 of 5.", "Da waren 5 von 5."),
        ("There were 5 cats.", "Da waren fünf Katzen."),
    ],
)
def test_parts_of_times_and_dates_are_no_numbers(source: str, target: str) -> None:
    pair = Pair("en", "de", source, target, "opus", "x", 1)
    kinds = {kind_of(turn.content) for one in many(pair) for turn in one.messages[2::2]}
    assert kinds and "number" not in kinds


@pytest.mark.parametrize(
    ("requirement", "right", "wrong"),
    [
        (Requirement("json", ("translation",)), '{"translation": "Ja"}', '{"translation": ""}'),
        (Requirement("json", ("translation",)), '{"translation": "Ja"}', '{"text": "Ja"}'),
        (Requirement("json", ("translation",)), '{"translation": "Ja"}', "translation: Ja"),
        (Requirement("json", ("translation",)), '{"translation": "Ja"}', '["translation"]'),
        (Requirement("wrapped", ("“", "”")), "“Ja”", "Ja"),
        (Requirement("wrapped", ("“", "”")), "“Ja”", "“”"),
        (Requirement("wrapped", ("“", "”")), "“Ja”", "“Ja"),
        (Requirement("extends", ("Es regnet.",)), "Es regnet. Ja.", "Es regnet."),
        (Requirement("extends", ("Es regnet.",)), "Es regnet. Ja.", "Ja. Es regnet."),
        (
            Requirement("resembles", ("The weather is fine today.",)),
            "Today the weather is nice.",
            "Nobody came to the party.",
        ),
        (Requirement("resembles", ("天气很好。",)), "天气很好", "他没有来。"),
    ],
)
def test_a_checker_knows_what_it_must_reject(
    requirement: Requirement, right: str, wrong: str
) -> None:
    assert satisfied(requirement, right, None)
    assert not satisfied(requirement, wrong, None)
    assert not satisfied(requirement, "", None)


def test_answers_as_json_can_be_read_whatever_is_in_them() -> None:
    pair = Pair("en", "de", 'He said "no" \\ twice.', 'Er sagte "nein" \\ zweimal.', "o", "x", 1)
    answers = [
        turn.content
        for one in many(pair)
        for turn in one.messages[1::2]
        if turn.content.startswith("{")
    ]
    assert answers
    assert {json.loads(answer)["translation"] for answer in answers} >= {pair.target}
