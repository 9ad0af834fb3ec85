"""Words that one translation of a sentence has and another has not.

They are whole words, told by the spaces between them. In a script without spaces nothing here tells
where a word ends, so that only terms of a glossary count, and the two characters that say "you" in
Chinese, which are words wherever they stand.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from bayling.data.instructions.terms import NO_SPACES, SHORTEST, Term
from bayling.languages import script_of

_LONG = 4
_LONGER = {"Latn": 5, "Cyrl": 5, "Grek": 5}
"""Letters of a word that somebody would ask for: shorter ones are mostly grammar. In scripts that
leave out vowels words are shorter."""
_ENDS = (".", "!", "?", ":", "…", "”", '"')
_YOU = {"Hans": ("你", "您"), "Hant": ("你", "您")}


def choices(text: str, other: str, language: str, terms: Iterable[Term]) -> list[str]:
    """Words of a text that somebody would name, if they knew the other text, longest first.

    None of them is another form of a word of the other text, as far as its beginning tells.

    Args:
        terms: of the text and its source.
    """
    script = script_of(language)
    if script in NO_SPACES:
        found = [there for _, there in terms if there not in other]
    else:
        known = [word.casefold() for word in _words(other)]
        shortest = SHORTEST.get(script) or _LONGER.get(script, _LONG)
        found = [
            word
            for word in _apart(text, other)
            if len(word) >= shortest and not any(_akin(word.casefold(), one) for one in known)
        ]
    return sorted(dict.fromkeys(found), key=len, reverse=True)


def tokens_of_register(text: str, other: str, language: str) -> list[str]:
    """Words of a text by which it can be told from the other, shortest first.

    Forms of address and verbs' endings are what registers differ in, and they are short.
    """
    script = script_of(language)
    if script in NO_SPACES:
        return [word for word in _YOU.get(script, ()) if word in text and word not in other]
    return sorted(dict.fromkeys(_apart(text, other)), key=len)


def _apart(text: str, other: str) -> list[str]:
    """Words that the other text does not have, not even as a part of one."""
    there = other.casefold()
    return [word for word in _words(text) if word.casefold() not in there]


def _words(text: str) -> list[str]:
    """Its words as they stand, without those that may be capital only as the first."""
    found = []
    first = True
    for piece in text.split():
        word = _bare(piece)
        if (
            word
            and not (first and word[0].isupper())
            and all(_is_letter(one) or one == "-" for one in word)
        ):
            found.append(word)
        first = piece.endswith(_ENDS)
    return found


def _bare(piece: str) -> str:
    """Without the punctuation around it."""
    inside = [at for at, character in enumerate(piece) if _is_letter(character)]
    return piece[inside[0] : inside[-1] + 1] if inside else ""


def _is_letter(character: str) -> bool:
    """Or a mark that belongs to one: Hindi's vowels are marks."""
    return unicodedata.category(character)[0] in "LM"


def _akin(one: str, other: str) -> bool:
    """Whether two words begin alike, as the forms of a word mostly do."""
    half = max(3, (max(len(one), len(other)) + 1) // 2)
    return one[:half] == other[:half]
