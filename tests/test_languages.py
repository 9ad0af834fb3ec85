from __future__ import annotations

import pytest

from bayling import languages
from bayling.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("de", "de"),
        ("DE", "de"),
        (" zh ", "zh"),
        ("deu", "de"),
        ("swh", "sw"),
        ("cmn", "zh"),
        ("zh-Hant", "zh-Hant"),
        ("zh_TW", "zh-Hant-TW"),
        ("zho_simpl", "zh"),
        ("zho_trad", "zh-Hant"),
        ("swh_Latn", "sw"),
        ("zho_Hans", "zh"),
        ("sr-Cyrl-RS", "sr-Cyrl-RS"),
        ("quy_Latn", "qu"),
        ("pbt_Arab", "ps"),
        ("prs", "fa-AF"),
    ],
)
def test_codes_of_every_spelling_become_bcp47_tags(code: str, tag: str) -> None:
    assert languages.parse(code) == tag


def test_every_known_language_can_be_named_by_its_own_subtag() -> None:
    assert len(languages.known()) > 100
    for subtag in languages.known():
        assert languages.parse(subtag).split("-")[0] in languages.known()


def test_an_unknown_language_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(UserError, match=r"knows no language 'swc'; near it: sw\b"):
        languages.parse("swc")


def test_a_part_that_fits_no_language_tag_is_refused_with_the_tag_without_it() -> None:
    with pytest.raises(UserError, match="try 'de', without the part after it"):
        languages.parse("de-nonsense-here")


@pytest.mark.parametrize(
    ("tag", "script"),
    [
        ("en", "Latn"),
        ("zh", "Hans"),
        ("zh-TW", "Hant"),
        ("zh-Hant", "Hant"),
        ("ru", "Cyrl"),
        ("ar", "Arab"),
        ("hi", "Deva"),
        ("ja", "Jpan"),
        ("ko", "Kore"),
        ("sr-Latn", "Latn"),
        ("sr", "Cyrl"),
    ],
)
def test_the_script_is_the_one_a_language_is_usually_written_in(tag: str, script: str) -> None:
    assert languages.script_of(tag) == script


@pytest.mark.parametrize(
    ("tag", "in_language", "name"),
    [
        ("de", "en", "German"),
        ("de", "zh", "德语"),
        ("zh", "de", "Chinesisch"),
        ("sw", "zh", "斯瓦希里语"),
        ("ar", "ar", "العربية"),
    ],
)
def test_a_language_has_its_name_in_another(tag: str, in_language: str, name: str) -> None:
    assert languages.name_of(tag, in_language) == name


def test_every_known_language_has_a_name_in_english_and_in_chinese() -> None:
    for tag in languages.known():
        assert languages.name_of(tag, "en")
        assert languages.name_of(tag, "zh")


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Der 21. März", "de"),
        ("21 марта", "ru"),
        ("二〇二四年三月", "zh"),
        ("२१ मार्च", "hi"),
        ("٢١ مارس", "ar"),
        ("21日は木曜日です", "ja"),
        ("木曜日", "ja"),
        ("目曜日 목요일", "ko"),
        ("EUR 24 по курсу", "ru"),  # most of the letters
        ("12:30", "ru"),
        ("24 €", "hi"),
    ],
)
def test_a_text_is_in_the_script_of_its_language(text: str, tag: str) -> None:
    assert languages.in_script(text, tag)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("21 March", "ru"),
        ("21 марта", "de"),
        ("木曜日", "ru"),
        ("in 5 days", "zh"),
        ("ひらがな", "zh"),
        ("नमस्ते", "ar"),
        ("", "en"),
        (" \n", "en"),
    ],
)
def test_a_text_in_another_script_or_without_any_is_not(text: str, tag: str) -> None:
    assert not languages.in_script(text, tag)


def test_letters_are_counted_and_digits_punctuation_and_marks_are_not() -> None:
    assert languages.letters_in_script("21. März, день", "de") == (4, 8)
    assert languages.letters_in_script("नमस्ते 5", "hi") == (4, 4)
