"""A conversation about a sentence pair: a translation that is refined turn by turn.

Every turn of the user has requirements that a machine can check: its own, and the earlier wishes
that still stand. An answer that does not meet them, or that repeating the answer before would meet,
drops the conversation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from bayling.data.instructions import refinements, versions
from bayling.data.instructions.building import Dropped, first_wishes, name_of_conversation
from bayling.data.instructions.forms import PromptShares, ask, prompt_language
from bayling.data.instructions.refinements import LAST, Kind, State, standing
from bayling.data.instructions.terms import terms_of
from bayling.data.tables import Pair
from bayling.requirements import Requirement, all_satisfied
from bayling.templates import Conversation, Message

KINDS: dict[str, Kind] = {**refinements.KINDS, **versions.KINDS}
WORDS = {
    language: {**words, **versions.WORDS[language]} for language, words in refinements.WORDS.items()
}
"""Language of the conversation → kind → ways to say it."""
_LATER = {**refinements.ALWAYS, **versions.ALWAYS}
"""Kind → how much it is put back in an order by chance."""


def build(
    pair: Pair,
    more: Pair | None,
    rng: random.Random,
    shares: PromptShares,
    most_turns: int,
    siblings: Sequence[Pair] = (),
) -> Conversation:
    """A conversation of 2 to `most_turns` turns.

    Args:
        more: another pair of the same direction, whose sentence may be added.
        siblings: pairs with the same source that may be used; the pair itself may be among them.

    Raises:
        Dropped: no refinement fits the pair, or an answer does not meet what is asked for.
    """
    asked_in = prompt_language(rng, shares, pair.source_lang, pair.target_lang)
    language = "zh" if asked_in.startswith("zh") else "en"
    state = _state(pair, language, siblings)
    prompt = ask(rng, pair.source, pair.source_lang, pair.target_lang, asked_in)
    wishes = tuple(first_wishes(pair.source, pair.target_lang))
    messages = [Message("user", prompt, wishes), Message("assistant", state.answer)]
    after = _state(more, language) if more is not None else None
    turns = rng.randint(2, max(2, most_turns))
    said: set[str] = set()
    while len(messages) < 2 * turns:
        last = len(messages) == 2 * turns - 2
        step = _next(rng, state, after, said, last)
        if step is None:
            break
        kind, made = step
        said.add(kind)
        state = made.state
        wanted = (
            (*made.wanted, Requirement("changed"))
            if made.answer is not None
            else (*standing(state), *made.wanted, Requirement("changed"))
        )
        text = rng.choice(WORDS[language][kind])
        for name, value in made.slots.items():
            text = text.replace(f"{{{name}}}", value)
        answer = state.answer if made.answer is None else made.answer
        messages += [Message("user", text, wanted), Message("assistant", answer)]
        if kind in LAST:
            break
    if len(messages) < 4:
        raise Dropped("no refinement fits the pair")
    _check(messages)
    return Conversation(
        id=name_of_conversation(tuple(messages)),
        messages=tuple(messages),
        task="interactive",
        source_lang=pair.source_lang,
        target_lang=pair.target_lang,
        origin=pair.origin,
    )


def _state(pair: Pair, language: str, siblings: Sequence[Pair] = ()) -> State:
    terms = terms_of(pair.source, pair.target, pair.source_lang, pair.target_lang, pair.terms)
    sides = pair.source, pair.target, pair.source_lang, pair.target_lang
    return State(*sides, tuple(terms), language, register=pair.register, siblings=tuple(siblings))


def _next(
    rng: random.Random, state: State, more: State | None, said: set[str], last: bool
) -> tuple[str, refinements.Step] | None:
    """A kind that fits, and was not asked for before (but for a correction), and its turn."""
    not_now = {*said, *(() if last else LAST)}
    if "explain" in said:
        # The answer before may be no translation, and shorter than it.
        not_now |= {"first", *versions.REVISING}
    kinds = [kind for kind in KINDS if kind not in not_now]
    if state.number is not None and rng.random() < 0.5:
        kinds = ["correct", *(kind for kind in kinds if kind != "correct")]
    else:
        kinds.sort(key=lambda kind: rng.random() + _LATER.get(kind, 0.0))
    for kind in kinds:
        step = KINDS[kind](rng, state, more)
        if step is not None:
            return kind, step
    return None


def _check(messages: list[Message]) -> None:
    previous = None
    for user, assistant in zip(messages[::2], messages[1::2], strict=True):
        if not all_satisfied(user.requirements, assistant.content, previous):
            raise Dropped("an answer fails its own requirement")
        if previous is not None and all_satisfied(user.requirements, previous, previous):
            raise Dropped("the answer before would do as well")
        previous = assistant.content
