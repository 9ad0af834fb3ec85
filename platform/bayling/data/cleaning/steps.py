"""The steps that look at each pair of sentences by itself.

Each gets the pairs that the steps before it left, all of one direction, and says which of them it
drops and what it found there. `CLEANERS` is the table of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bayling import detection
from bayling.data.cleaning.config import CleaningConfig
from bayling.data.cleaning.lengths import usual_length
from bayling.languages import letters_in_script, name_of, only_in_script

_SHORT = 20
"""Characters below which lengths say little: a word may be translated by three."""
_SURE = 0.5
"""How likely another language must be: of a short text the detector knows little."""


@dataclass(frozen=True)
class Batch:
    """Pairs of one direction; `source[i]` and `target[i]` belong together."""

    source_lang: str
    target_lang: str
    source: Sequence[str]
    target: Sequence[str]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sides(self) -> tuple[tuple[str, Sequence[str]], tuple[str, Sequence[str]]]:
        return (self.source_lang, self.source), (self.target_lang, self.target)

    def take(self, indices: Sequence[int]) -> Batch:
        """The pairs at these places, in this order."""
        return Batch(
            self.source_lang,
            self.target_lang,
            [self.source[index] for index in indices],
            [self.target[index] for index in indices],
        )


Found = dict[int, str]
"""Index of a pair that is dropped → what was found, for a person to read."""
Step = Callable[[Batch, CleaningConfig], Found]


@dataclass(frozen=True)
class Dropped:
    """A pair that does not go on."""

    index: int
    step: str
    found: str


def clean(
    batch: Batch, config: CleaningConfig, steps: Mapping[str, Step]
) -> tuple[list[int], list[Dropped]]:
    """The indices of the pairs that pass all steps, in order, and those that do not."""
    left = list(range(len(batch)))
    dropped = []
    for name, step in steps.items():
        if name in config.skip or not left:
            continue
        found = step(batch.take(left), config)
        dropped += [Dropped(left[place], name, what) for place, what in sorted(found.items())]
        left = [index for place, index in enumerate(left) if place not in found]
    return left, dropped


def _empty(batch: Batch, config: CleaningConfig) -> Found:
    found = {}
    for side, (_, texts) in zip(("source", "target"), batch.sides, strict=True):
        for index, text in enumerate(texts):
            if not text:
                found[index] = f"the {side} is empty"
            elif not any(map(str.isalpha, text)):
                found.setdefault(index, f"the {side} has no letter")
    return found


def _identical(batch: Batch, config: CleaningConfig) -> Found:
    """A copy teaches copying."""
    pairs = enumerate(zip(batch.source, batch.target, strict=True))
    return {
        index: "both sides are the same"
        for index, (source, target) in pairs
        if source == target or source.casefold() == target.casefold()
    }


def _length(batch: Batch, config: CleaningConfig) -> Found:
    most = config.max_characters
    return {
        index: f"{len(text):,} characters are more than {most:,}"
        for _, texts in batch.sides
        for index, text in enumerate(texts)
        if len(text) > most
    }


def _ratio(batch: Batch, config: CleaningConfig) -> Found:
    usual = usual_length(batch.target_lang) / usual_length(batch.source_lang)
    found = {}
    for index, (source, target) in enumerate(zip(batch.source, batch.target, strict=True)):
        ratio = len(target) / (len(source) * usual)
        ratio = max(ratio, 1 / ratio)
        limit = config.max_ratio
        if len(source) < _SHORT and len(target) < _SHORT:
            limit *= 2
        if ratio > limit:
            found[index] = (
                f"{len(source)} and {len(target)} characters: {ratio:.1f} times what is usual"
            )
    return found


_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_LINK = re.compile(r"https?://[^\s<>\"，。）】]+|www\.[^\s<>\"，。）】]+")
_WIKI = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\\|\\n")


def _markup(batch: Batch, config: CleaningConfig) -> Found:
    """Tags, entities and addresses may be there if they are on both sides alike."""
    found = {}
    for index, (source, target) in enumerate(zip(batch.source, batch.target, strict=True)):
        for what, pattern in (("markup", _TAG), ("addresses", _LINK), ("leftovers", _WIKI)):
            if not (pattern.search(source) or pattern.search(target)):
                continue
            here, there = Counter(pattern.findall(source)), Counter(pattern.findall(target))
            if here != there:
                lone = next(iter((here - there) + (there - here)))
                found[index] = f"{what} on one side only: {lone[:60]}"
                break
    return found


def _script(batch: Batch, config: CleaningConfig) -> Found:
    found = {}
    for language, texts in batch.sides:
        for index, text in enumerate(texts):
            if only_in_script(text, language):
                continue
            right, letters = letters_in_script(text, language)
            if right < config.min_script_share * letters:
                found[index] = (
                    f"{right} of {letters} letters are in the script of {name_of(language)}"
                )
    return found


def _language(batch: Batch, config: CleaningConfig) -> Found:
    found = {}
    for language, texts in batch.sides:
        for index, seen in enumerate(detection.judge(texts, language)):
            if seen is None or seen.probability < _SURE:
                continue
            if seen.expected < config.min_language_probability:
                found[index] = (
                    f"looks like {name_of(seen.likeliest)} ({seen.probability:.0%}), "
                    f"not {name_of(language)} ({seen.expected:.0%})"
                )
    return found


CLEANERS: dict[str, Step] = {
    "empty": _empty,
    "identical": _identical,
    "length": _length,
    "ratio": _ratio,
    "markup": _markup,
    "script": _script,
    "language": _language,
}
