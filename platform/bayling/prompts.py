"""BayLing's instructions to translate, in English and in Chinese."""

from __future__ import annotations

from bayling.languages import name_of

TRANSLATE = {
    "en": "Provide the {target} translation for this sentence: {source}",
    "zh": "提供这句话的{target}翻译：{source}",
}
"""Language of the instruction → the instruction; the languages are named in it too."""


def translate_prompt(source: str, target_language: str, prompt_language: str) -> str:
    """The instruction to translate a sentence.

    Args:
        target_language: a BCP-47 tag.
        prompt_language: the language of the instruction, a key of `TRANSLATE`.
    """
    target = name_of(target_language, prompt_language)
    return TRANSLATE[prompt_language].format(target=target, source=source)
