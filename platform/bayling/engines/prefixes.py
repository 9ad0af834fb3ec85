"""Keys and values of what has been read and written before, by the beginnings they are of.

In an interactive translation each turn repeats the whole conversation. What an answer leaves
behind is kept, and a prompt that goes on from it is read from there. As in vLLM's automatic prefix
caching, beginnings are found by the hashes of whole blocks of tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16
"""Tokens that are known together or not at all."""
_LEAST = 32
_WORTH = 0.25
"""The tokens, and the share of a prompt, that must be known for it to be read apart from others:
that costs the running requests about a token."""


def blocks(token_ids: Sequence[int], before: Hashable = None) -> Iterator[int]:
    """A hash for each whole block: of all tokens up to its end, and of `before`."""
    end = hash(before)
    for start in range(0, len(token_ids) - BLOCK + 1, BLOCK):
        end = hash((end, *token_ids[start : start + BLOCK]))
        yield end


@dataclass(eq=False)
class _Kept:
    token_ids: list[int]
    chain: list[int]
    """The hashes of its blocks."""
    states: Tensor
    """[layers, 2, key-value heads, tokens, head size]: keys, then values."""


class PrefixCache:
    """Of the newest texts, as many as there is room for.

    Args:
        most_tokens: how many tokens' keys and values are kept in all.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        """By the hash of the last block; the one that was of no use for longest is first."""
        self._with: dict[int, _Kept] = {}
        """A block's hash → the newest text that has it."""
        self.tokens = 0
        """How many are kept."""

    def find(self, token_ids: Sequence[int]) -> Tensor | None:
        """The longest beginning of a prompt that is known, where it is worth its while.

        Returns:
            [layers, 2, key-value heads, tokens, head size], of fewer tokens than the prompt has.
        """
        found = None
        for number, block in enumerate(blocks(token_ids[:-1]), 1):
            if (kept := self._with.get(block)) is not None:
                found = kept, number * BLOCK
        if found is None:
            return None
        kept, known = found
        if known < max(_LEAST, _WORTH * len(token_ids)):
            return None
        if kept.token_ids[:known] != list(token_ids[:known]):  # two texts of one hash
            return None
        self._kept.move_to_end(kept.chain[-1])
        return kept.states[:, :, :, :known]

    def keep(self, token_ids: Sequence[int], states: Callable[[int], Tensor]) -> None:
        """Keep a text's whole blocks.

        Args:
            states: gives a copy of the keys and values of its first so many tokens, in the form
                that `find` returns.
        """
        tokens = len(token_ids) // BLOCK * BLOCK
        if not _LEAST <= tokens <= self._most_tokens:
            return
        chain = list(blocks(token_ids))
        longer = self._with.get(chain[-1])
        if longer is not None:
            self._kept.move_to_end(longer.chain[-1])
            return
        for block in chain:  # what this one goes on from needs no place of its own
            if block in self._kept:
                self._drop(block)
        while self._kept and self.tokens + tokens > self._most_tokens:
            self._drop(next(iter(self._kept)))
        kept = _Kept(list(token_ids[:tokens]), chain, states(tokens))
        self._kept[chain[-1]] = kept
        self._with.update(dict.fromkeys(chain, kept))
        self.tokens += tokens

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()
        self._with.clear()
        self.tokens = 0

    def _drop(self, last_block: int) -> None:
        kept = self._kept.pop(last_block)
        self.tokens -= len(kept.token_ids)
        for block in kept.chain:
            if self._with.get(block) is kept:
                del self._with[block]
