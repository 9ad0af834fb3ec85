"""What can be wrong with a translation whatever its words: the language, a copy, a loop, nothing.

None of it needs to know what is right, but the reference says what is usual: what the reference
does too (a name that stays as it is, a line of dots) is no fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import sacrebleu

from bayling import detection
from bayling.languages import in_script, letters_in_script

SURE = 0.9
"""How likely another language has to be for a text to be called one in it."""
ENOUGH_LETTERS = 20
"""Fewer do not tell a language: see `detection` for how often it would be wrong."""
_LOOP = re.compile(r"(.{1,80}?)\1{4,}", re.DOTALL)
_LOOP_LENGTH = 24


def off_target(
    outputs: Sequence[str],
    references: Sequence[str],
    language: str,
    others: Sequence[Mapping[str, str]] | None = None,
) -> list[bool]:
    """Whether each output is in another script or language than asked for; an empty one is.

    Args:
        language: the BCP-47 tag of the one that was asked for.
        others: for each output, the same sentence in other languages by tag, where it is known:
            an output that is closer to one of those is in that language. This is how short texts
            are told, of whose letters no detector is sure.
    """
    judged: list[bool | None] = []
    for index, (output, reference) in enumerate(zip(outputs, references, strict=True)):
        text = output.strip()
        if not text or (not in_script(text, language) and in_script(reference, language)):
            judged.append(True)
        elif text == reference.strip():
            judged.append(False)
        elif others is not None and others[index]:
            judged.append(_closer_to_another(text, reference, others[index]))
        else:
            judged.append(None)
    open_ = [index for index, verdict in enumerate(judged) if verdict is None]
    if open_:
        verdicts = _in_another(
            [outputs[index] for index in open_], [references[index] for index in open_], language
        )
        for index, verdict in zip(open_, verdicts, strict=True):
            judged[index] = verdict
    return [bool(verdict) for verdict in judged]


def no_letter_of_script(outputs: Sequence[str], language: str) -> list[bool]:
    """Whether each output has no letter at all of the language's script."""
    return [letters_in_script(output, language)[0] == 0 for output in outputs]


def copied(outputs: Sequence[str], sources: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each output is its source, where the reference is not."""
    return [
        _plain(output) == _plain(source) != _plain(reference)
        for output, source, reference in zip(outputs, sources, references, strict=True)
    ]


def looping(outputs: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each output says something five times running, where the reference does not."""
    return [
        _loops(output) and not _loops(reference)
        for output, reference in zip(outputs, references, strict=True)
    ]


def empty(outputs: Sequence[str]) -> list[bool]:
    return [not output.strip() for output in outputs]


def _closer_to_another(output: str, reference: str, others: Mapping[str, str]) -> bool:
    right = _similarity(output, reference)
    return any(_similarity(output, text) > right for text in others.values() if text != reference)


def _similarity(output: str, reference: str) -> float:
    return float(sacrebleu.sentence_chrf(output, [reference]).score)


def _in_another(outputs: Sequence[str], references: Sequence[str], language: str) -> list[bool]:
    """By the language detector. What it says of the reference it may say of the output."""
    verdicts = []
    for output, reference, judged in zip(
        outputs, references, detection.judge(outputs, language), strict=True
    ):
        found = (
            judged is not None
            and judged.likeliest != language
            and judged.probability >= SURE
            and letters_in_script(output, language)[1] >= ENOUGH_LETTERS
        )
        if found and judged is not None:
            [right] = detection.judge([reference], language)
            found = right is None or right.likeliest != judged.likeliest
        verdicts.append(found)
    return verdicts


@lru_cache(maxsize=65536)
def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _loops(text: str) -> bool:
    return any(
        found.end() - found.start() >= _LOOP_LENGTH and found.group(1).strip()
        for found in _LOOP.finditer(text)
    )
