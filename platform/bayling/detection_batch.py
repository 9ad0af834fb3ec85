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
        self._next = np.asarray(model.tk_nextmove, dtype=np.int64)
        self._row = np.asarray(model.tk_row, dtype=np.int64) << 8
        self._feature = np.asarray(model.tk_output, dtype=np.int64)
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
        met, place = np.unique(features, return_inverse=True)
        often = np.zeros((len(texts), len(met)), np.float32)
        np.add.at(often, (rows, place), 1)
        weights: NDArray[np.float32] = self._weights[met].astype(np.float32)
        scores: NDArray[np.float32] = np.log1p(often, out=often) @ weights + self._prior
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
        state = np.zeros(len(encoded), np.int64)
        rows, features = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for line, number in zip(letters, going, strict=True):
            state = self._next[self._row[state[:number]] + line[:number]]
            met = self._feature[state]
            where = np.flatnonzero(met >= 0)
            rows.append(order[where])
            features.append(met[where])
        return np.concatenate(rows), np.concatenate(features)
