"""How long a text usually is in a language, compared with English."""

from __future__ import annotations

import random
from functools import lru_cache

from bayling.data import cldr

_KINDS = ("list", "money")
_VALUES = 60
"""Of each kind."""


@lru_cache(maxsize=1024)
def usual_length(language: str) -> float:
    """Characters for each character of English: 0.33 for Chinese, 1.13 for German.

    Measured on lists of countries and amounts of money in CLDR, which every language has. Over the
    sentences of FLORES-101 it is 0.33 for Chinese, 1.16 for German, 1.19 for French (here 1.16) and
    1.05 for Swahili (1.05). 1 for a language without such texts.
    """
    rng = random.Random(0)
    theirs = english = 0
    for kind in _KINDS:
        for _ in range(_VALUES):
            value = cldr.draw(rng, kind)
            form = cldr.FORMS[kind][0]
            try:
                text = cldr.write(value, form, language).text
            except cldr.NotInCldr:
                continue
            theirs += len(text)
            english += len(cldr.write(value, form, "en").text)
    return theirs / english if english else 1.0
