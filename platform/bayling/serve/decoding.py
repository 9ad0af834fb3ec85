"""From tokens to text, piece by piece: whole characters, names in place of placeholders, and
nothing from a stop string on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no character, or not a whole one yet."""


class TextDecoder:
    """Joins the pieces of an answer into the very text that decoding it whole gives."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        """The tokens of the piece before, and those whose text is not out yet."""
        self._known = 0
        """How many of these the caller has the text of."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens add; without a character that lacks bytes still to come."""
        self._ids += ids
        return self._take(last=False)

    def flush(self) -> str:
        """What was held back; for the end of an answer."""
        return self._take(last=True)

    def _take(self, *, last: bool) -> str:
        # A decoder may write a token differently at the start of a text (without its space),
        # so the tokens before are decoded along and their text is cut off again.
        before = self._decode(self._ids[: self._known])
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) and not last:
            return ""
        self._ids = self._ids[self._known :]
        self._known = len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class StopStrings:
    """Cuts a text off before the first of some strings, wherever its pieces break."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        """The end of the text, as far as it may be the beginning of a stop string."""

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._stops)

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is certain by now, and whether a stop string came."""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back; for the end of an answer."""
        text, self._held = self._held, ""
        return text


class Placeholders:
    """Writes names into a text where a model wrote placeholders for them.

    The published BayLing models are anonymised: they say `[NAME]` where they mean themselves.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._any = re.compile("|".join(map(re.escape, names))) if names else None
        self._held = ""
        """The end of the text, as far as it may be the beginning of a placeholder."""

    def push(self, text: str) -> str:
        """The text that is certain by now."""
        if self._any is None:
            return text
        text = self._held + text
        keep = max(_overlap(text, placeholder) for placeholder in self._names)
        self._held = text[len(text) - keep :]
        return self._any.sub(lambda found: self._names[found[0]], text[: len(text) - keep])

    def flush(self) -> str:
        """What was held back; for the end of an answer."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, word: str) -> int:
    """The length of the longest end of `text` that `word` starts with, but is longer than."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0
