"""py3langid's model over many texts at once, with what it says of each alone.

The library walks through one text after the other in Python. Here all of them take a byte at a
time, as arrays: cleaning asks twice for every pair of a corpus, and spent most of its time on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_AT_ONCE = 256
"""Texts of one walk: enough that numpy's own cost is small, little enough for the cache."""


class ManyTexts:
    """The automaton and the tables of a model, as arrays.

    Args:
        model: of py3langid, with normalised probabilities.
    """

    def __init__(self, model: LanguageIdentifier) -> None:
        self._encode = model._encode
        after = np.asarray(model.tk_nextmove)
        # Of each step of the automaton: where the next one's are, and the feature that it meets.
        rows = np.asarray(model.tk_row, np.int32) << 8
        self._first, self._steps = rows[0], rows[after]
        self._features = np.asarray(model.tk_output, np.int32)[after]
        self._weights, self._prior = model.nb_ptc, model.nb_pc
        self._aliases = model._alias_pairs
        first = {label: place for place, label in reversed(list(enumerate(model.nb_classes)))}
        self.columns = sorted(first.values())
        """Of the labels, each once; further columns of a label are counted with its first."""
        self.labels = [model.nb_classes[column] for column in self.columns]

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The probability of each of the model's classes: one row a text."""
        made = [self._of(texts[at : at + _AT_ONCE]) for at in range(0, len(texts), _AT_ONCE)]
        return np.concatenate(made) if made else np.zeros((0, len(self._prior)), np.float32)

    def _of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = [self._encode(text) for text in texts]
        lengths = np.asarray([len(text) for text in encoded])
        rows, features = self._walk(encoded, lengths)
        # Few of the model's 100,000 features are met in so few texts.
        known = np.zeros(len(self._weights), np.bool_)
        known[features] = True
        met = np.flatnonzero(known)
        place = (np.cumsum(known) - 1)[features]
        flat = np.bincount(rows * len(met) + place, minlength=len(texts) * len(met))
        often = flat.reshape(len(texts), len(met))
        # Whole numbers, and small ones: their logarithms are looked up.
        logarithms = np.log1p(np.arange(often.max(initial=0) + 1), dtype=np.float32)
        weights: NDArray[np.float32] = self._weights[met].astype(np.float32)
        scores: NDArray[np.float32] = logarithms[often] @ weights + self._prior
        scores[np.setdiff1d(np.arange(len(texts)), rows)] = 0
        scores /= np.sqrt(np.maximum(lengths, 1), dtype=np.float32)[:, None]
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        for one, other in self._aliases:
            scores[:, one] += scores[:, other]
            scores[:, other] = 0
        return scores

    def _walk(
        self, encoded: Sequence[bytes], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which text met which feature, as often as it did."""
        order = np.argsort(-lengths, kind="stable")
        letters = np.zeros((int(lengths.max(initial=0)), len(encoded)), np.uint8)
        for place, text in enumerate(order):
            letters[: lengths[text], place] = np.frombuffer(encoded[text], np.uint8)
        # The longest first: those that still go on are always the first so many.
        going = np.searchsorted(-lengths[order], -np.arange(len(letters)), side="left")
        begin: NDArray[np.int32] = np.full(len(encoded), self._first)
        steps: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        for line, number in zip(letters, going, strict=True):
            steps.append(begin[:number] + line[:number])
            begin = self._steps[steps[-1]]
        features = self._features[np.concatenate(steps)]
        where = np.flatnonzero(features >= 0)
        rows = np.concatenate([order[:0], *(order[:number] for number in going)])
        return rows[where], features[where]
