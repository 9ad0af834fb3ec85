"""Prompts ask for what the answer is, in many words; required words are words."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bayling.data.instructions.building import Dropped, build, turned
from bayling.data.instructions.forms import FORMS, NEUTRAL, PromptShares, ask
from bayling.data.instructions.terms import terms_of
from bayling.data.tables import Pair
from bayling.languages import name_of
from bayling.prompts import TRANSLATE
from bayling.requirements import all_satisfied

pytestmark = pytest.mark.unit

PAIR = Pair(
    "en",
    "de",
    "On Monday the president of India flew to Sweden.",
    "Am Montag flog der Präsident von Indien nach Schweden.",
    "opus",
    "x.en",
    1,
)
EVERY = PromptShares(0.25, 0.25, 0.25, 0.25)


def test_there_are_many_forms_and_baylings_own_come_first() -> None:
    forms = [form for own in FORMS.values() for form in own]
    assert len(set(forms)) == len(forms) >= 24
    assert FORMS["en"][0] == TRANSLATE["en"]
    assert FORMS["zh"][0] == TRANSLATE["zh"]
    for form in (*forms, *NEUTRAL):
        assert "{target}" in form
        assert form.count("{source}") == 1


@pytest.mark.parametrize("language", [*FORMS, "am", "zh-Hant", "ta"])
def test_a_prompt_names_the_target_in_its_own_language(language: str) -> None:
    source = "A {target} in braces, and a backslash \\1."
    prompts = {ask(random.Random(seed), source, "en", "sw", language) for seed in range(60)}
    assert len(prompts) == len(FORMS.get(language, NEUTRAL))
    for prompt in prompts:
        assert source in prompt
        assert name_of("sw", language) in prompt.replace(source, "")


def test_prompts_are_in_all_four_languages() -> None:
    shares = PromptShares(0.4, 0.3, 0.2, 0.1)
    pair = Pair("ru", "ja", "Погода хорошая.", "天気がいいです。", "opus", "x", 1)
    rng = random.Random(0)
    asked = [build(pair, "translate", rng, shares).messages[0].content for _ in range(1000)]
    tells = {"en": "Japanese", "zh": "日语", "ru": "японский", "ja": "日本語"}
    met = Counter(code for prompt in asked for code, name in tells.items() if name in prompt)
    assert sum(met.values()) == 1000
    for code, share in zip(tells, (0.4, 0.3, 0.2, 0.1), strict=True):
        assert met[code] / 1000 == pytest.approx(share, abs=0.05)


def test_required_words_are_in_the_answer() -> None:
    rng = random.Random(0)
    met: Counter[int] = Counter()
    for _ in range(60):
        made = build(PAIR, "constrained", rng, EVERY)
        user, assistant = made.messages
        assert made.task == "constrained"
        assert all_satisfied(user.requirements, assistant.content, None)
        [contains] = [one for one in user.requirements if one.kind == "contains"]
        assert set(contains.values) <= {"Montag", "Indien", "Schweden"}
        last = user.content.splitlines()[-1]
        assert all(word in last for word in contains.values)
        assert not all_satisfied(user.requirements, PAIR.source, None), "a copy does not do"
        met[len(contains.values)] += 1
    assert set(met) == {1, 2, 3}


def test_the_other_direction_has_the_other_words() -> None:
    made = build(turned(PAIR), "constrained", random.Random(1), PromptShares(1, 0, 0, 0))
    assert (made.source_lang, made.target_lang) == ("de", "en")
    [contains] = [one for one in made.messages[0].requirements if one.kind == "contains"]
    assert set(contains.values) <= {"Monday", "India", "Sweden"}
    assert turned(turned(PAIR)) == PAIR


def test_a_pair_without_a_term_becomes_a_plain_translation() -> None:
    pair = Pair("en", "de", "It rains.", "Es regnet.", "opus", "x", 1)
    made = build(pair, "constrained", random.Random(0), EVERY)
    assert made.task == "translate"
    assert [one.kind for one in made.messages[0].requirements] == ["script", "lacks"]
    assert not all_satisfied(made.messages[0].requirements, made.messages[0].content, None)


def test_an_answer_in_the_wrong_script_is_dropped() -> None:
    pair = Pair("en", "ru", "It rains.", "It rains again.", "opus", "x", 1)
    with pytest.raises(Dropped, match="fails its own requirement"):
        build(pair, "translate", random.Random(0), EVERY)


@pytest.mark.parametrize(
    ("source", "target", "languages", "given", "found"),
    [
        ("印度和瑞典很远。", "India is far from Sweden.", ("zh", "en"), [], {"India", "Sweden"}),
        ("Indiana is far.", "Indien ist weit.", ("en", "de"), [], set()),
        ("India, India!", "Indien, Indien!", ("en", "de"), [], set()),
        ("India is far.", "भारत दूर है।", ("en", "hi"), [], {"भारत"}),
        ("India is far.", "भारतीय लोग दूर हैं।", ("en", "hi"), [], set()),
        (
            "The fee is due.",
            "Die Gebühr ist fällig.",
            ("en", "de"),
            [("fee", "Gebühr")],
            {"Gebühr"},
        ),
        ("The fee is due.", "Das Entgelt ist fällig.", ("en", "de"), [("fee", "Gebühr")], set()),
        ("Your order is late.", "您点的餐可能会晚到。", ("en", "zh"), [("order", "餐")], set()),
    ],
)
def test_terms_are_whole_words_that_stand_on_both_sides_once(
    source: str,
    target: str,
    languages: tuple[str, str],
    given: list[tuple[str, str]],
    found: set[str],
) -> None:
    terms = terms_of(source, target, *languages, given)
    assert {there for _, there in terms} == found
    assert all(here in source and there in target for here, there in terms)
