"""Test sentences that must not be in the training data, found by what they share with it.

A pair is contaminated if one of its sides shares so many words in a row with a sentence of a test
set (in any language of it), or is a whole sentence of it. What is compared has neither case nor
punctuation. Words in a row are 64-bit hashes in one sorted array: 8 bytes for each place of the
test sets, mapped into memory by every task alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from bayling.data.cleaning.config import CleaningConfig
from bayling.data.cleaning.steps import Batch, Found, Step

# Scripts without spaces between words: each character is taken for a word.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]|[^\W_]+"
)
Hashes = npt.NDArray[np.uint64]


def words(text: str) -> list[str]:
    """What a text is compared by."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True)
class TestTexts:
    """The sentences of all test sets, as hashes."""

    __test__ = False  # it is no test of pytest's

    places: Hashes
    """Sorted: every `ngram` words in a row, and every shorter sentence as a whole."""
    ngram: int

    @staticmethod
    def of(texts: Iterable[str], ngram: int) -> TestTexts:
        found = np.concatenate([np.zeros(0, np.uint64), *(_hashes(one, ngram) for one in texts)])
        return TestTexts(np.unique(found), ngram)

    def write(self, path: Path) -> None:
        np.save(path, self.places)

    @staticmethod
    def read(path: Path, ngram: int) -> TestTexts:
        return TestTexts(np.load(path, mmap_mode="r"), ngram)

    def step(self) -> Step:
        """The step of cleaning that drops what the test sets hold."""

        def contaminated(batch: Batch, config: CleaningConfig) -> Found:
            found: Found = {}
            for side, (_, texts) in zip(("source", "target"), batch.sides, strict=True):
                for index in self.shared(texts):
                    found.setdefault(index, f"the {side} shares words with a test set")
            return found

        return contaminated

    def shared(self, texts: Sequence[str]) -> list[int]:
        """Indices of the texts that share something."""
        if not len(self.places):
            return []
        each = [_hashes(text, self.ngram) for text in texts]
        owner = np.repeat(np.arange(len(each)), [len(one) for one in each])
        everything = np.concatenate([np.zeros(0, np.uint64), *each])
        place = np.searchsorted(self.places, everything)
        place[place == len(self.places)] = 0
        shared = self.places[place] == everything
        return [int(index) for index in np.unique(owner[shared])]


def _hashes(text: str, ngram: int) -> Hashes:
    """Of all `ngram` words in a row; of the whole text where it has fewer."""
    found = words(text)
    if not found:
        return np.zeros(0, np.uint64)
    number = max(1, len(found) - ngram + 1)
    digests = (
        xxhash.xxh3_64_intdigest("\0".join(found[first : first + ngram]).encode())
        for first in range(number)
    )
    return np.fromiter(digests, np.uint64, number)
