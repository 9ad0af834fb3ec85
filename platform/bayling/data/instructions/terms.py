"""Words of a sentence that really correspond to words of its translation.

They come from glossaries: the data's own, and CLDR, which has the names of countries, languages,
months and days of the week in every language. (Of FLORES-101's sentences in English, Chinese,
German, French, Swahili and Hindi, 10 to 15 % hold one, in whichever direction.) A term counts where
it stands as whole words on both sides, once on each; in scripts without spaces, as it is. What is
shorter than a word never counts: the constraints that BayLing was published with are fragments,
such as 餐可能.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from babel import dates

from bayling.data.cldr import tidy
from bayling.languages import has_words, locale_of, script_of

NO_SPACES = ("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
SHORTEST = {"Hans": 2, "Hant": 2, "Jpan": 2, "Kore": 2}
_LETTERS = 3
"""Fewer letters are a term only in scripts of `SHORTEST`."""

Term = tuple[str, str]


def terms_of(
    source: str, target: str, source_lang: str, target_lang: str, given: Iterable[Term] = ()
) -> list[Term]:
    """Terms of a source and what they are called in its translation, as they stand there.

    Args:
        given: entries of the data's own glossary, which come first.
    """
    found: list[Term] = []
    for one, other in [*given, *_in_cldr(source, source_lang, target_lang)]:
        here, there = _stands(one, source, source_lang), _stands(other, target, target_lang)
        if here and there and not any(_overlap(here, there, known) for known in found):
            found.append((here, there))
    return found


def _overlap(source: str, target: str, known: Term) -> bool:
    return source in known[0] or known[0] in source or target in known[1] or known[1] in target


def _stands(term: str, text: str, language: str) -> str | None:
    """The term as the text writes it, if it is there exactly once."""
    script = script_of(language)
    if len(term) < SHORTEST.get(script, _LETTERS):
        return None
    found = list(_pattern(term, script in NO_SPACES).finditer(text))
    if len(found) != 1 or (script not in NO_SPACES and _within_a_word(found[0], text)):
        return None
    return found[0][0]


def _within_a_word(found: re.Match[str], text: str) -> bool:
    """Whether a mark stands beside it: Hindi's vowels are, and no letters to `re`."""
    beside = text[: found.start()][-1:] + text[found.end() :][:1]
    return any(unicodedata.category(character)[0] == "M" for character in beside)


@lru_cache(maxsize=65536)
def _pattern(term: str, no_spaces: bool) -> re.Pattern[str]:
    escaped = re.escape(term)
    if no_spaces:
        return re.compile(escaped)
    return re.compile(rf"(?<!\w){escaped}(?!\w)", re.IGNORECASE)


def _in_cldr(source: str, source_lang: str, target_lang: str) -> list[Term]:
    """The entries of CLDR's glossary whose term is in the source, by their place in it."""
    by_name, pattern = _glossary(source_lang, target_lang)
    return [(found, by_name[found.casefold()]) for found in pattern.findall(source)]


@lru_cache(maxsize=512)
def _glossary(source_lang: str, target_lang: str) -> tuple[dict[str, str], re.Pattern[str]]:
    """Names in one language, in lower case → in the other; and what finds them."""
    names: dict[str, str] = {}
    for key, name in _names(source_lang).items():
        other = _names(target_lang).get(key)
        if other and name != other:
            names.setdefault(name.casefold(), other)
    script = script_of(source_lang)
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    if script in NO_SPACES:
        return names, re.compile(longest_first or r"(?!)")
    return names, re.compile(rf"(?<!\w)(?:{longest_first or '(?!)'})(?!\w)", re.IGNORECASE)


@lru_cache(maxsize=256)
def _names(language: str) -> dict[tuple[str, str], str]:
    """CLDR's names of things in a language, by what they are."""
    if not has_words(language):
        return {}
    locale = locale_of(language)
    shortest = SHORTEST.get(script_of(language), _LETTERS)
    found = {("territory", code): name for code, name in locale.territories.items()}
    found |= {("language", code): name for code, name in locale.languages.items()}
    for kind, named in (
        ("month", dates.get_month_names("wide", context="stand-alone", locale=locale)),
        ("day", dates.get_day_names("wide", context="stand-alone", locale=locale)),
    ):
        found |= {(kind, str(number)): name for number, name in named.items()}
    return {
        key: tidy(name)
        for key, name in found.items()
        if len(name) >= shortest and not any(map(str.isdigit, name)) and "(" not in name
    }
