"""Pairs of answers that a judge has compared: wins, ties, losses and the ratio of the scores.

Judges favour a position, mostly the first, so a pair is shown to one in both orders. As in
FastChat's pairwise judge (Zheng et al. 2023) a win is one in both orders; all else that is not a
loss in both is a tie. The score ratio is about the scores of both orders (Wang et al. 2023): what
a position adds, it adds to both systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from bayling.evaluate.samples import Sample, share
from bayling.evaluate.suite import ALL, Scored

Scores = tuple[float, float]
"""Those of the system in question, and of the one that it is compared with."""


class Outcome(Enum):
    """For the system in question."""

    win = "win"
    tie = "tie"
    loss = "loss"


@dataclass(frozen=True)
class Pair:
    """Two systems' answers to one question, judged."""

    outcome: Outcome
    scores: Scores | None = None
    """Summed over the orders in which the pair was judged; None where a judge gave none."""
    agreed: bool | None = None
    """Whether both orders came out alike; None where it was judged in one order only."""
    groups: tuple[tuple[str, str], ...] = ()
    """What it belongs to beside all: kind and name, such as ("category", "writing")."""


def by_score(scores: Scores) -> Outcome:
    """Who has the higher score."""
    own, other = scores
    return Outcome.win if own > other else Outcome.loss if own < other else Outcome.tie


def in_both_orders(first: Outcome, second: Outcome) -> Outcome:
    """A win, or a loss, is one in both orders."""
    return first if first is second else Outcome.tie


def counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """`wins`, `ties`, `losses`, and `judged`, which is their sum."""
    outcomes = [pair.outcome for pair in pairs]
    return {
        "wins": outcomes.count(Outcome.win),
        "ties": outcomes.count(Outcome.tie),
        "losses": outcomes.count(Outcome.loss),
        "judged": len(outcomes),
    }


def figures(pairs: Sequence[Pair]) -> dict[str, Sample]:
    """`win_rate`, `tie_rate`, `loss_rate`; `score_ratio` where all have scores, and `agreement` of
    the orders where all were judged in both.

    Raises:
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("no pairs to make figures of")
    rates = {"win_rate": Outcome.win, "tie_rate": Outcome.tie, "loss_rate": Outcome.loss}
    found = {
        name: share([pair.outcome is outcome for pair in pairs]) for name, outcome in rates.items()
    }
    scores = [pair.scores for pair in pairs if pair.scores is not None]
    if len(scores) == len(pairs):
        found["score_ratio"] = Sample("ratio", np.array(scores, dtype=np.float64))
    agreed = [pair.agreed for pair in pairs if pair.agreed is not None]
    if len(agreed) == len(pairs):
        found["agreement"] = share(agreed)
    return found


def scored(pairs: Sequence[Pair]) -> Scored:
    """The figures and counts of all pairs, then of each group, kind by kind; nothing where there
    are no pairs."""
    members: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        for group in (("overall", ALL), *pair.groups):
            members.setdefault(group, []).append(pair)
    kinds = list(dict.fromkeys(kind for kind, _ in members))
    result = Scored()
    for (kind, name), inside in sorted(members.items(), key=lambda one: kinds.index(one[0][0])):
        # Two kinds may have a name in common, and a category may be called "all".
        key = name if name not in result.samples else f"{kind} {name}"
        result.samples[key] = figures(inside)
        known: dict[str, Any] = {"kind": kind, **counts(inside)}
        result.groups[key] = known
    return result
