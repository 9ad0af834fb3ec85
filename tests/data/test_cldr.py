from __future__ import annotations

import datetime
import random
import re

import pytest

from bayling import languages
from bayling.data import cldr
from bayling.data.cldr import FORMS, KINDS, NotInCldr, Sentence, Value

pytestmark = pytest.mark.unit

THURSDAY = Value("date", datetime.date(2024, 3, 21).toordinal(), "")


def written(value: Value, form: str, language: str) -> Sentence | None:
    try:
        return cldr.write(value, form, language)
    except NotInCldr:
        return None


def sample() -> list[Value]:
    rng = random.Random(3)
    return [cldr.draw(rng, kind) for kind in KINDS for _ in range(3)]


@pytest.mark.parametrize(
    ("value", "form", "language", "text"),
    [
        (THURSDAY, "full", "en", "Thursday, March 21, 2024"),
        (THURSDAY, "long", "de", "21. März 2024"),
        (THURSDAY, "full", "zh", "2024年3月21日星期四"),
        (THURSDAY, "long", "hi", "21 मार्च 2024"),
        (Value("relative", 5, "day"), "long", "de", "in 5 Tagen"),
        (Value("relative", 5, "-day"), "long", "en", "5 days ago"),
        (Value("relative", 5, "day"), "long", "zh", "5天后"),
        (Value("relative", 5, "day"), "long", "sw", "baada ya siku 5"),
        (Value("relative", 90, "minute"), "long", "en", "in 90 minutes"),
        (Value("quantity", 24, "length-kilometer"), "long", "ru", "24 километра"),
        (Value("quantity", 25, "length-kilometer"), "long", "ru", "25 километров"),
        (Value("money", 24, "EUR"), "name", "en", "24 euros"),
        (Value("money", 24, "EUR"), "standard", "de", "24 €"),
        (Value("list", 0, "CN DE"), "standard", "de", "China und Deutschland"),
        (Value("list", 0, "CN DE FR"), "or", "en", "China, Germany, or France"),
    ],
)
def test_a_value_is_written_as_its_language_does(
    value: Value, form: str, language: str, text: str
) -> None:
    assert cldr.write(value, form, language).text == text


def test_every_language_writes_a_value_or_says_that_cldr_lacks_it() -> None:
    """Any other exception of Babel's fails the test; so does a sentence without its keywords."""
    for language in sorted(languages.known()):
        for value in sample():
            for form in FORMS[value.kind]:
                sentence = written(value, form, language)
                if sentence is not None:
                    assert sentence.keywords
                    assert all(word and word in sentence.text for word in sentence.keywords)


def test_at_least_a_hundred_languages_write_every_kind_of_value() -> None:
    able = [
        language
        for language in languages.known()
        if all(written(value, FORMS[value.kind][0], language) for value in sample())
    ]
    assert len(able) >= 100


def test_the_text_is_never_a_placeholder_for_missing_data() -> None:
    rng = random.Random(4)
    values = [
        *(Value("relative", rng.randint(2, 120), sign + "day") for sign in ("", "-")),
        *(Value("date", THURSDAY.number + day, "") for day in (0, 1, 150)),
        *(Value("quantity", 7, unit) for unit in ("digital-megabyte", "area-square-kilometer")),
        Value("money", 7, "CHF"),
        Value("list", 0, "CN DE"),
    ]
    for language in sorted(languages.known()):
        for value in values:
            sentence = written(value, FORMS[value.kind][0], language)
            if sentence is None:
                continue
            text = sentence.text
            # CLDR's root: 2024 M03 21, Thu · +5 d · and Babel's keys for units and currencies.
            assert not re.search(r"\bM\d\d\b|\bThu\b|^[+-]\d+ d$|digital|-kilometer|¤", text), (
                language
            )
            if value.kind == "money":
                assert "CHF" not in text, language
            assert not re.search("[\u00a0\u202f\u200e\u200f\u061c]", text)
            assert text == text.strip()


@pytest.mark.parametrize("language", ["ann", "ba", "moh"])
def test_a_language_without_month_names_writes_no_dates(language: str) -> None:
    for form in FORMS["date"]:
        with pytest.raises(NotInCldr, match=f"no {form} form of a date"):
            cldr.write(THURSDAY, form, language)


def test_a_language_without_relative_times_writes_none() -> None:
    for form in FORMS["relative"]:
        with pytest.raises(NotInCldr):
            cldr.write(Value("relative", 5, "day"), form, "ab")


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_is_by_value_and_the_same_in_every_form(kind: str) -> None:
    rng = random.Random(5)
    # By key: there are few lists, and each is drawn many times.
    values = list(
        {value.key: value for value in (cldr.draw(rng, kind) for _ in range(2000))}.values()
    )
    heldout = [value for value in values if cldr.is_heldout(value, 0.1, 1)]
    assert 0.05 < len(heldout) / len(values) < 0.16
    other_seed = [value for value in values if cldr.is_heldout(value, 0.1, 2)]
    assert heldout != other_seed
    assert not any(cldr.is_heldout(value, 0.0, 1) for value in values)


def test_a_list_in_another_order_and_time_before_and_after_are_on_the_same_side() -> None:
    for order in ("CN DE FR", "FR CN DE", "DE FR CN"):
        assert Value("list", 0, order).key == Value("list", 0, "CN DE FR").key
    assert Value("relative", 5, "day").key == Value("relative", 5, "-day").key
    assert Value("relative", 5, "day").key != Value("relative", 5, "week").key
    assert Value("quantity", 5, "mass-gram").key != Value("money", 5, "EUR").key


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_differs_in_one_part_and_the_part_can_be_named(kind: str) -> None:
    rng = random.Random(6)
    for _ in range(300):
        value = cldr.draw(rng, kind)
        fresh = cldr.another(rng, value)
        assert fresh.kind == kind
        assert fresh.key != value.key
        old, new = cldr.changed_part(value, fresh, "en")
        assert old != new
        form = "long" if kind in ("date", "relative", "quantity") else FORMS[kind][0]
        assert old in cldr.write(value, form, "en").text
        assert new in cldr.write(fresh, form, "en").text
        if kind == "date":
            before, after = map(datetime.date.fromordinal, (value.number, fresh.number))
            assert before.month == after.month
            assert before.day == after.day or (before.month, before.day) == (2, 29)
        elif kind != "list":
            assert fresh.detail == value.detail


@pytest.mark.parametrize(("language", "word"), [("de", "oder"), ("en", "or"), ("zh", "或")])
def test_the_word_for_or_is_the_one_that_lists_use(language: str, word: str) -> None:
    assert cldr.alternative_word(language) == word
    assert word in cldr.write(Value("list", 0, "CN DE"), "or", language).text
    assert word not in cldr.write(Value("list", 0, "CN DE"), "standard", language).text


def test_the_weekday_is_the_one_of_the_full_form() -> None:
    assert cldr.weekday(THURSDAY, "de") == "Donnerstag"
    assert cldr.weekday(THURSDAY, "zh") == "星期四"
