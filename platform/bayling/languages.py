"""Languages: BCP-47 tags, the scripts they are written in, and their names in any language.

Everything comes from the Unicode CLDR through Babel. Inside the platform a language is
always a BCP-47 tag (`de`, `zh`, `zh-Hant`); ISO 639-3 and FLORES codes (`deu`, `zho_simpl`,
`swh_Latn`) are accepted where text comes in. Languages are those that CLDR has words in, and
those of FLORES-200 beside them.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global, localedata

from bayling.errors import UserError

# FLORES-101 names two Chinese scripts without using the ISO 15924 code, FLORES-200 a part of the
# Korean one.
_FLORES_SCRIPTS = {"simpl": "Hans", "trad": "Hant", "hang": "Kore"}

# Individual languages by which FLORES-200 names what CLDR has under a macrolanguage's code.
_FLORES_LANGUAGES = {"quy": "qu", "pbt": "ps", "fuv": "ff", "prs": "fa-AF"}

# Languages of FLORES-200 in which CLDR has no words. All others that it only names are left out:
# too many of their codes are words in names of files (`new`, `bar`, `sad`).
_WITHOUT_WORDS = frozenset(
    re.findall(
        r"\w+",
        "ace acm acq aeb ars ary arz awa ay azb ban bjn bug cjk crh din dyu fj fon hne ilo kac kbp"
        " kg kmb kr li lua lus mag min mos pag sm taq tum umb war",
    )
)
# ISO 639-3's reference names of those that CLDR has no name of either.
_NAMES = {
    "acm": "Mesopotamian Arabic",
    "acq": "Ta'izzi-Adeni Arabic",
    "apc": "Levantine Arabic",
    "azb": "South Azerbaijani",
    "cjk": "Chokwe",
    "hne": "Chhattisgarhi",
    "kbp": "Kabiyè",
    "lld": "Ladin",
    "mhn": "Mòcheno",
    "skr": "Saraiki",
    "taq": "Tamasheq",
}

# The Unicode names of letters start with the script; Japanese and Korean mix several.
_LETTER_NAMES: dict[str, tuple[str, ...]] = {
    "Latn": ("LATIN",),
    "Cyrl": ("CYRILLIC",),
    "Arab": ("ARABIC",),
    "Deva": ("DEVANAGARI",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
    "Kore": ("HANGUL", "CJK"),
    "Grek": ("GREEK",),
    "Hebr": ("HEBREW",),
    "Thai": ("THAI",),
    "Beng": ("BENGALI",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Geor": ("GEORGIAN",),
    "Armn": ("ARMENIAN",),
    "Ethi": ("ETHIOPIC",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Knda": ("KANNADA",),
    "Khmr": ("KHMER",),
    "Laoo": ("LAO",),
    "Mlym": ("MALAYALAM",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",),
    "Tibt": ("TIBETAN",),
    "Olck": ("OL",),
    "Tfng": ("TIFINAGH",),
    "Mtei": ("MEETEI",),
}


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    """Every language's subtag."""
    return _with_words() | _WITHOUT_WORDS


@lru_cache(maxsize=1)
def _with_words() -> frozenset[str]:
    """Those for which CLDR has locale data."""
    return frozenset(
        name.split("_")[0] for name in localedata.locale_identifiers() if name != "root"
    )


@lru_cache(maxsize=4096)
def has_words(tag: str) -> bool:
    """Whether CLDR can write dates, amounts and names in a language, and in the tag's script."""
    language, *others = tag.split("-")
    if language not in _with_words():
        return False
    scripts = [part for part in others if len(part) == 4]
    return not scripts or locale_of(tag).script == scripts[0]


