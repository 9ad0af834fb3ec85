"""Each step drops what it is for, says what it found, and leaves the rest."""

from __future__ import annotations

import pytest

from bayling.data.cleaning.config import CleaningConfig
from bayling.data.cleaning.contamination import TestTexts
from bayling.data.cleaning.steps import CLEANERS, Batch, clean
from bayling.data.cleaning.text import normalise
from bayling.errors import UserError

pytestmark = pytest.mark.unit

GOOD = [
    (
        "The committee will meet again next week.",
        "Der Ausschuss tritt nächste Woche wieder zusammen.",
    ),
    ("She bought bread at the market.", "Sie kaufte auf dem Markt Brot."),
    ("See <b>page 4</b> of https://example.org.", "Siehe <b>Seite 4</b> von https://example.org."),
    ("Yes", "Ja"),
]


def batch(*pairs: tuple[str, str], languages: tuple[str, str] = ("en", "de")) -> Batch:
    return Batch(*languages, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


@pytest.mark.parametrize(
    ("step", "pair", "found"),
    [
        ("empty", ("", "Da ist nichts."), "the source is empty"),
        ("empty", ("Nothing is there.", "12 – 34"), "the target has no letter"),
        ("identical", ("Berlin Marathon", "berlin marathon"), "both sides are the same"),
        ("length", ("word " * 500, "Wort " * 300), "2,500 characters are more than 2,000"),
        (
            "ratio",
            ("He said that he would come to the meeting on Monday morning.", "Er sagte das."),
            "60 and 13 characters: 5.3 times what is usual",
        ),
        (
            "markup",
            ("Click <a href='x'>here</a> to go on.", "Klicken Sie hier, um weiterzugehen."),
            "markup on one side only: <a href='x'>",
        ),
        (
            "markup",
            ("Fish &amp; chips for all", "Fisch und Fritten für alle"),
            "markup on one side",
        ),
        (
            "markup",
            ("More at https://example.org today", "Mehr davon gibt es dort heute"),
            "addresses on one side only: https://example.org",
        ),
        (
            "script",
            ("The weather is fine today.", "Сегодня хорошая погода."),
            "0 of 20 letters are in the script of German",
        ),
        (
            "language",
            ("The weather is fine and we go out.", "Il fait beau aujourd'hui et nous sortons."),
            "looks like French",
        ),
    ],
)
def test_a_step_drops_what_it_is_for(step: str, pair: tuple[str, str], found: str) -> None:
    kept, dropped = clean(batch(*GOOD[:2], pair, *GOOD[2:]), CleaningConfig(), CLEANERS)
    assert kept == [0, 1, 3, 4]
    [one] = dropped
    assert (one.index, one.step) == (2, step)
    assert found in one.found
    kept, _ = clean(batch(pair), CleaningConfig(skip=list(CLEANERS)), CLEANERS)
    assert kept == [0], "a step that is skipped drops nothing"


def test_lengths_are_compared_as_is_usual_for_the_languages() -> None:
    """A third of the characters is what Chinese needs; for German it is a part of a sentence."""
    english = "The committee of the city decided yesterday to build three new schools."
    chinese = "市委员会昨天决定新建三所学校。"
    part = "Drei neue Schulen"
    config = CleaningConfig(max_ratio=2.5)
    assert clean(batch((english, chinese), languages=("en", "zh")), config, CLEANERS)[0] == [0]
    _, [dropped] = clean(batch((english, part)), config, CLEANERS)
    assert dropped.step == "ratio"


def test_a_language_that_the_detector_does_not_know_is_judged_by_its_script() -> None:
    pairs = [("The weather is fine.", "ཨ་ཨ་ལ་ན་ཏ་པ་ས་མ"), ("The weather is fine.", "Das Wetter")]
    kept, [dropped] = clean(batch(*pairs, languages=("en", "dz")), CleaningConfig(), CLEANERS)
    assert (kept, dropped.step) == ([0], "script")


def test_text_is_kept_in_one_spelling() -> None:
    assert normalise("e\u0301te\u0301\u00a0 \tbon\x07\n") == "été bon"
    assert normalise("\ufeffzero\u200bwidth \u202eleft\u202c") == "zerowidth left"
    assert normalise("می\u200cخواهم") == "می\u200cخواهم", "Persian is written with non-joiners"
    assert normalise("你好，世界！（Ａ）") == "你好，世界！（Ａ）"
    assert normalise("half \ud83d of a pair") == "half of a pair"


TEST_SET = [
    "The quick brown fox jumps over the lazy dog and runs away.",
    "敏捷的棕色狐狸跳过了那只懒惰的狗然后跑开了",
    "Good morning!",
]


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("the quick brown fox jumps over the LAZY dog - and runs away", True),
        ("Yesterday the quick brown fox jumps over the lazy dog and sleeps.", True),
        ("The quick brown fox jumps over a lazy dog and runs away.", False),
        ("他说：敏捷的棕色狐狸跳过了那只狗。", True),
        ("他说有9只敏捷的棕色狐狸跳过了那只狗。", True),
        ("good morning", True),
        ("Good morning to you all", False),
        ("", False),
    ],
)
def test_what_a_test_set_holds_is_not_trained_on(text: str, shared: bool) -> None:
    tests = TestTexts.of(TEST_SET, 9)
    step = {"contaminated": tests.step()}
    for pair in (("Something else.", text), (text, "Something else.")):
        kept, dropped = clean(batch(pair), CleaningConfig(), step)
        assert (not kept) is shared
        assert not shared or "shares words with a test set" in dropped[0].found


def test_a_step_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match="no step 'markups': did you mean 'markup'"):
        CleaningConfig(skip=["markups"]).validate()
