"""Test sentences that must not be in the training data, found by what they share with it.

A pair is contaminated if one of its sides shares so many words in a row with a sentence of a test
set (in any language of it), or is a whole sentence of it. What is compared has neither case nor
punctuation. Words in a row are 64-bit hashes in one sorted array: 8 bytes for each place of the
test sets, mapped into memory by every task alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayling.data.cleaning.config import CleaningConfig
from bayling.data.cleaning.steps import Batch, Found, Step
from bayling.data.cleaning.words import Hashed, Hashes

_AT_ONCE = 10_000
"""Texts of test sets."""


@dataclass(frozen=True)
class TestTexts:
    """The sentences of all test sets, as hashes."""

    __test__ = False  # it is no test of pytest's

    places: Hashes
    """Sorted: every `ngram` words in a row, and every shorter sentence as a whole."""
    ngram: int

    @staticmethod
    def of(texts: Iterable[str], ngram: int) -> TestTexts:
        left = iter(texts)
        found = [np.zeros(0, np.uint64)]
        while some := list(islice(left, _AT_ONCE)):
            found.append(_hashes(some, ngram)[0])
        return TestTexts(np.unique(np.concatenate(found)), ngram)

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
        hashes, owner = _hashes(texts, self.ngram)
        place = np.searchsorted(self.places, hashes)
        place[place == len(self.places)] = 0
        shared = self.places[place] == hashes
        return [int(index) for index in np.unique(owner[shared])]


def _hashes(texts: Sequence[str], ngram: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Of all `ngram` words in a row of each text, or of the whole of a text that has fewer; and the
    index of the text that each belongs to."""
    hashed = Hashed.of(texts)
    rows, owner = hashed.rows(ngram)
    short = np.flatnonzero((hashed.counts > 0) & (hashed.counts < ngram))
    return np.concatenate([rows, hashed.whole()[short]]), np.concatenate([owner, short])
