"""Conversations from CLDR values: plain translations, and ones that are refined turn by turn.

Row `index` of a corpus depends on the seed and the index alone, so any number of workers
makes the same corpus.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from bayling.data import cldr
from bayling.data.cldr import FORMS, NotInCldr, Value
from bayling.data.config import PIVOTS, DataConfig, trained_directions
from bayling.languages import name_of
from bayling.prompts import TRANSLATE, translate_prompt
from bayling.requirements import Requirement, all_satisfied
from bayling.templates import Conversation, Message

# In the language of the conversation's instructions; after BayLing's examples of interactive
# translation. The one for a required word is BayLing's own.
_REFINE: dict[str, dict[str, str]] = {
    "en": {
        "shorter": "Make it shorter.",
        "other_language": "Now in {target}.",
        "other_value": "Replace {old} with {new}.",
        "required_word": "Make sure to include these words: {word}",
    },
    "zh": {
        "shorter": "请更简短。",
        "other_language": "现在用{target}。",
        "other_value": "把{old}换成{new}。",
        "required_word": "确保包含这些词：{word}",
    },
}
REFINEMENTS = ("shorter", "other_language", "other_value", "required_word")


def phrases(tags: list[str]) -> list[str]:
    """The fixed words of all instructions, longest first, for these target languages."""
    found = {
        form.format(target=name_of(tag, language), source="").strip()
        for language, form in TRANSLATE.items()
        for tag in tags
    }
    for language, forms in _REFINE.items():
        for form in forms.values():
            if "{target}" in form:
                found.update(form.format(target=name_of(tag, language)) for tag in tags)
            else:
                found.update(part.strip() for part in re.split(r"\{\w+\}", form))
    return sorted((text for text in found if len(text) > 1), key=lambda text: (-len(text), text))


class Dropped(Exception):
    """No conversation came of this row. The message is the reason."""


@dataclass(frozen=True)
class _State:
    """What the user wants by now."""

    value: Value
    source: str
    target: str
    form: str


def row_rng(seed: int, part: str, index: int) -> random.Random:
    digest = hashlib.sha256(f"{seed} {part} {index}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def draw_value(
    rng: random.Random, config: DataConfig, seed: int, *, heldout: bool, kind: str | None = None
) -> Value:
    """A random value from one side of the split."""
    while True:
        value = cldr.draw(rng, kind)
        if cldr.is_heldout(value, config.heldout_share, seed) is heldout:
            return value


def build(
    index: int,
    config: DataConfig,
    seed: int,
    *,
    part: str = "train",
    interactive: bool | None = None,
) -> Conversation:
    """Row `index` of the training corpus, or of the held-out one with `part="heldout"`.

    Raises:
        Dropped: CLDR lacks a text that the row needs, or an answer fails its own requirement.
    """
    rng = row_rng(seed, part, index)
    heldout = part != "train"
    source, target = rng.choice(trained_directions(config.languages))
    prompt_language = "zh" if rng.random() < config.chinese_prompts else "en"
    if interactive is None:
        interactive = rng.random() < config.interactive_share
    try:
        if interactive:
            messages = _interactive(rng, source, target, prompt_language, config, seed, heldout)
        else:
            value = draw_value(rng, config, seed, heldout=heldout)
            messages = _first_turn(
                _State(value, source, target, FORMS[value.kind][0]), prompt_language
            )
    except NotInCldr as error:
        raise Dropped(str(error)) from None
    _check(messages)
    name = hashlib.sha256(repr([(m.role, m.content) for m in messages]).encode()).hexdigest()
    return Conversation(
        id=name[:16],
        messages=tuple(messages),
        task="interactive" if interactive else "translate",
        source_lang=source,
        target_lang=target,
        origin=cldr.ORIGIN,
    )


def _interactive(
    rng: random.Random,
    source: str,
    target: str,
    prompt_language: str,
    config: DataConfig,
    seed: int,
    heldout: bool,
) -> list[Message]:
    """A translation that is refined turn by turn."""
    turns = rng.randint(2, config.max_turns)
    value = draw_value(rng, config, seed, heldout=heldout)
    form = FORMS[value.kind][0]
    state = _State(value, source, target, form)
    messages = _first_turn(state, prompt_language)
    for _ in range(turns - 1):
        step = _refine(rng, state, prompt_language, config, seed, heldout)
        if step is None:
            break
        state, turn = step
        messages += turn
    if len(messages) < 4:
        raise Dropped("no refinement fits the value")
    return messages


def _answer(state: _State) -> cldr.Sentence:
    return cldr.write(state.value, state.form, state.target)


def _source(state: _State) -> str:
    return cldr.write(state.value, state.form, state.source).text


def _first_turn(state: _State, prompt_language: str) -> list[Message]:
    answer = _answer(state)
    source = _source(state)
    wanted = (Requirement("script", (state.target,)), Requirement("contains", answer.keywords))
    prompt = translate_prompt(source, state.target, prompt_language)
    return [Message("user", prompt, wanted), Message("assistant", answer.text)]


def _refine(
    rng: random.Random,
    state: _State,
    prompt_language: str,
    config: DataConfig,
    seed: int,
    heldout: bool,
) -> tuple[_State, list[Message]] | None:
    """One more turn of a kind that fits the state; None when no kind does."""
    makers: dict[str, Callable[[], tuple[_State, dict[str, str], list[Requirement]] | None]] = {
        "shorter": lambda: _shorter(state),
        "other_language": lambda: _other_language(rng, state, prompt_language, config),
        "other_value": lambda: _other_value(rng, state, config, seed, heldout),
        "required_word": lambda: _required_word(state),
    }
    for kind in rng.sample(REFINEMENTS, len(REFINEMENTS)):
        try:
            made = makers[kind]()
        except NotInCldr:
            continue
        if made is None:
            continue
        fresh, slots, wanted = made
        try:
            answer = _answer(fresh)
            if answer.text == _answer(state).text:
                continue
        except NotInCldr:
            continue
        wanted = [
            Requirement("script", (fresh.target,)),
            Requirement("contains", answer.keywords),
            Requirement("changed"),
            *wanted,
        ]
        prompt = _REFINE[prompt_language][kind].format(**slots)
        return fresh, [
            Message("user", prompt, tuple(wanted)),
            Message("assistant", answer.text),
        ]
    return None


_Refinement = tuple[_State, dict[str, str], list[Requirement]]


def _shorter(state: _State) -> _Refinement | None:
    forms = FORMS[state.value.kind]
    if state.form not in forms[:-1]:
        return None
    fresh = replace(state, form=forms[forms.index(state.form) + 1])
    if len(_answer(fresh).text) >= len(_answer(state).text):
        return None
    # A shorter form may leave out words that the long one needs, so its own keywords count.
    return fresh, {}, [Requirement("shorter")]


def _other_language(
    rng: random.Random, state: _State, prompt_language: str, config: DataConfig
) -> _Refinement | None:
    targets = [
        tag
        for tag in config.languages
        if tag not in (state.source, state.target) and (state.source in PIVOTS or tag in PIVOTS)
    ]
    if not targets:
        return None
    fresh = replace(state, target=rng.choice(targets))
    return fresh, {"target": name_of(fresh.target, prompt_language)}, []


def _other_value(
    rng: random.Random, state: _State, config: DataConfig, seed: int, heldout: bool
) -> _Refinement | None:
    if state.value.kind == "date" and state.form == "full":
        return None  # another year has another day of the week: that is not translation
    for _ in range(100):
        value = cldr.another(rng, state.value)
        if cldr.is_heldout(value, config.heldout_share, seed) is heldout:
            break
    else:
        return None
    old, new = cldr.changed_part(state.value, value, state.source)
    return replace(state, value=value), {"old": old, "new": new}, []


def _required_word(state: _State) -> _Refinement | None:
    form = cldr.WORDED.get(state.value.kind)
    if form is None or form == state.form:
        return None
    if state.value.kind == "list":
        word = cldr.alternative_word(state.target)
    else:
        word = cldr.weekday(state.value, state.target)
    fresh = replace(state, form=form)
    return fresh, {"word": word}, [Requirement("contains", (word,))]


def _check(messages: list[Message]) -> None:
    """Drop a conversation whose own answers do not meet what it asks for."""
    previous = None
    for user, assistant in zip(messages[::2], messages[1::2], strict=True):
        if not all_satisfied(user.requirements, assistant.content, previous):
            raise Dropped("an answer fails its own requirement")
        previous = assistant.content
