"""BayLing's own words for a translation, and for words that it must include."""

from __future__ import annotations

import pytest

from bayling.prompts import include_prompt, sentence_of, translate_prompt

pytestmark = pytest.mark.unit


def test_a_constrained_translation_is_asked_for_as_the_published_evaluation_does() -> None:
    prompt = translate_prompt("The heart is fine.", "de", "en")
    assert prompt == "Provide the German translation for this sentence: The heart is fine."
    assert include_prompt(["Herz", "gut"], "en") == "Make sure to include these words: Herz, gut"
    assert translate_prompt("Hi", "de", "zh") == "提供这句话的德语翻译：Hi"
    assert include_prompt(["Herz", "gut"], "zh") == "确保包含这些词：Herz, gut"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("sentence", ["5 days", "a: b", "one line\nand another", "翻译：这"])
def test_the_sentence_comes_out_of_its_prompt(language: str, sentence: str) -> None:
    assert sentence_of(translate_prompt(sentence, "zh-Hant", language)) == sentence


def test_any_other_turn_is_its_own_subject() -> None:
    assert sentence_of("Make it shorter: much.") == "Make it shorter: much."
