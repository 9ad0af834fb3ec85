"""The words in which translations are asked for.

A model that has met one form only answers to that one. There are forms in English, in Chinese, in
the languages most instructions come in, and two that need no grammar: with the languages' own names
for themselves they serve as a prompt in the source or the target language wherever CLDR has a name.
The first of English and of Chinese are BayLing's own (github.com/ictnlp/BayLing).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from bayling.languages import name_of
from bayling.prompts import TRANSLATE

FORMS: dict[str, tuple[str, ...]] = {
    "en": (
        TRANSLATE["en"],
        "Translate into {target}: {source}",
        "Please translate the following sentence into {target}.\n{source}",
        "What is this in {target}?\n{source}",
        "How do you say this in {target}: {source}",
        "Translate this {from_language} sentence into {target}.\n\n{source}",
        "{source}\n\nTranslate the sentence above into {target}.",
        "I need this in {target}: {source}",
        "Render this text in {target}, without leaving anything out:\n{source}",
        "{from_language} to {target}: {source}",
    ),
    "zh": (
        TRANSLATE["zh"],
        "请把下面的句子翻译成{target}：{source}",
        "将这句话译为{target}：\n{source}",
        "这句话用{target}怎么说？\n{source}",
        "{source}\n\n请把上面的句子翻译成{target}。",
        "请将以下{from_language}句子翻译成{target}。\n{source}",
        "翻译成{target}：{source}",
        "请用{target}表达：{source}",
    ),
    "de": (
        "Übersetze den folgenden Satz. Zielsprache: {target}\n{source}",
        "Wie heißt das auf {target}? {source}",
    ),
    "fr": (
        "Traduis la phrase suivante. Langue cible : {target}\n{source}",
        "Comment dit-on en {target} : {source}",
    ),
    "es": (
        "Traduce la siguiente frase. Idioma de destino: {target}\n{source}",
        "¿Cómo se dice en {target}? {source}",
    ),
    "pt": ("Traduza a frase a seguir. Idioma de destino: {target}\n{source}",),
    "it": ("Traduci la frase seguente. Lingua di destinazione: {target}\n{source}",),
    "nl": ("Vertaal de volgende zin. Doeltaal: {target}\n{source}",),
    "sv": ("Översätt följande mening. Målspråk: {target}\n{source}",),
    "pl": ("Przetłumacz poniższe zdanie. Język docelowy: {target}\n{source}",),
    "cs": ("Přelož následující větu. Cílový jazyk: {target}\n{source}",),
    "ru": (
        "Переведи следующее предложение. Язык перевода: {target}\n{source}",
        "Язык перевода: {target}. Текст: {source}",
    ),
    "uk": ("Переклади наступне речення. Мова перекладу: {target}\n{source}",),
    "tr": ("Aşağıdaki cümleyi çevir. Hedef dil: {target}\n{source}",),
    "id": ("Terjemahkan kalimat berikut. Bahasa tujuan: {target}\n{source}",),
    "vi": ("Hãy dịch câu sau. Ngôn ngữ đích: {target}\n{source}",),
    "ja": (
        "次の文を{target}に翻訳してください。\n{source}",
        "{target}で何と言いますか：{source}",
    ),
    "ko": ("다음 문장을 번역해 주세요. 목표 언어: {target}\n{source}",),
    "ar": ("ترجم الجملة التالية. اللغة المستهدفة: {target}\n{source}",),
    "hi": ("निम्नलिखित वाक्य का अनुवाद करें। लक्ष्य भाषा: {target}\n{source}",),
    "sw": ("Tafsiri sentensi ifuatayo. Lugha lengwa: {target}\n{source}",),
}
"""Language of the prompt → forms, of which `from_language` is the source's name."""

NEUTRAL = ("{from_language} → {target}:\n{source}", "{from_language}: {source}\n{target}:")
"""For any language: the names are all there is to say in it."""


@dataclass(frozen=True)
class PromptShares:
    """What part of the prompts is in which language."""

    english: float
    chinese: float
    source: float
    target: float

    @staticmethod
    def of(chinese: float, source: float, target: float) -> PromptShares:
        """The rest is English."""
        return PromptShares(max(0.0, 1 - chinese - source - target), chinese, source, target)


def prompt_language(
    rng: random.Random, shares: PromptShares, source_lang: str, target_lang: str
) -> str:
    """The language that a prompt is in, a BCP-47 tag."""
    names = ("en", "zh", source_lang, target_lang)
    weights = (shares.english, shares.chinese, shares.source, shares.target)
    return rng.choices(names, weights)[0]


def ask(rng: random.Random, source: str, source_lang: str, target_lang: str, language: str) -> str:
    """One of the forms in a language, filled in."""
    forms = FORMS.get(language.split("-")[0]) if language != "zh-Hant" else None
    form = rng.choice(forms or NEUTRAL)
    # One by one: a sentence may hold braces.
    filled = form.replace("{target}", name_of(target_lang, language))
    filled = filled.replace("{from_language}", name_of(source_lang, language))
    return filled.replace("{source}", source)
