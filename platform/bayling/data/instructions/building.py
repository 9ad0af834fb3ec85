"""A conversation from a sentence pair: a plain translation, or one that uses required words."""

from __future__ import annotations

import hashlib
import random

from bayling.data.instructions import forms
from bayling.data.instructions.forms import PromptShares
from bayling.data.instructions.terms import terms_of
from bayling.data.tables import Pair
from bayling.prompts import include_prompt
from bayling.requirements import Requirement, all_satisfied
from bayling.templates import Conversation, Message

_MOST_WORDS = 3


class Dropped(Exception):
    """No conversation came of this row. The message is the reason."""


def turned(pair: Pair) -> Pair:
    """The pair in the other direction."""
    return Pair(
        pair.target_lang,
        pair.source_lang,
        pair.target,
        pair.source,
        pair.origin,
        pair.file,
        pair.line,
        tuple((there, here) for here, there in pair.terms),
        pair.register,
    )


def build(pair: Pair, task: str, rng: random.Random, shares: PromptShares) -> Conversation:
    """A conversation about a pair.

    Args:
        task: translate, or constrained; a pair without a term becomes a plain translation.

    Raises:
        Dropped: the pair's own translation does not meet what is asked for.
    """
    language = forms.prompt_language(rng, shares, pair.source_lang, pair.target_lang)
    wanted = first_wishes(pair.source, pair.target_lang)
    words: list[str] = []
    if task == "constrained":
        terms = terms_of(pair.source, pair.target, pair.source_lang, pair.target_lang, pair.terms)
        chosen = rng.sample(terms, min(len(terms), rng.randint(1, _MOST_WORDS)))
        words = [there for _, there in chosen]
    prompt = forms.ask(rng, pair.source, pair.source_lang, pair.target_lang, language)
    if words:
        # The words are asked for in the two languages that BayLing has a form for.
        prompt += "\n" + include_prompt(words, "zh" if language.startswith("zh") else "en")
        wanted.append(Requirement("contains", tuple(words)))
    if not all_satisfied(wanted, pair.target, None):
        raise Dropped("an answer fails its own requirement")
    messages = (Message("user", prompt, tuple(wanted)), Message("assistant", pair.target))
    return Conversation(
        id=name_of_conversation(messages),
        messages=messages,
        task="constrained" if words else "translate",
        source_lang=pair.source_lang,
        target_lang=pair.target_lang,
        origin=pair.origin,
    )


def first_wishes(source: str, target_lang: str) -> list[Requirement]:
    """What every translation has to meet: the right script, and not to be a copy."""
    return [Requirement("script", (target_lang,)), Requirement("lacks", (source,))]


def name_of_conversation(messages: tuple[Message, ...]) -> str:
    """A hash of what is said in it."""
    said = repr([(message.role, message.content) for message in messages])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
