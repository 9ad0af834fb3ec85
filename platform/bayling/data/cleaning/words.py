"""The words that texts are compared by, and hashes of them for many texts at once.

A hash of a word is a polynomial over its characters, modulo 2⁶⁴, and one of several words in a row
is a polynomial over theirs: sums over stretches of one array, as long as all texts together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Scripts without spaces between words: each character is taken for a word.
_SINGLE = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")
_ALONE, _JOINED = 2, 1
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

# Odd, so that they have inverses; any others would do.
_IN_WORD, _IN_ROW = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_AT_ONCE = 1 << 18
"""Characters that are hashed together: what the processor's cache holds."""


def words(text: str) -> list[str]:
    """What a text is compared by: its words, without case and punctuation."""
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class Hashed:
    """The words of several texts, one text after the other."""

    words: Hashes
    counts: Numbers
    """How many each text has."""

    @staticmethod
    def of(texts: Sequence[str]) -> Hashed:
        plain = [_plain(text) for text in texts]
        ends = np.cumsum([len(text) for text in plain])
        parts = [_hashed([])]
        first = 0
        while first < len(plain):
            until = (ends[first - 1] if first else 0) + _AT_ONCE
            last = max(first + 1, int(np.searchsorted(ends, until, side="right")))
            parts.append(_hashed(plain[first:last]))
            first = last
        found, counts = zip(*parts, strict=True)
        return Hashed(np.concatenate(found), np.concatenate(counts))

    def rows(self, number: int) -> tuple[Hashes, Numbers]:
        """A hash of every so many words in a row, and the index of the text that each is in."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        size = max(0, len(owner) - number + 1)
        made = np.zeros(size, np.uint64)
        for ahead in range(number):
            made = made * np.uint64(_IN_ROW) + self.words[ahead : ahead + size]
        within = owner[:size] == owner[len(owner) - size :]
        return _mixed(made[within]), owner[:size][within]

    def whole(self) -> Hashes:
        """A hash of all words of each text; the same for all texts without any."""
        starts = np.cumsum(self.counts) - self.counts
        sums = _sums(self.words, starts[self.counts > 0], _IN_ROW)
        made = np.zeros(len(self.counts), np.uint64)
        made[self.counts > 0] = sums
        return mix(made, self.counts.astype(np.uint64))


def mix(*columns: Hashes) -> Hashes:
    """One hash of each row of hashes."""
    made = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        made = _mixed(made * np.uint64(_IN_ROW) + column)
    return made


def _hashed(plain: Sequence[str]) -> tuple[Hashes, Numbers]:
    """The words of texts, and how many each has."""
    # The line break is no letter, so that no word goes on in the next text.
    joined = "".join(f"{text}\n" for text in plain)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[codes]
    begins = kinds == _ALONE
    begins[1:] |= (kinds[1:] == _JOINED) & (kinds[:-1] != _JOINED)
    begins[:1] |= kinds[:1] == _JOINED
    starts = np.flatnonzero(begins)
    # Only those in words count. Mixed, as characters are small numbers that are like each other.
    values = np.where(kinds > 0, _mixed(codes.astype(np.uint64)), np.uint64(0))
    ends = np.cumsum([len(text) + 1 for text in plain], dtype=np.int64)
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    return _mixed(_sums(values, starts, _IN_WORD)), counts


def _sums(values: Hashes, starts: Numbers, factor: int) -> Hashes:
    """Of each stretch that begins at one of `starts`, the polynomial over its values."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    # The power of a value is its place in all of them; divided by that of the stretch's first.
    sums: Hashes = np.add.reduceat(values * _powers(factor, len(values)), starts)
    return sums * _powers(pow(factor, -1, 1 << 64), len(values))[starts]


_POWERS: dict[int, Hashes] = {}


def _powers(factor: int, number: int) -> Hashes:
    """The first so many powers of a number."""
    known = _POWERS.get(factor)
    if known is None or len(known) < number:
        made = np.full(max(number, _AT_ONCE), factor, np.uint64)
        made[0] = 1
        known = _POWERS[factor] = np.multiply.accumulate(made)
    return known[:number]


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a value in all bits of the result (the finaliser of SplitMix64)."""
    values = values + np.uint64(_IN_WORD)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """For every character whether it is in a word, or one by itself, as `_WORD` says."""
    kinds = np.zeros(0x110000, np.uint8)
    every = "".join(map(chr, range(0x110000)))
    for found in re.finditer(r"[^\W_]+", every):
        kinds[found.start() : found.end()] = _JOINED
    for found in re.finditer(f"[{_SINGLE}]+", every):
        kinds[found.start() : found.end()] = _ALONE
    return kinds
