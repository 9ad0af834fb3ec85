"""What a user asks for after a first translation, where the right answer follows from the pair.

Each kind changes what is wanted in a way that is right in any language: a number is another one, a
sentence comes or goes, the form is another, a word is pointed at. What needs a
second translation (another word, a more polite version) is in `versions`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bayling.data.instructions.terms import Term
from bayling.data.tables import Pair
from bayling.languages import name_of
from bayling.requirements import Requirement, all_satisfied

_NUMBER = re.compile(r"(?<![\d.,:/\-–])\d{1,4}(?![\d.,:/\-–%]*\d)")
"""One that is no part of a date, a time, a decimal or a longer number."""
_END = re.compile(r"(?<=[.!?])\s+(?=[^\s])|(?<=[。！？])(?=.)")

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "number": ("Replace {old} with {new}.", "Make it {new} instead of {old}."),
        "correct": (
            "Sorry, I meant {new}, not {old}.",
            "No, {new} is right. {old} was my mistake.",
        ),
        "add": ("Add this sentence at the end: {more}", "Also translate this, after it: {more}"),
        "first": ("Only the first sentence, please.", "That is too long: just the first sentence."),
        "bold": ("Put “{word}” in bold, with **.", "Set “{word}” in Markdown bold."),
        "quotes": ("Put the whole translation in quotation marks: “ ”.",),
        "json": ('Give it as a JSON object with the key "translation".',),
        "explain": ("How did you translate “{word}”?", "Which words stand for “{word}”?"),
        "back": ("Now translate it back into {language}.", "And back into {language}?"),
    },
    "zh": {
        "number": ("把{old}换成{new}。", "把{old}改为{new}。"),
        "correct": ("对不起，我是说{new}，不是{old}。", "不对，应该是{new}，{old}是我写错了。"),
        "add": ("在后面再加上这句话的翻译：{more}", "请接着翻译这一句，放在后面：{more}"),
        "first": ("只要第一句话。", "太长了，只保留第一句。"),
        "bold": ("请用 ** 把“{word}”加粗。", "把“{word}”设为 Markdown 粗体。"),
        "quotes": ("请给整个译文加上引号“”。",),
        "json": ('请以 JSON 对象的形式给出，键为 "translation"。',),
        "explain": ("“{word}”你是怎么翻译的？", "哪些词对应“{word}”？"),
        "back": ("现在请翻译回{language}。", "再翻译回{language}呢？"),
    },
}
"""Language of the conversation → kind → ways to say it."""
_EXPLAINED = {"en": "“{here}” is “{there}”.", "zh": "“{here}”译为“{there}”。"}


@dataclass(frozen=True)
class State:
    """What is wanted by now."""

    source: str
    target: str
    source_lang: str
    target_lang: str
    terms: tuple[Term, ...]
    language: str
    """Of the prompts: a key of `WORDS`."""
    shape: str = "plain"
    bold: str | None = None
    number: str | None = None
    """The one that was asked for, in place of the source's."""
    register: str = ""
    siblings: tuple[Pair, ...] = ()
    """What else the data has for the source that the conversation began with."""
    kept: tuple[Requirement, ...] = ()
    """Of words that were asked for or are to be avoided."""
    rivals: tuple[str, ...] = ()
    """Languages that are not to be answered in, where the script does not tell them."""

    @property
    def answer(self) -> str:
        text = self.target
        if self.bold is not None:
            text = text.replace(self.bold, f"**{self.bold}**", 1)
        if self.shape == "json":
            return json.dumps({"translation": text}, ensure_ascii=False)
        return f"“{text}”" if self.shape == "quotes" else text


@dataclass(frozen=True)
class Step:
    """One more turn."""

    state: State
    slots: Mapping[str, str]
    wanted: tuple[Requirement, ...]
    """Beside those of the state, which stand until they are taken back."""
    answer: str | None = None
    """Where it is no translation."""


def standing(state: State) -> tuple[Requirement, ...]:
    """What every translation from here on has to meet."""
    wanted = [Requirement("script", (state.target_lang,)), *state.kept]
    if state.rivals:
        wanted.append(Requirement("language", (state.target_lang, *state.rivals)))
    if state.number is not None:
        wanted.append(Requirement("contains", (state.number,)))
    if state.bold is not None:
        wanted.append(Requirement("contains", (f"**{state.bold}**",)))
    if state.shape == "json":
        wanted.append(Requirement("json", ("translation",)))
    if state.shape == "quotes":
        wanted.append(Requirement("wrapped", ("“", "”")))
    return tuple(wanted)


