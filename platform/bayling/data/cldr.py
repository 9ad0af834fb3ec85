"""Parallel sentences from the Unicode CLDR: the same value, written in any of 100+ languages.

A *value* is a date, a time from now, a quantity with a unit, an amount of money or a list of
countries. Babel writes it in a locale with that language's inflection, word order and
punctuation, so two locales give a true pair of translations, and no download is needed.
"""

from __future__ import annotations

import datetime
import hashlib
import random
import re
from dataclasses import dataclass
from functools import lru_cache

from babel import Locale, dates, lists, numbers, units

from bayling.languages import has_words, locale_of, name_of

ORIGIN = "cldr"
LICENCE = "Unicode-3.0"

_RELATIVE_UNITS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_UNITS = ("length-kilometer", "length-meter", "mass-kilogram", "mass-gram", "volume-liter")
_CURRENCIES = ("USD", "EUR", "CNY", "JPY", "INR")
_TERRITORIES = ("CN", "US", "DE", "FR", "IT", "RU", "JP", "IN", "KE", "EG")

# Forms of a value that need no more said than "shorter", longest first; a plain translation
# uses the first.
FORMS: dict[str, tuple[str, ...]] = {
    "date": ("long", "medium"),
    "relative": ("long", "short"),
    "quantity": ("long", "short"),
    "money": ("name", "standard"),
    "list": ("standard",),
}
# Forms that a required word asks for: the day of the week, "or" instead of "and".
WORDED = {"date": "full", "list": "or"}
KINDS = tuple(FORMS)
# Dates and lists have several words to learn each, the others one.
_WEIGHTS = {"date": 2, "relative": 1, "quantity": 1, "money": 1, "list": 3}


class NotInCldr(Exception):
    """CLDR has no text for this value in this language. The message is the reason."""


@dataclass(frozen=True)
class Value:
    """What a sentence is about, in no language: `Value("money", 24, "EUR")`."""

    kind: str
    number: int
    """A date's ordinal, a quantity's or amount's number; for a list, 0."""
    detail: str
    """The unit, the currency, the direction of time and its unit, or the countries."""

    @property
    def key(self) -> str:
        """What the split goes by: two values with one key are never on both sides of it.

        A list is the same list in any order, and five days are five days before and after.
        """
        if self.kind == "list":
            return "list " + " ".join(sorted(self.detail.split()))
        if self.kind == "relative":
            return f"relative {self.number} {self.detail.removeprefix('-')}"
        return f"{self.kind} {self.number} {self.detail}"


@dataclass(frozen=True)
class Sentence:
    """A value written in one language, and the words that any right version must contain."""

    text: str
    keywords: tuple[str, ...]


