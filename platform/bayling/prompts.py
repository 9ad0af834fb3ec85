"""BayLing's instructions to translate, and to include words, in English and in Chinese."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bayling.languages import name_of

TRANSLATE = {
    "en": "Provide the {target} translation for this sentence: {source}",
    "zh": "提供这句话的{target}翻译：{source}",
}
"""Language of the instruction → the instruction; the languages are named in it too."""
INCLUDE = {
    "en": "Make sure to include these words: {words}",
    "zh": "确保包含这些词：{words}",
}
"""Language of the instruction → what makes a translation a constrained one, on a line below it.
In a conversation it is a turn of its own."""

_ASKED = [
    re.compile(re.escape(form).replace(r"\{target\}", ".+?").replace(r"\{source\}", "(.*)"), re.S)
    for form in TRANSLATE.values()
]


def translate_prompt(source: str, target_language: str, prompt_language: str) -> str:
    """The instruction to translate a sentence.

    Args:
        target_language: a BCP-47 tag.
        prompt_language: the language of the instruction, a key of `TRANSLATE`.
    """
    target = name_of(target_language, prompt_language)
    return TRANSLATE[prompt_language].format(target=target, source=source)


def include_prompt(words: Sequence[str], prompt_language: str) -> str:
    """The instruction to use these words, in the order given.

    Args:
        prompt_language: the language of the instruction, a key of `INCLUDE`.
    """
    return INCLUDE[prompt_language].format(words=", ".join(words))


def sentence_of(turn: str) -> str:
    """What a turn asks to have translated; the whole turn where it is no `translate_prompt`.

    What stands on lines below the sentence is taken for a part of it.
    """
    for asked in _ASKED:
        if match := asked.fullmatch(turn):
            return match[1]
    return turn