def _number(rng: random.Random, state: State, more: State | None) -> Step | None:
    found = _NUMBER.findall(state.source)
    both = [one for one in found if found.count(one) == 1 and _once(one, state.target)]
    if state.number is not None or not both:
        return None
    old = rng.choice(both)
    return _renumbered(state, old, _another(rng, old, state))


def _correct(rng: random.Random, state: State, more: State | None) -> Step | None:
    """Only after a number was asked for: that wish is taken back."""
    if state.number is None:
        return None
    return _renumbered(state, state.number, _another(rng, state.number, state))


def _renumbered(state: State, old: str, new: str) -> Step:
    fresh = replace(
        state,
        source=_put(state.source, old, new),
        target=_put(state.target, old, new),
        number=new,
    )
    return Step(fresh, {"old": old, "new": new}, (Requirement("lacks", (old,)),))


def _another(rng: random.Random, old: str, state: State) -> str:
    """As long a number that is in none of the texts."""
    low = max(2, 10 ** (len(old) - 1))
    while True:
        new = str(rng.randint(low, 10 ** len(old) - 1 + 7 * (len(old) == 1)))
        if new != old and old not in new and new not in state.source and new not in state.target:
            return new


def _once(number: str, text: str) -> bool:
    return text.count(number) == 1 and _NUMBER.findall(text).count(number) == 1


def _put(text: str, old: str, new: str) -> str:
    return text.replace(old, new, 1)


def _add(rng: random.Random, state: State, more: State | None) -> Step | None:
    if more is None or state.shape != "plain" or not _ended(state.target):
        return None
    if more.target_lang != state.target_lang or not all_satisfied(_lacking(state), more.target, ""):
        return None
    glue = "" if state.target[-1] in "。！？" else " "
    fresh = replace(
        state,
        source=f"{state.source} {more.source}",
        target=f"{state.target}{glue}{more.target}",
    )
    kept = state.answer
    return Step(fresh, {"more": more.source}, (Requirement("extends", (kept,)),))


def _lacking(state: State) -> list[Requirement]:
    """What a sentence has to meet that is added to the others."""
    return [one for one in state.kept if one.kind == "lacks"]


def _first(rng: random.Random, state: State, more: State | None) -> Step | None:
    here, there = _END.split(state.source), _END.split(state.target)
    if len(here) != len(there) or len(here) < 2 or state.bold or state.number or state.kept:
        return None
    fresh = replace(state, source=here[0], target=there[0])
    return Step(fresh, {}, (Requirement("shorter"),))


def _bold(rng: random.Random, state: State, more: State | None) -> Step | None:
    words = [there for _, there in state.terms if state.target.count(there) == 1]
    if state.bold is not None or not words:
        return None
    word = rng.choice(words)
    return Step(replace(state, bold=word), {"word": word}, ())


def _quotes(rng: random.Random, state: State, more: State | None) -> Step | None:
    if state.shape != "plain" or any(mark in state.target for mark in '“”"„«»'):
        return None
    return Step(replace(state, shape="quotes"), {}, ())


def _json(rng: random.Random, state: State, more: State | None) -> Step | None:
    return None if state.shape != "plain" else Step(replace(state, shape="json"), {}, ())


def _explain(rng: random.Random, state: State, more: State | None) -> Step | None:
    """A question about the translation, which itself stays as it is."""
    known = [
        (here, there)
        for here, there in state.terms
        if here in state.source and there in state.target
    ]
    if not known:
        return None
    here, there = rng.choice(known)
    said = _EXPLAINED[state.language].format(here=here, there=there)
    if len(said) >= len(state.answer):
        return None
    # Shorter, or the whole translation would do for an answer.
    wanted = Requirement("contains", (there,)), Requirement("shorter")
    return Step(state, {"word": here}, wanted, said)


def _back(rng: random.Random, state: State, more: State | None) -> Step | None:
    wanted = Requirement("script", (state.source_lang,)), Requirement("resembles", (state.source,))
    language = name_of(state.source_lang, state.language)
    return Step(state, {"language": language}, wanted, state.source)


def _ended(text: str) -> bool:
    return text[-1:] in ".!?。！？।"


Kind = Callable[[random.Random, State, State | None], Step | None]
KINDS: dict[str, Kind] = {
    "number": _number,
    "correct": _correct,
    "add": _add,
    "first": _first,
    "bold": _bold,
    "quotes": _quotes,
    "json": _json,
    "explain": _explain,
    "back": _back,
}
LAST = ("back",)
"""Kinds that nothing follows."""
ALWAYS = {"quotes": 0.6, "json": 0.6}
"""Kinds that fit nearly every pair, and would crowd out the others, were they not put back by so
much in an order by chance."""
