from __future__ import annotations

import pytest

from bayling.evaluate.outputs import copied, empty, looping, no_letter_of_script, off_target

pytestmark = pytest.mark.unit

OTHERS = {"en": "in 5 days", "sw": "baada ya siku 5"}
GERMAN = "Das Wetter war gestern den ganzen Tag über sehr schön."


def off(target: str, output: str, language: str = "de", **others: str) -> bool:
    [verdict] = off_target([output], [target], language, [others] if others else None)
    return verdict


@pytest.mark.parametrize(
    ("target", "output", "target_lang"),
    [
        ("in 5 Tagen", "", "de"),
        ("in 5 Tagen", "  \n", "de"),
        ("in 5 Tagen", "через 5 дней", "de"),
        ("через 5 дней", "in 5 days", "ru"),
        ("in 5 Tagen", "in 5 days", "de"),  # same script, another language
        ("in 5 Tagen", "baada ya siku 5", "de"),
        ("in 5 Tagen", "In 6 days", "de"),  # wrong, and nearer to English
    ],
)
def test_an_answer_in_another_language_is_off_target(
    target: str, output: str, target_lang: str
) -> None:
    assert off(target, output, target_lang, **OTHERS)


@pytest.mark.parametrize(
    ("target", "output"),
    [
        ("in 5 Tagen", "in 5 Tagen"),
        ("in 5 Tagen", "in 7 Tagen"),  # wrong, but German
        ("in 5 Tagen", "vor 5 Tagen"),
        ("in 5 Tagen", " in 5 Tagen\n"),
    ],
)
def test_an_answer_in_the_right_language_is_not_even_when_it_is_wrong(
    target: str, output: str
) -> None:
    assert not off(target, output, **OTHERS)


def test_a_sentence_that_is_the_same_in_two_languages_is_not_off_target() -> None:
    assert not off("24 km", "24 km", sw="24 km")
    assert not off("24 km", "25 km", sw="24 km")


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ("Gestern schien von früh bis spät die Sonne.", False),
        ("The weather was very nice all day long yesterday.", True),
        ("Il faisait très beau hier toute la journée.", True),
        ("The weather", False),  # too short to be sure
        ("Вчера весь день была прекрасная погода.", True),
    ],
)
def test_the_language_of_whole_sentences_is_detected(output: str, verdict: bool) -> None:
    assert off(GERMAN, output) is verdict


def test_what_the_reference_does_too_is_no_fault() -> None:
    name = "Johann Wolfgang von Goethe"
    assert copied([name, "in 5 days"], [name, "in 5 days"], [name, "in 5 Tagen"]) == [False, True]
    dots = "." * 60
    assert looping([dots, "ja " * 20], [dots, "ja"]) == [False, True]


def test_a_loop_is_one_thing_over_and_over() -> None:
    texts = [
        "und " * 30,
        "I am sorry. I am sorry. I am sorry. I am sorry. I am sorry. I am sorry.",
        "哈哈哈哈哈哈",  # a laugh
        "1,000,000,000,000 km",
        "He said that that is that.",
        GERMAN,
    ]
    assert looping(texts, [""] * 6) == [True, True, False, False, False, False]


def test_copies_are_told_without_spaces_and_case() -> None:
    assert copied(["IN 5  Days "], ["in 5 days"], ["in 5 Tagen"]) == [True]


def test_nothing_is_empty_and_has_no_letter() -> None:
    assert empty(["", " \n", "x"]) == [True, True, False]
    assert no_letter_of_script(["in 5 days", "5 днів", "12:30"], "uk") == [True, False, True]
