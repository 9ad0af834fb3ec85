"""Words that tell two translations apart are words, and none of them is in the other."""

from __future__ import annotations

import pytest

from bayling.data.instructions.terms import Term
from bayling.data.instructions.wording import choices, tokens_of_register

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("language", "text", "other", "found"),
    [
        ("en", "He bought a new car there.", "He purchased a new automobile there.", ["bought"]),
        ("en", "He was a well-known author.", "He was a famous author.", ["well-known"]),
        # Another form of a word, a part of one, and one in another case are the same word.
        ("de", "Alle haben lange gekämpft.", "Alle kämpften lange.", ["gekämpft", "haben"]),
        ("de", "Wir lernten es schnell.", "Wir lernen es schnell.", []),
        ("en", "It was a house.", "It was a warehouse.", []),
        ("en", "They were HAPPY then.", "They were happy then.", []),
        # The first word may be capital for that reason only; numbers are not words.
        ("de", "Gestern kam er. Heute ging er 1998 fort.", "Er kam und ging.", []),
        ("fr", "Je l’appellerai d'ailleurs.", "Je vous appelle.", []),
        ("hi", "बच्चे घर के पीछे बगीचे में हैं।", "बच्चे घर के पीछे बाग़ में हैं।", ["बगीचे"]),
        ("zh", "他买了一辆新汽车。", "他买了一辆新车。", []),
        ("ja", "新しい車を買いました。", "新しい自動車を買った。", []),
    ],
)
def test_words_that_somebody_would_name(
    language: str, text: str, other: str, found: list[str]
) -> None:
    assert choices(text, other, language, []) == found


def test_without_spaces_only_terms_are_words() -> None:
    terms: list[Term] = [("United States", "美国"), ("Germany", "德国")]
    assert choices("美国和德国", "美利坚合众国和德国", "zh", terms) == ["美国"]


def test_what_shows_a_register_is_short() -> None:
    formal, informal = "Haben Sie Ihren Schlüssel?", "Hast du deinen Schlüssel?"
    assert tokens_of_register(formal, informal, "de") == ["Sie", "Ihren"]
    assert tokens_of_register(informal, formal, "de") == ["du", "deinen"]
    assert tokens_of_register("您好。", "你好。", "zh-Hant") == ["您"]
    assert tokens_of_register("行きます。", "行く。", "ja") == []
