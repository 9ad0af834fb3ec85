"""What a version must answer before it gets traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bayling.languages import in_script
from bayling.serve.rollout import probes
from bayling.serve.rollout.probes import Probe, ask_all

pytestmark = pytest.mark.unit

LANGUAGES = ["en", "zh", "de", "ru", "ar", "hi", "sw", "ja"]


def right(asked: list[Probe]) -> dict[str, str]:
    return {probe.prompt: probe.expected for probe in asked}


def test_probes_are_dates_as_the_cldr_writes_them_in_every_language() -> None:
    asked = probes.probes(LANGUAGES, 12)
    assert [probe.language for probe in asked] == [*LANGUAGES, *LANGUAGES[:4]]
    by_language = {probe.language: probe for probe in asked[:8]}
    assert by_language["de"].expected == "21. März 2031"
    assert by_language["ja"].expected == "2031年3月21日"
    assert by_language["ru"].prompt == (
        "Provide the Russian translation for this sentence: March 21, 2031"
    )
    assert "2031年3月21日" in by_language["en"].prompt, "from another language into English"
    assert all(in_script(probe.expected, probe.language) for probe in asked)


def test_a_model_that_names_no_languages_is_asked_in_some() -> None:
    assert {probe.language for probe in probes.probes([], 3)} == {"en", "zh", "de"}


def test_a_version_that_answers_in_the_right_script_may_have_traffic() -> None:
    asked = probes.probes(LANGUAGES, 12)
    answers = right(asked)
    warmth = ask_all("bayling@8", asked, lambda model, prompt, n: {"text": answers[prompt]}, 5)
    assert warmth.trouble() is None
    assert str(warmth) == "12 of 12 translations asked beforehand in the right script"


def test_a_wrong_date_in_the_right_language_is_no_reason_to_refuse_a_model() -> None:
    asked = probes.probes(["en", "de"], 4)
    wrong = {probe.prompt: probe.expected.replace("21", "12") for probe in asked}
    warmth = ask_all("bayling@8", asked, lambda model, prompt, n: {"text": wrong[prompt]}, 5)
    assert warmth.trouble() is None


def test_a_version_that_writes_another_script_is_told_with_an_example() -> None:
    asked = probes.probes(["en", "de"], 12)
    trouble = ask_all("bayling@9", asked, lambda *_: {"text": "नमस्ते"}, 5).trouble()
    assert trouble == (
        "answered 6 of 6 translations asked before any traffic in the wrong script: into English "
        "'नमस्ते' instead of 'March 21, 2031'"
    )


def test_a_version_that_says_nothing_is_told_where() -> None:
    asked = probes.probes(["en", "de"], 2)
    answers = iter(["March 21, 2031", "  "])
    trouble = ask_all("bayling@9", asked, lambda *_: {"text": next(answers)}, 5).trouble()
    assert trouble is not None and "no text in 1 of 2" in trouble and "into German" in trouble


def test_a_version_that_fails_twice_at_a_probe_is_told_its_error() -> None:
    def ask(model: str, prompt: str, tokens: int) -> Mapping[str, Any]:
        return {"status": 500, "error": "the engine broke"}

    trouble = ask_all("bayling@9", probes.probes(["en", "de"], 1), ask, 60).trouble()
    assert trouble is not None and trouble.endswith("the engine broke")


def test_a_busy_server_is_asked_again_and_one_failure_is_forgiven() -> None:
    answers: list[Any] = [
        {"status": 404, "error": "there is no model 'bayling@8' here"},
        {"status": 429, "error": "busy"},
        ConnectionError("gone"),
        {"status": 500, "error": "a hiccup"},
        {"text": "March 21, 2031"},
    ]

    def ask(model: str, prompt: str, tokens: int) -> Mapping[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    asked = probes.probes(["en", "de"], 1)
    assert ask_all("bayling@8", asked, ask, 60).trouble() is None
    assert answers == []


def test_a_server_that_stays_busy_is_not_waited_for_without_end() -> None:
    asked = probes.probes(["en", "de"], 1)
    trouble = ask_all("bayling@8", asked, lambda *_: {"status": 503, "error": "busy"}, 0).trouble()
    assert trouble is not None and "busy" in trouble
