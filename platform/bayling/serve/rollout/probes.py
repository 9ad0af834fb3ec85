"""The translations that a version must answer before it gets traffic.

Days of the year, written out: the Unicode CLDR says how each language writes them, so what comes
back can be held against what is right. A model need not know the date – BayLing has years when it
mixes up months – but it must answer, in the script of the language that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from bayling.languages import has_words, in_script, letters_in_script, locale_of, name_of
from bayling.prompts import translate_prompt

Ask = Callable[[str, str, int], Mapping[str, Any]]
"""Asks a model by name, with a prompt and the most tokens of the answer. Returns its `text`, or
the `status` that an HTTP request would have got and the `error`."""

_DAYS = (date(2031, 3, 21), date(2024, 9, 18), date(2038, 12, 5))
_FALLBACK = ("en", "zh", "de")
"""For a model that does not say what languages it has."""
_TOKENS = 64
_BUSY = frozenset({404, 429, 503})
"""Answers of a server that has not taken the version up yet, or has no room at the moment."""
_PAUSE_S = 0.5
_TRIES = 2
"""How often a probe may fail before the version does."""


@dataclass(frozen=True)
class Probe:
    """A sentence to translate, and what is right."""

    prompt: str
    language: str
    """Of the translation, as a BCP-47 tag."""
    expected: str


@dataclass(frozen=True)
class Answered:
    """What a version made of a probe."""

    probe: Probe
    text: str = ""
    error: str | None = None

    @property
    def on_target(self) -> bool:
        return in_script(self.text, self.probe.language)


@dataclass(frozen=True)
class Warmth:
    """What came of all probes."""

    answers: tuple[Answered, ...]

    def trouble(self) -> str | None:
        """Why the version must not get traffic, to be put after its name; None where it may."""
        failed = [one for one in self.answers if one.error is not None]
        if failed:
            return (
                f"failed {len(failed)} of {len(self.answers)} translations asked before any "
                f"traffic: {failed[0].error}"
            )
        empty = [one for one in self.answers if not one.text.strip()]
        if empty:
            return (
                f"gave no text in {len(empty)} of {len(self.answers)} translations asked before "
                f"any traffic, such as the one into {name_of(empty[0].probe.language)}"
            )
        wrong = [one for one in self.answers if not one.on_target]
        if 2 * len(wrong) > len(self.answers):
            first = wrong[0]
            return (
                f"answered {len(wrong)} of {len(self.answers)} translations asked before any "
                f"traffic in the wrong script: into {name_of(first.probe.language)} "
                f"{first.text.strip()[:40]!r} instead of {first.probe.expected!r}"
            )
        return None

    def __str__(self) -> str:
        right = sum(one.on_target for one in self.answers)
        return f"{right} of {len(self.answers)} translations asked beforehand in the right script"


def probes(languages: Sequence[str], count: int) -> list[Probe]:
    """Up to `count` translations into as many of the languages as possible."""
    from babel.dates import format_date

    known = [tag for tag in languages if has_words(tag) and _written(_DAYS[0], tag)] or list(
        _FALLBACK
    )
    made: list[Probe] = []
    for day in _DAYS:
        for target in known:
            # From a pivot: what BayLing is trained on.
            source = "en" if target != "en" else next((tag for tag in known if tag != "en"), "zh")
            sentence = str(format_date(day, "long", locale=locale_of(source)))
            expected = str(format_date(day, "long", locale=locale_of(target)))
            made.append(Probe(translate_prompt(sentence, target, "en"), target, expected))
    return made[:count]


def _written(day: date, tag: str) -> bool:
    """Whether a date in a language has letters by which its script can be told."""
    from babel.dates import format_date

    return letters_in_script(str(format_date(day, "long", locale=locale_of(tag))), tag)[0] > 0


def ask_all(model: str, asked: Sequence[Probe], ask: Ask, within_s: float) -> Warmth:
    """Ask every probe, one after the other.

    A server that is busy is asked again until `within_s` have passed; a probe that fails is tried
    once more.

    Args:
        model: the version, as `name@version`.
    """
    deadline = time.monotonic() + within_s
    return Warmth(tuple(_answer(model, probe, ask, deadline) for probe in asked))


def _answer(model: str, probe: Probe, ask: Ask, deadline: float) -> Answered:
    failures = 0
    while True:
        try:
            answer = ask(model, probe.prompt, _TOKENS)
        except Exception as error:  # whatever is between here and the version, not its own fault
            answer = {"status": 503, "error": f"{type(error).__name__}: {error}"}
        if "text" in answer:
            return Answered(probe, str(answer["text"]))
        failures += answer["status"] not in _BUSY
        if failures >= _TRIES or time.monotonic() > deadline:
            return Answered(probe, error=str(answer["error"]))
        time.sleep(_PAUSE_S)
