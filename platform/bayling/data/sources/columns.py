"""Columns by their names: which is the source, which the target, which a text in what language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from bayling import languages
from bayling.errors import UserError

_NAMES = {
    "source": ("source", "src", "source_text", "src_text", "source_sentence", "sourcestring"),
    "target": (
        "target",
        "tgt",
        "trg",
        "target_text",
        "tgt_text",
        "target_sentence",
        "targetstring",
        "translation",
        "reference",
        "ref",
    ),
    "source_lang": ("source_lang", "src_lang", "source_language", "sourcelang", "lang1"),
    "target_lang": ("target_lang", "tgt_lang", "trg_lang", "target_language", "targetlang"),
    "register": ("register", "formality"),
    "id": ("id",),
}
# Columns that many corpora have, and that would be Indonesian, Norwegian and the like.
_NO_LANGUAGE = {"id", "no", "is", "to", "or", "as", "so", "src", "sc", "tok", "bak", "min", "war"}

# Also two languages, Breton and Twi among them, but seldom meant as such.
_REGIONAL = {"pt-br", "zh-tw", "fr-ca", "en-ca", "es-ar", "sr-me"}


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """Columns by role (`source`, `target`, `source_lang`, …) or by the language of their text.

    `en`, `zho_Hans`, `sentence_eng_Latn`, `text_de` and `German` name languages. Empty if there
    are neither a source and a target nor texts in two languages.
    """
    there = list(names)
    lower = {name.strip().lower(): name for name in reversed(there)}
    roles = {
        role: lower[known]
        for role, spellings in _NAMES.items()
        for known in reversed(spellings)
        if known in lower
    }
    texts = {}
    for name in there:
        tag = _column_language(name)
        if tag is not None and tag not in texts:
            texts[tag] = name
    others: dict[str, str] = {role: roles[role] for role in ("register", "id") if role in roles}
    if len(texts) >= 2:
        return {**texts, **others}
    return roles if {"source", "target"} <= roles.keys() else {}


@lru_cache(maxsize=4096)
def language_of(code: str) -> str | None:
    """The BCP-47 tag for a code; None where the Unicode CLDR does not know the language."""
    try:
        return languages.parse(code)
    except UserError:
        return None


@lru_cache(maxsize=4096)
def named_in(token: str) -> str | None:
    """The language that a part of a name stands for; not every word that could be a code does."""
    if token.lower() in _NO_LANGUAGE:
        return None
    # CLDR knows English as it is written in Germany; a file's name with `en-de` means both.
    return None if direction_in(token) else language_of(token)


def direction_in(name: str) -> tuple[str, str] | None:
    """The two languages in a name such as `valid.zh-en.json` or `eng_Latn-zho_Hans`."""
    code = r"[A-Za-z]{2,3}(?:_[A-Z][a-z]{3})?"
    for found in re.finditer(rf"(?<![A-Za-z])({code})[-_](?=({code})(?![A-Za-z]))", name):
        sides = (named_in(found[1]), named_in(found[2]))
        regional = f"{found[1]}-{found[2]}".replace("_", "-").lower() in _REGIONAL
        if sides[0] and sides[1] and sides[0] != sides[1] and not regional:
            return sides[0], sides[1]
    return None


@lru_cache(maxsize=4096)
def _column_language(name: str) -> str | None:
    bare = name.strip()
    for pattern in (r"(?:sentence|text)[_.-](.+)", r"(.+?)[_.-](?:sentence|text)"):
        if found := re.fullmatch(pattern, bare, re.IGNORECASE):
            bare = found[1]
    return named_in(bare) or _english_names().get(bare.lower())


@lru_cache(maxsize=1)
def _english_names() -> dict[str, str]:
    return {languages.name_of(tag).lower(): tag for tag in languages.known()}