@lru_cache(maxsize=4096)
def parse(code: str) -> str:
    """The BCP-47 tag for a language code in BCP-47, ISO 639-1/-3 or FLORES spelling.

    `zho_simpl` gives `zh`, `swh_Latn` gives `sw`, `zh_TW` gives `zh-Hant-TW`.

    Raises:
        UserError: there is no such language; the message names the nearest ones.
    """
    first, *others = re.split(r"[-_]", code.strip())
    language, *territory = _FLORES_LANGUAGES.get(first.lower(), first).split("-")
    language = language.lower()
    aliased = get_global("language_aliases").get(language, language)
    rest = [*(_FLORES_SCRIPTS.get(part.lower(), part) for part in others), *territory]
    if aliased not in known():
        near = difflib.get_close_matches(language, sorted(known()), n=3, cutoff=0.3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UserError(f"the Unicode CLDR knows no language {code!r}{hint}")
    if aliased not in _with_words():
        if rest and (len(rest) > 1 or rest[0] not in Locale("en").scripts):
            raise _nonsense(code, aliased)
        return "-".join([aliased, *(part for part in rest if part != script_of(aliased))])
    try:
        locale = Locale.parse("_".join([aliased, *rest]))
    except (UnknownLocaleError, ValueError):
        raise _nonsense(code, aliased) from None
    script = next((part for part in rest if part in Locale("en").scripts), None)
    if script not in (None, locale.script, script_of(locale.language)):
        return f"{locale.language}-{script}"  # a script that CLDR does not write it in
    # Without a script that goes without saying: `zh-Hans` and `zh` are one language.
    plain = not locale.territory and locale.script == script_of(locale.language)
    subtags = [locale.language, None if plain else locale.script, locale.territory]
    return "-".join(subtag for subtag in subtags if subtag)


def _nonsense(code: str, language: str) -> UserError:
    return UserError(
        f"{code!r} is no language tag that the Unicode CLDR knows: "
        f"try {language!r}, without the part after it"
    )


@lru_cache(maxsize=4096)
def locale_of(tag: str) -> Locale:
    """Babel's locale for the BCP-47 tag of a language in `known` that CLDR has words in."""
    return Locale.parse(tag.replace("-", "_"))


@lru_cache(maxsize=4096)
def script_of(tag: str) -> str:
    """The ISO 15924 script a language is usually written in: `Cyrl` for `ru`."""
    language, *others = tag.split("-")
    for part in others:
        if len(part) == 4:
            return part
    likely = get_global("likely_subtags")
    for key in (tag.replace("-", "_"), language):
        if key in likely:
            return str(likely[key].split("_")[1])
    return "Latn"


@lru_cache(maxsize=4096)
def name_of(tag: str, in_language: str = "en") -> str:
    """A language's name in another language: `name_of("de", "zh")` is `德语`.

    Where CLDR has no name in that language, the English one.
    """
    if has_words(tag) and tag not in _NAMES:
        locale = locale_of(tag)
        name = has_words(in_language) and locale.get_display_name(locale_of(in_language))
        return str(name or locale.get_display_name("en"))
    language, *script = tag.split("-")
    english = locale_of("en")
    said = locale_of(in_language) if has_words(in_language) else english
    if language not in said.languages:
        said = english
    name = said.languages.get(language) or _NAMES[language]
    return f"{name} ({said.scripts[script[0]]})" if script else str(name)


class _Letters(dict[str, int]):
    """Character → 0 for what is no letter, 1 for a letter, 2 for one of a script."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self._families = _LETTER_NAMES.get(script)

    def __missing__(self, character: str) -> int:
        found = 0
        if unicodedata.category(character)[0] == "L":
            family = unicodedata.name(character, "?").split(" ")[0]
            found = 2 if self._families is None or family.startswith(self._families) else 1
        self[character] = found
        return found


@lru_cache(maxsize=1024)
def _letters_of(tag: str) -> _Letters:
    return _Letters(script_of(tag))


def letters_in_script(text: str, tag: str) -> tuple[int, int]:
    """How many letters of `text` are in the script of language `tag`, and how many there are.

    Digits, punctuation and marks do not count. For a script this module has no letters for,
    every letter counts as right.
    """
    kinds = _letters_of(tag)
    right = letters = 0
    for character, number in Counter(text).items():
        if kind := kinds[character]:
            letters += number
            if kind == 2:
                right += number
    return right, letters


def only_in_script(text: str, tag: str) -> bool:
    """Whether no letter of `text` is in another script than that of language `tag`.

    Most texts are so, and this is several times as fast as to count their letters.
    """
    fitting = _fitting(tag)
    if fitting.issuperset(text):
        return True
    kinds = _letters_of(tag)
    new = set(text) - fitting
    fitting.update(character for character in new if kinds[character] != 1)
    return new <= fitting


@lru_cache(maxsize=1024)
def _fitting(tag: str) -> set[str]:
    """Of the characters met so far, those that are no letter of another script."""
    return set()


def in_script(text: str, tag: str) -> bool:
    """Whether `text` is written in the script of language `tag`: at least half of its letters.

    A text without letters ("12:30") is in every script; an empty one in none.
    """
    if only_in_script(text, tag):
        return bool(text.strip())
    right, total = letters_in_script(text, tag)
    return 2 * right >= total
