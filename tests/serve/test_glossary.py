"""Where a glossary term stands in a text, in scripts with and without spaces."""

from __future__ import annotations

import pytest

from bayling.serve.glossary import Term, occurring, terms_for, unused

pytestmark = pytest.mark.unit


def has(text: str, *phrases: str) -> list[str]:
    terms = [Term(phrase, "…") for phrase in phrases]
    return [term.term for term in occurring(terms, text)]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("Her heart is fine.", "heart"),
        ("HEART: fine", "heart"),
        ("(heart)", "Heart"),
        ("l’heure d’été", "heure"),
        ("Straße", "STRASSE"),
        ("ein\u00a0Glas   Wasser", "ein Glas Wasser"),  # NO-BREAK SPACE
        ("Ｈｅａｒｔ", "heart"),  # full width
        ("cafe\u0301", "café"),  # e and a combining accent
        ("他有心脏病。", "心脏"),
        ("東京タワーに行く", "タワー"),
        ("서울에서 만나요", "서울"),
        ("ผมรักกรุงเทพมหานคร", "กรุงเทพ"),
        ("我的iPhone手机", "iphone"),
        ("मेरा दिल ठीक है", "दिल"),
        ("القلب بخير", "القلب"),
        ("3月5日", "5日"),
    ],
)
def test_a_term_is_found_as_its_readers_would(text: str, phrase: str) -> None:
    assert has(text, phrase) == [phrase]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The hearth is warm.", "heart"),
        ("heart", "art"),
        ("15 km", "5 km"),
        ("दिलचस्प किताब", "दिल"),
        ("कि", "क"),  # a vowel sign belongs to its consonant
        ("сердечный", "сердеч"),
        ("", "heart"),
        ("Her heart is fine.", "Herz"),
    ],
)
def test_a_part_of_a_word_is_no_term(text: str, phrase: str) -> None:
    assert has(text, phrase) == []


def test_a_term_within_a_longer_one_counts_only_where_it_stands_alone() -> None:
    assert has("a heart attack", "heart", "heart attack") == ["heart attack"]
    assert has("a heart attack, and the heart", "heart", "heart attack") == [
        "heart",
        "heart attack",
    ]


def test_what_an_answer_lacks_is_told_in_the_order_of_the_glossary() -> None:
    terms = [Term("heart", "Herz"), Term("lung", "Lunge"), Term("liver", "Leber")]
    assert unused(terms, "Das HERZ ist gesund.") == terms[1:]
    assert unused(terms, "Herz, Lunge und Leber") == []
    assert unused(terms, "Herzen") == terms


def test_a_term_by_language_counts_for_the_languages_it_names() -> None:
    glossary = {"heart": {"de": "Herz", "zh": "心脏"}, "lung": "Lunge"}
    assert terms_for(glossary, "zh") == (Term("heart", "心脏"), Term("lung", "Lunge"))
    assert terms_for(glossary, "fr") == (Term("lung", "Lunge"),)
