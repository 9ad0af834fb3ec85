"""What a user asks for where the data translates a sentence more than once.

The answer is another pair's translation of the same source: into another language, in another
register, or with another word. The earlier wishes still stand, so that it has to be one that meets
them: a number that was asked for is in no other pair, nor is a word that was put in bold in another
language.

Within one language the two translations have much in common: who asks for another word wants the
rest about as it was. And the requirement is that of the answer before much is left, but not all,
which neither the prompt, nor another sentence, nor the answer before with a word behind it meets.
"""

from __future__ import annotations

import random
from dataclasses import replace

from bayling.data.instructions.refinements import Kind, State, Step, standing
from bayling.data.instructions.terms import terms_of
from bayling.data.instructions.wording import choices, tokens_of_register
from bayling.data.tables import Pair
from bayling.languages import in_script, name_of
from bayling.requirements import Requirement, all_satisfied, satisfied

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "language": ("Now into {language}, please.", "And what is it in {language}?"),
        "register": ("More {register}, please.", "Make it sound more {register}."),
        "require": ("Use the word “{word}”.", "Please put it with the word “{word}”."),
        "forbid": ("Avoid the word “{word}”.", "Say it without the word “{word}”."),
    },
    "zh": {
        "language": ("请翻译成{language}。", "用{language}怎么说？"),
        "register": ("请更{register}一些。", "语气再{register}一点。"),
        "require": ("请使用“{word}”这个词。", "译文里请用上“{word}”。"),
        "forbid": ("请不要用“{word}”这个词。", "换个说法，避免“{word}”这个词。"),
    },
}
"""Language of the conversation → kind → ways to say it."""
_REGISTERS = {
    "formal": {"en": "formal", "zh": "正式"},
    "informal": {"en": "informal", "zh": "随意"},
}
"""Those that somebody would ask for more of."""
_SAME = {"polite": "formal", "casual": "informal", "colloquial": "informal", "familiar": "informal"}
_MARKS = '“”"„«»'
_LONGEST = 3
"""Of the words that tell two translations apart, those that one is chosen from."""
_TOLD_BY = 2
"""Words of each version that show its register."""


def _language(rng: random.Random, state: State, more: State | None) -> Step | None:
    others = [one for one in _fitting(state) if one.target_lang != state.target_lang]
    if state.bold is not None or not others:
        return None
    one = rng.choice(others)
    name = name_of(one.target_lang, state.language)
    # Who copies answers in one of these: the translation before, the source, or the prompt.
    spoken = state.target_lang, *state.rivals, one.source_lang, state.language
    rivals = tuple(dict.fromkeys(tag for tag in spoken if _confusable(tag, one.target_lang)))
    fresh = replace(_with(state, one), kept=(), rivals=rivals)
    # The prompt has the language's name, which would do where that is the prompt's own.
    return _right(
        state, Step(fresh, {"language": name}, (Requirement("lacks", (one.source, name)),))
    )


def _confusable(one: str, other: str) -> bool:
    """Whether it takes a detector to tell one language from another, and the detector can.

    Chinese is written in a part of what Japanese is, so that it is the language's own name that is
    looked at, not what its script is called.
    """
    return one.split("-")[0] != other.split("-")[0] and in_script(name_of(one, one), other)


def _register(rng: random.Random, state: State, more: State | None) -> Step | None:
    now = _named(state.register)
    others = [one for one in _revised(state) if _named(one.register) not in ("", now)]
    if not now or not others:
        return None
    one = rng.choice(others)
    there = tokens_of_register(one.target, state.target, state.target_lang)[:_TOLD_BY]
    here = tokens_of_register(state.target, one.target, state.target_lang)[:_TOLD_BY]
    told = [
        Requirement(kind, tuple(words))
        for kind, words in (("contains", there), ("lacks", here))
        if words
    ]
    if not told:
        return None
    slots = {"register": _REGISTERS[_named(one.register)][state.language]}
    return _revision(state, one, slots, *told)


def _named(register: str) -> str:
    """A key of `_REGISTERS`, or nothing."""
    name = register.strip().casefold()
    name = _SAME.get(name, name)
    return name if name in _REGISTERS else ""


def _require(rng: random.Random, state: State, more: State | None) -> Step | None:
    found = []
    for one in _reworded(state):
        terms = terms_of(one.source, one.target, one.source_lang, one.target_lang, one.terms)
        words = choices(one.target, state.target, state.target_lang, terms)[:_LONGEST]
        found += [(one, word) for word in words]
    if not found:
        return None
    one, word = rng.choice(found)
    return _revision(state, one, {"word": word}, Requirement("contains", (word,)))


def _forbid(rng: random.Random, state: State, more: State | None) -> Step | None:
    found = []
    for one in _reworded(state):
        words = choices(state.target, one.target, state.target_lang, state.terms)[:_LONGEST]
        found += [(one, word) for word in words]
    if not found:
        return None
    one, word = rng.choice(found)
    return _revision(state, one, {"word": word}, Requirement("lacks", (word,)))


def _fitting(state: State) -> list[Pair]:
    """The siblings that translate what is the source by now, in a form that can be answered in."""
    return [
        one
        for one in state.siblings
        if state.number is None
        and one.source == state.source
        and one.target != state.target
        and not (state.shape == "quotes" and any(mark in one.target for mark in _MARKS))
    ]


def _revised(state: State) -> list[Pair]:
    """Those in the same language that have much of the translation, and all that was asked for."""
    return [
        one
        for one in _fitting(state)
        if one.target_lang == state.target_lang
        and (state.bold is None or one.target.count(state.bold) == 1)
        and all_satisfied(state.kept, one.target, None)
        and satisfied(Requirement("revises"), one.target, state.target)
    ]


def _reworded(state: State) -> list[Pair]:
    """Those in the same register: a word is no reason to be less polite."""
    return [one for one in _revised(state) if one.register == state.register]


def _revision(state: State, one: Pair, slots: dict[str, str], *wanted: Requirement) -> Step | None:
    fresh = replace(_with(state, one), kept=(*state.kept, *wanted))
    return _right(state, Step(fresh, slots, (Requirement("revises"),)))


def _with(state: State, one: Pair) -> State:
    """The state with another pair's translation, and what belongs to it."""
    terms = terms_of(one.source, one.target, one.source_lang, one.target_lang, one.terms)
    return replace(
        state,
        target=one.target,
        target_lang=one.target_lang,
        terms=tuple(terms),
        register=one.register,
    )


def _right(state: State, step: Step) -> Step | None:
    """The step, if its answer meets what is wanted: a detector may take a short text for another
    language."""
    wanted = *standing(step.state), *step.wanted
    return step if all_satisfied(wanted, step.state.answer, state.answer) else None


KINDS: dict[str, Kind] = {
    "language": _language,
    "register": _register,
    "require": _require,
    "forbid": _forbid,
}
REVISING = ("register", "require", "forbid")
"""Kinds that say what is to be done with the answer before, which must be a translation."""
ALWAYS = {"language": 0.3}
"""Kinds that fit every pair of some data. Less than for a form: after another number, or a word in
bold, it is too late for another language."""
