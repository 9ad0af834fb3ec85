"""Figures as functions of sums over items, so that one way of resampling fits every metric.

Corpus BLEU, chrF++, TER and every share or mean depend on what their items (sentences,
conversations, questions) add up to, and on nothing else. An item is a row of numbers; a figure
takes sums of such rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """How sums become a figure."""

    of_sums: Callable[[Array], Array]
    """From sums of shape (…, k) to values of shape (…)."""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Sample:
    """The items that one figure of one system is made of.

    Two systems' samples can be compared where their items are the same ones in the same order.
    """

    figure: str
    """A key of `FIGURES`."""
    items: Array
    """Shape (number of items, k)."""

    @property
    def value(self) -> float:
        return float(self.of_sums(self.items.sum(0)))

    @property
    def higher_is_better(self) -> bool:
        return FIGURES[self.figure].higher_is_better

    def of_sums(self, sums: Array) -> Array:
        """The figure for sums of shape (…, k)."""
        return FIGURES[self.figure].of_sums(sums)

    def __len__(self) -> int:
        return len(self.items)


def pooled(samples: Sequence[Sample]) -> Sample:
    """The items of several samples of one figure together."""
    (figure,) = {sample.figure for sample in samples}
    return Sample(figure, np.concatenate([sample.items for sample in samples]))


def share(hits: Sequence[float], of: Sequence[float] | None = None) -> Sample:
    """What part of something is hit: by items that count once, or `of` times, each."""
    number = np.ones(len(hits)) if of is None else np.asarray(of, dtype=np.float64)
    return Sample("share", np.stack([np.asarray(hits, dtype=np.float64), number], axis=1))


def faults(hits: Sequence[float]) -> Sample:
    """The share of items that have something which is better absent."""
    return Sample("faults", share(hits).items)


def averaged(samples: Sequence[Sample]) -> Sample:
    """The mean of several shares, each of which counts alike however many items it has."""
    (figure,) = {sample.figure for sample in samples}
    return Sample(figure, np.concatenate([one.items / one.items[:, 1].sum() for one in samples]))


def _ratio(sums: Array) -> Array:
    above, below = sums[..., 0], sums[..., 1]
    value: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return value


def _ter(sums: Array) -> Array:
    """sacreBLEU's: 100 where there is something to delete and nothing to keep."""
    edits, length = sums[..., 0], sums[..., 1]
    empty = np.where(edits > 0, 100.0, 0.0)
    return np.where(length > 0, 100 * edits / np.where(length > 0, length, 1), empty)


def _chrf(sums: Array) -> Array:
    """sacreBLEU's chrF with β = 2: precision and recall are means over the orders that occur."""
    orders = sums.reshape(*sums.shape[:-1], -1, 3)
    hypothesis, reference, match = orders[..., 0], orders[..., 1], orders[..., 2]
    occurs = (hypothesis > 0) & (reference > 0)
    number = np.maximum(occurs.sum(-1), 1)
    one = np.ones_like(match)
    precision = (match / np.where(occurs, hypothesis, one) * occurs).sum(-1) / number
    recall = (match / np.where(occurs, reference, one) * occurs).sum(-1) / number
    below = 4 * precision + recall
    above = 5 * precision * recall
    value: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return 100 * value


def _bleu(sums: Array) -> Array:
    """sacreBLEU's BLEU with exponential smoothing: two lengths, four matches, four totals."""
    length, reference = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2:6], sums[..., 6:10]
    # Each order without a match is worth half of the one without before it.
    halvings = np.cumsum(correct == 0, axis=-1)
    smoothed = np.where(correct > 0, correct, 0.5**halvings)
    whole = (total > 0).all(-1) & (correct > 0).any(-1)
    precisions: Array = np.where(total > 0, smoothed, 1) / np.where(total > 0, total, 1)
    short = np.exp(np.minimum(0.0, 1 - reference / np.where(length > 0, length, 1)))
    value: Array = np.where(whole, 100 * short * np.exp(np.log(precisions).mean(-1)), 0.0)
    return value


FIGURES: dict[str, Figure] = {
    "bleu": Figure(_bleu),
    "chrf": Figure(_chrf),
    "ter": Figure(_ter, higher_is_better=False),
    "share": Figure(_ratio),  # of things that are as they should be
    "faults": Figure(_ratio, higher_is_better=False),  # of things that are not
    "ratio": Figure(_ratio),  # one sum over another
    "mean": Figure(_ratio),  # of values
}