def is_heldout(value: Value, share: float, seed: int) -> bool:
    """Whether a value belongs to the test side; the same answer in every language and form."""
    digest = hashlib.sha256(f"{seed} {value.key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def draw(rng: random.Random, kind: str | None = None) -> Value:
    """A random value, of the kind named or of any."""
    kind = kind or rng.choices(KINDS, [_WEIGHTS[kind] for kind in KINDS])[0]
    if kind == "date":
        first = datetime.date(1960, 1, 1).toordinal()
        return Value(kind, first + rng.randrange(365 * 80), "")
    if kind == "relative":
        sign = rng.choice(("", "-"))
        return Value(kind, _number(rng, 120), sign + rng.choice(tuple(_RELATIVE_UNITS)))
    if kind == "quantity":
        return Value(kind, _number(rng, 999), rng.choice(_UNITS))
    if kind == "money":
        return Value(kind, _number(rng, 999), rng.choice(_CURRENCIES))
    countries = rng.sample(_TERRITORIES, rng.choice((2, 2, 3)))
    return Value("list", 0, " ".join(countries))


def _number(rng: random.Random, highest: int) -> int:
    """From 2 up, each length equally often: people say "5 days" more than "115 days"."""
    digits = rng.randint(1, len(str(highest)))
    return rng.randint(max(2, 10 ** (digits - 1)), min(10**digits - 1, highest))


def another(rng: random.Random, value: Value) -> Value:
    """The value with one part replaced: another number, another year, another country."""
    if value.kind == "date":
        old = datetime.date.fromordinal(value.number)
        # Through 28 February every day exists in every year.
        year = rng.choice([year for year in range(1960, 2040) if year != old.year])
        day = min(old.day, 28) if old.month == 2 else old.day
        return Value("date", datetime.date(year, old.month, day).toordinal(), "")
    if value.kind == "list":
        countries = value.detail.split()
        spare = [code for code in _TERRITORIES if code not in countries]
        countries[rng.randrange(len(countries))] = rng.choice(spare)
        return Value("list", 0, " ".join(countries))
    while (fresh := draw(rng, value.kind)).number == value.number:
        pass
    return Value(value.kind, fresh.number, value.detail)


@lru_cache(maxsize=100_000)
def write(value: Value, form: str, language: str) -> Sentence:
    """The value in one language.

    Raises:
        NotInCldr: the locale lacks it; Babel would give a key or the English form.
    """
    if not has_words(language):
        raise NotInCldr(f"no words in {name_of(language)}")
    locale = locale_of(language)
    keywords: tuple[str, ...]
    if value.kind == "date":
        date = datetime.date.fromordinal(value.number)
        text = dates.format_date(date, form, locale=locale)
        keywords = (str(date.year), str(date.day))
    elif value.kind == "relative":
        try:
            text = _relative(value, form, locale)
        except KeyError:
            raise NotInCldr("no short form of a relative") from None
        keywords = (str(value.number),)
    elif value.kind == "quantity":
        text = ""
        for length in ("long", "short") if form == "long" else (form,):
            # CLDR's own inheritance: where a locale has no long form, the short one is it.
            text = units.format_unit(value.number, value.detail, length, locale=locale)
            if value.detail not in text:
                break
        keywords = (str(value.number),)
    elif value.kind == "money":
        text = _money(value, form, language)
        keywords = (str(value.number),)
    else:
        names = [locale.territories.get(code) for code in value.detail.split()]
        if None in names:
            raise NotInCldr("no name for a country")
        text = lists.format_list(names, style=form, locale=locale)
        keywords = tuple(names)
    text = tidy(text)
    keywords = tuple(tidy(word) for word in keywords)
    is_key = value.kind == "quantity" and value.detail in text
    if (
        not text
        or is_key
        or _is_root(value, form, text)
        or not all(word in text for word in keywords)
    ):
        raise NotInCldr(f"no {form} form of a {value.kind}")
    return Sentence(text, keywords)


def _is_root(value: Value, form: str, text: str) -> bool:
    """Whether a date or a time from now has CLDR's signs for "no data": `2024 M03 21`, `+5 d`."""
    if value.kind == "date":
        return not _root_names().isdisjoint(re.findall(r"\w+", text))
    return value.kind == "relative" and text == tidy(_relative(value, form, Locale("root")))


@lru_cache(maxsize=1)
def _root_names() -> frozenset[str]:
    root = Locale("root")
    months = dates.get_month_names("wide", locale=root).values()
    days = dates.get_day_names("wide", locale=root).values()
    return frozenset([*months, *days])


def _relative(value: Value, form: str, locale: Locale) -> str:
    unit = value.detail.removeprefix("-")
    seconds = value.number * _RELATIVE_UNITS[unit]
    text: str = dates.format_timedelta(
        datetime.timedelta(seconds=-seconds if value.detail[0] == "-" else seconds),
        granularity=unit,
        threshold=1e9,  # never round up to a larger unit
        add_direction=True,
        format=form,
        locale=locale,
    )
    return text


def _money(value: Value, form: str, language: str) -> str:
    # Whole amounts, as people write them.
    locale = locale_of(language)
    if form == "name":
        name = numbers.get_currency_name(value.detail, value.number, locale=locale)
        if name == value.detail:
            raise NotInCldr("no name for a currency")
        text = numbers.format_currency(
            value.number, value.detail, format_type="name", locale=locale, currency_digits=False
        )
    else:
        text = numbers.format_currency(
            value.number, value.detail, locale=locale, currency_digits=False
        )
    return str(re.sub(r"(?<=\d)[.,٫]00(?!\d)", "", text))


def tidy(text: str) -> str:
    """CLDR's no-break and thin spaces as plain ones, its direction marks left out."""
    text = re.sub(r"[\u00a0\u202f\u2009]", " ", text)
    return re.sub(r"[\u200e\u200f\u061c\u200b]", "", text).strip()


@lru_cache(maxsize=4096)
def alternative_word(language: str) -> str:
    """The word for "or" as lists use it: `oder`, `或`.

    Raises:
        NotInCldr: the locale writes lists with "or" as those with "and".
    """
    locale = locale_of(language)
    both = lists.format_list(["\0", "\1"], style="or", locale=locale)
    word = tidy(both[both.index("\0") + 1 : both.index("\1")]).strip(" ,、،")
    if not word or word in lists.format_list(["\0", "\1"], locale=locale):
        raise NotInCldr('no word for "or" in a list')
    return word


@lru_cache(maxsize=65536)
def weekday(value: Value, language: str) -> str:
    """The day of the week of a date as its full form writes it.

    Raises:
        NotInCldr: the language's full form does not name it so.
    """
    date = datetime.date.fromordinal(value.number)
    name = tidy(dates.get_day_names("wide", locale=locale_of(language))[date.weekday()])
    if name not in write(value, "full", language).text:
        raise NotInCldr("no day of the week in a full date")
    return name


def changed_part(old: Value, new: Value, language: str) -> tuple[str, str]:
    """What a user would say was replaced by what: a number, a year, a country's name."""
    if old.kind == "date":
        years = (datetime.date.fromordinal(item.number).year for item in (old, new))
        first, second = years
        return str(first), str(second)
    if old.kind == "list":
        names = locale_of(language).territories
        pairs = zip(old.detail.split(), new.detail.split(), strict=True)
        before, after = next((a, b) for a, b in pairs if a != b)
        if before not in names or after not in names:
            raise NotInCldr("no name for a country")
        return tidy(names[before]), tidy(names[after])
    return str(old.number), str(new.number)
