"""Glossary terms: which of them a text has, and whether a translation uses what they ask for.

Where a script puts spaces between words, a term is found as whole words only, so that "art" is
not in "heart". Han, kana, Hangul (whose particles cling to the word), Thai, Lao, Khmer, Burmese
and Tibetan have no such boundary, and there a term is found anywhere. Case does not count, and
neither does how Unicode writes a character: NFKC makes full-width letters and no-break spaces
their plain forms.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_UNSPACED = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "KATAKANA-HIRAGANA",  # the mark of a long vowel
    "HANGUL",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)


@dataclass(frozen=True)
class Term:
    """A term of the source language, and what it is to be in the translation."""

    term: str
    translation: str


def occurring(terms: Sequence[Term], text: str) -> list[Term]:
    """The terms that a text has, in the order given.

    A term that occurs only as a part of longer ones does not count: where the glossary has
    "heart attack" and the text nothing else, "heart" is not asked for.
    """
    plain = _plain(text)
    taken = [False] * len(plain)
    found = set()
    for term in sorted(terms, key=lambda one: len(_plain(one.term)), reverse=True):
        for start, end in _places(_plain(term.term), plain):
            if not all(taken[start:end]):
                taken[start:end] = [True] * (end - start)
                found.add(term)
    return [term for term in terms if term in found]


def unused(terms: Sequence[Term], translation: str) -> list[Term]:
    """The terms whose translation is not in the text, in the order given."""
    plain = _plain(translation)
    return [term for term in terms if next(_places(_plain(term.translation), plain), None) is None]


def terms_for(
    glossary: Mapping[str, str | Mapping[str, str]], target: str | None
) -> tuple[Term, ...]:
    """The part of a request's glossary that is about one target language.

    A term whose translation is not given for the target says nothing about it.
    """
    found = []
    for term, translation in glossary.items():
        if isinstance(translation, str):
            found.append(Term(term, translation))
        elif target is not None and target in translation:
            found.append(Term(term, translation[target]))
    return tuple(found)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _places(phrase: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a phrase stands in a text as words of its own; both are plain."""
    start = text.find(phrase)
    while phrase and start >= 0:
        end = start + len(phrase)
        if not _joined(text[max(start - 1, 0) : start + 1]) and not _joined(
            text[end - 1 : end + 1]
        ):
            yield start, end
        start = text.find(phrase, start + 1)


def _joined(pair: str) -> bool:
    """Whether two characters that follow each other are in one word, as far as spaces tell."""
    if len(pair) < 2:  # the text begins or ends here
        return False
    if unicodedata.category(pair[1])[0] == "M":  # a mark belongs to the character before it
        return True
    return all(unicodedata.category(one)[0] in "LMN" and not _unspaced(one) for one in pair)


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").split(" ")[0] in _UNSPACED
