"""Who is better: win shares, Bradley-Terry strengths and ranks, each with its 95 % interval.

A ranking of several answers counts as all of its pairs; a tie is half a win for either side, and so
is a pair of answers that are both bad. Under the model of Bradley and Terry (1952) a system of
strength s beats one of strength t with probability 1 / (1 + exp(t - s)); strengths are natural
log-odds, and their mean over the systems is 0. The fit is the MM algorithm of Hunter (2004).

A system that never wins, or always does, has no finite strength. Each pair of systems is therefore
given one further, virtual tie – half a virtual win for either side – in the fit and in every
resample of it, which draws strengths towards 0 by about as much as one tie would, and matters less
the more votes there are. Win shares are of real votes only.

Intervals are percentiles of the bootstrap over items: all votes on an item are drawn together,
because raters of one item do not vary independently. Where all votes on a system agree no resample
differs, and the end is the exact one of Clopper and Pearson (1934): three items that are all won
are no proof of more than a share of 0.29. For the same reason one system is called stronger than
another only if a sign test over the items says so too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from bayling.rating.votes import Vote

Array = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 20231
_VIRTUAL = 0.5
_PRECISION = 1e-8
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Standing:
    """How one system did."""

    system: str
    rank: int
    """1 and the number of systems that are stronger by more than chance: systems that cannot be
    told apart share a rank."""
    strength: float
    strength_low: float
    strength_high: float
    win_share: float
    """Of its pairs with other systems, ties as half; from 0 to 1."""
    win_share_low: float
    win_share_high: float
    wins: int
    ties: int
    losses: int

    def figures(self) -> dict[str, float]:
        """Everything but the name."""
        names = (name for name in self.__dataclass_fields__ if name != "system")
        return {name: getattr(self, name) for name in names}


def standings(votes: Sequence[Vote]) -> list[Standing]:
    """All systems of the votes, the strongest first; none without votes."""
    systems = sorted({system for vote in votes for system in vote.ranks})
    if not systems:
        return []
    wins, ties = _pairs(votes, systems)
    scored = wins + ties / 2
    drawn = _resampled(scored)
    total = scored.sum(0)
    strengths, strengths_drawn = bradley_terry(total), bradley_terry(drawn)
    shares, shares_drawn = _shares(total), _shares(drawn)
    # Of differences and not of strengths: these have the same opponents, and vary together.
    gaps = strengths_drawn[:, None, :] - strengths_drawn[:, :, None]
    stronger = (limits(gaps)[0] > 0) & _by_signs(scored)
    low, high = limits(strengths_drawn)
    share_low, share_high = limits(shares_drawn)
    for index in map(int, np.flatnonzero((shares == 0) | (shares == 1))):
        end = _unanimous(scored, index, won=bool(shares[index]))
        bound = bradley_terry(_with_share(total, index, end))[index]
        if shares[index]:
            share_low[index], low[index] = end, min(low[index], bound)
        else:
            share_high[index], high[index] = end, max(high[index], bound)
    won, tied = wins.sum(0), ties.sum(0)
    found = [
        Standing(
            system=system,
            rank=1 + int(stronger[index].sum()),
            strength=float(strengths[index]),
            strength_low=float(low[index]),
            strength_high=float(high[index]),
            win_share=float(shares[index]),
            win_share_low=float(share_low[index]),
            win_share_high=float(share_high[index]),
            wins=int(won[index].sum()),
            ties=int(tied[index].sum()),
            losses=int(won[:, index].sum()),
        )
        for index, system in enumerate(systems)
    ]
    return sorted(found, key=lambda one: (one.rank, -one.strength, one.system))


def bradley_terry(scored: Array) -> Array:
    """Strengths for how often each system was preferred to each other.

    Args:
        scored: shape (…, systems, systems); row before column, ties as half on either side.

    Returns:
        Shape (…, systems); log-odds with mean 0.
    """
    number = scored.shape[-1]
    scored = scored + _VIRTUAL * (1 - np.eye(number))
    compared = scored + np.swapaxes(scored, -1, -2)
    won = scored.sum(-1)
    worth = np.ones(scored.shape[:-1])
    for _ in range(_MOST_STEPS):
        pairs = worth[..., :, None] + worth[..., None, :]
        better = won / (compared / pairs).sum(-1)
        better /= np.exp(np.log(better).mean(-1, keepdims=True))
        change = np.abs(np.log(better / worth)).max(initial=0)
        worth = better
        if change < _PRECISION:
            break
    strengths: Array = np.log(worth)
    return strengths


def _pairs(votes: Iterable[Vote], systems: Sequence[str]) -> tuple[Array, Array]:
    """Wins (row before column) and ties (on both sides), shape (items, systems, systems)."""
    place = {system: index for index, system in enumerate(systems)}
    by_item: dict[tuple[str, str, str], list[Vote]] = {}
    for vote in votes:
        by_item.setdefault(vote.key, []).append(vote)
    wins = np.zeros((len(by_item), len(systems), len(systems)))
    ties = np.zeros_like(wins)
    for index, given in enumerate(by_item.values()):
        for vote in given:
            for one, other in combinations(vote.ranks, 2):
                first, second = place[one], place[other]
                if vote.ranks[one] < vote.ranks[other]:
                    wins[index, first, second] += 1
                elif vote.ranks[one] > vote.ranks[other]:
                    wins[index, second, first] += 1
                else:
                    ties[index, first, second] += 1
                    ties[index, second, first] += 1
    return wins, ties


def _by_signs(scored: Array) -> npt.NDArray[np.bool_]:
    """Whether the column's system was preferred to the row's on more items than chance explains."""
    ahead = np.swapaxes(scored, 1, 2) - scored
    for_it, against = (ahead > 0).sum(0), (ahead < 0).sum(0)
    found: npt.NDArray[np.bool_] = np.vectorize(_unlikely, otypes=[bool])(for_it, against)
    found &= for_it > against
    return found


def _unlikely(one: int, other: int) -> bool:
    """Whether a coin falls so unevenly in less than 5 % of as many throws."""
    number = one + other
    tail: float = sum(comb(number, fewer) for fewer in range(min(one, other) + 1)) / 2**number
    return 2 * tail < 1 - LEVEL


def _unanimous(scored: Array, system: int, *, won: bool) -> float:
    """The other end of the interval of a share of 1 (where all is `won`) or 0."""
    items = int((scored[:, system].sum(-1) + scored[:, :, system].sum(-1) > 0).sum())
    end = float(((1 - LEVEL) / 2) ** (1 / items))
    return end if won else 1 - end


def _with_share(total: Array, system: int, share: float) -> Array:
    """The sums as they would be if the system had this share against each other one."""
    compared = total[system] + total[:, system]
    changed = total.copy()
    changed[system], changed[:, system] = share * compared, (1 - share) * compared
    return changed


def _resampled(items: Array) -> Array:
    """Sums over items drawn with replacement; shape (resamples, …)."""
    sums = draws(len(items)) @ items.reshape(len(items), -1)
    return sums.reshape(-1, *items.shape[1:])


def _shares(scored: Array) -> Array:
    won = scored.sum(-1)
    compared = won + scored.sum(-2)
    # Where votes on several comparisons meet, a resample may have none on a system.
    shares: Array = np.divide(won, compared, out=np.full_like(won, np.nan), where=compared > 0)
    return shares


def draws(items: int) -> Array:
    """How often each item is drawn in each resample; equal for equal numbers."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float64)


def limits(values: Array) -> Array:
    """The ends of the 95 % interval, over the first axis; shape (2, …)."""
    tail = (1 - LEVEL) / 2
    found: Array = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return found
