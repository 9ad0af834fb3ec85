"""How far raters agree beyond chance, on what several of them have judged.

What is agreed on is the verdict on a pair of answers: one is better, the other is, a tie, both bad.
Two raters are compared by Cohen's kappa (1960), more by Krippendorff's alpha for nominal data
(2004), which takes raters who have not all judged the same items. Both are 1 where raters always
agree and 0 where they agree as often as chance would have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from bayling.rating.ranking import draws, limits
from bayling.rating.votes import Vote

Array = npt.NDArray[np.float64]

_VERDICTS = ("first", "second", "tie", "both bad")


@dataclass(frozen=True)
class Agreement:
    """Of raters with each other."""

    raters: int
    """Who has judged something that another one has judged, too."""
    items: int
    """That were judged by two raters or more."""
    measure: str
    """`cohen_kappa` or `krippendorff_alpha`."""
    value: float | None
    """None where chance would agree always: all verdicts are the same."""
    low: float | None
    """Ends of the 95 % interval, from the bootstrap over items."""
    high: float | None
    same: float
    """The share of pairs of verdicts that are the same, without regard to chance."""


def agreement(votes: Sequence[Vote]) -> Agreement | None:
    """How far the raters of these votes agree; None where no item has two votes."""
    by_item: dict[tuple[str, str, str], list[Vote]] = {}
    for vote in votes:
        by_item.setdefault(vote.key, []).append(vote)
    shared = [given for given in by_item.values() if len(given) > 1]
    raters = sorted({vote.rater for given in shared for vote in given})
    if not raters:
        return None
    tables = np.stack([_table(given, raters) for given in shared])
    of_sums = _kappa if len(raters) == 2 else _alpha
    value = float(of_sums(tables.sum(0)))
    drawn = of_sums((draws(len(tables)) @ tables.reshape(len(tables), -1)).reshape(-1, 4, 4))
    low, high = limits(drawn) if np.isfinite(drawn).any() else (np.nan, np.nan)
    total = tables.sum(0)
    return Agreement(
        raters=len(raters),
        items=len(shared),
        measure="cohen_kappa" if len(raters) == 2 else "krippendorff_alpha",
        value=_known(value),
        low=_known(float(low)),
        high=_known(float(high)),
        same=float(np.trace(total) / total.sum()),
    )


def _table(given: Sequence[Vote], raters: Sequence[str]) -> Array:
    """How often which verdict met which other one, over the pairs of answers to an item.

    For two raters the first one's verdicts are the rows. For more, each verdict meets those of all
    others, and the meetings of m verdicts count 1 / (m - 1) each: Krippendorff's coincidences.
    """
    table = np.zeros((len(_VERDICTS), len(_VERDICTS)))
    for one, other in combinations(sorted(given[0].ranks), 2):
        verdicts = {vote.rater: _verdict(vote, one, other) for vote in given}
        if len(raters) == 2:
            table[verdicts[raters[0]], verdicts[raters[1]]] += 1
            continue
        counts = Counter(verdicts.values())
        for first, times in counts.items():
            for second, others in counts.items():
                met = times * (others - (first == second))
                table[first, second] += met / (len(verdicts) - 1)
    return table


def _verdict(vote: Vote, one: str, other: str) -> int:
    if vote.bad:
        return _VERDICTS.index("both bad")
    difference = vote.ranks[one] - vote.ranks[other]
    return _VERDICTS.index("first" if difference < 0 else "second" if difference > 0 else "tie")


def _kappa(tables: Array) -> Array:
    total = tables.sum((-1, -2))
    seen = np.trace(tables, axis1=-2, axis2=-1) / total
    expected = (tables.sum(-1) * tables.sum(-2)).sum(-1) / total**2
    return _beyond(seen, expected)


def _alpha(tables: Array) -> Array:
    total = tables.sum((-1, -2))
    counts = tables.sum(-1)
    seen = np.trace(tables, axis1=-2, axis2=-1) / total
    expected = (counts * (counts - 1)).sum(-1) / (total * (total - 1))
    return _beyond(seen, expected)


def _beyond(seen: Array, expected: Array) -> Array:
    """The share of what is left to chance's disagreement that raters agree on."""
    left = np.asarray(1 - expected)
    found: Array = np.divide(
        seen - expected, left, out=np.full(left.shape, np.nan), where=left > 1e-12
    )
    return found


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
