"""Win shares, strengths and ranks: against sums by hand, and raters whose taste is known."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
import pytest
from rated import vote

from bayling.rating.ranking import bradley_terry, standings
from bayling.rating.votes import Vote

pytestmark = pytest.mark.unit


def head_to_head(wins: int, ties: int, losses: int) -> list[Vote]:
    ranks = [{"a": 1, "b": 2}] * wins + [{"a": 1, "b": 1}] * ties + [{"a": 2, "b": 1}] * losses
    return [vote(one, item=str(number)) for number, one in enumerate(ranks)]


def test_two_systems_by_hand() -> None:
    a, b = standings(head_to_head(60, 10, 30))
    assert (a.system, a.wins, a.ties, a.losses) == ("a", 60, 10, 30)
    assert (b.system, b.wins, b.ties, b.losses) == ("b", 30, 10, 60)
    assert a.win_share == pytest.approx(0.65)
    assert b.win_share == pytest.approx(0.35)
    # 65 wins and half a virtual one, against 35 and half a one; around a mean of 0.
    assert a.strength - b.strength == pytest.approx(math.log(65.5 / 35.5))
    assert a.strength + b.strength == pytest.approx(0)
    # Normal approximation of the share's interval, with 0.55 of an item's variance: ties vary less.
    error = 1.96 * math.sqrt((0.6 + 0.1 / 4 - 0.65**2) / 100)
    assert a.win_share_low == pytest.approx(0.65 - error, abs=0.015)
    assert a.win_share_high == pytest.approx(0.65 + error, abs=0.015)
    assert (a.rank, b.rank) == (1, 2)


def test_systems_that_cannot_be_told_apart_share_a_rank() -> None:
    assert [one.rank for one in standings(head_to_head(53, 0, 47))] == [1, 1]
    assert [one.rank for one in standings(head_to_head(700, 0, 300))] == [1, 2]


def test_both_bad_is_a_tie() -> None:
    bad = [vote({"a": 1, "b": 1}, item=str(it), bad=True) for it in range(5)]
    for one in standings(bad):
        assert (one.win_share, one.strength, one.ties, one.rank) == (0.5, 0.0, 5, 1)


def test_a_system_that_never_wins_has_a_finite_strength_and_share_zero() -> None:
    best, worst = standings(head_to_head(20, 0, 0))
    assert (best.win_share, worst.win_share) == (1.0, 0.0)
    assert best.strength - worst.strength == pytest.approx(math.log(20.5 / 0.5))
    assert math.isfinite(worst.strength_low)


@pytest.mark.parametrize("items", [1, 3, 5])
def test_a_few_votes_that_all_agree_are_no_proof(items: int) -> None:
    best, worst = standings(head_to_head(items, 0, 0))
    assert best.win_share_low == pytest.approx(0.025 ** (1 / items))
    assert worst.win_share_high == pytest.approx(1 - 0.025 ** (1 / items))
    assert best.strength_low < worst.strength_high
    assert (best.rank, worst.rank) == (1, 1)


def test_many_votes_that_all_agree_are_one() -> None:
    best, worst = standings(head_to_head(12, 0, 0))
    assert (best.rank, worst.rank) == (1, 2)
    assert worst.win_share_high < best.win_share_low
    assert worst.strength_high < best.strength_low


def test_a_ranking_counts_as_all_of_its_pairs() -> None:
    a, b, c = standings([vote({"a": 1, "b": 2, "c": 2}, item=str(it)) for it in range(3)])
    assert [(one.wins, one.ties, one.losses) for one in (a, b, c)] == [
        (6, 0, 0),
        (0, 3, 3),
        (0, 3, 3),
    ]
    assert (a.win_share, b.win_share) == (1.0, 0.25)


def test_strengths_satisfy_the_likelihood_equations() -> None:
    """At the maximum a system has won as often as the model expects it to."""
    rng = np.random.default_rng(3)
    scored = rng.integers(0, 40, size=(4, 4)) * (1 - np.eye(4))
    strengths = bradley_terry(scored)
    scored = scored + 0.5 * (1 - np.eye(4))
    compared = scored + scored.T
    chance = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    assert np.allclose((compared * chance).sum(1) - compared.diagonal() / 2, scored.sum(1))
    assert strengths.mean() == pytest.approx(0)


TRUE = {"best": 1.0, "good": 0.4, "fair": -0.2, "weak": -1.2}


def simulated(seed: int, items: int, raters: int = 1) -> list[Vote]:
    """Raters who prefer as the model says: each sees worth plus Gumbel noise."""
    rng = random.Random(seed)
    votes = []
    for item in range(items):
        for rater in range(raters):
            worth = {
                system: strength - math.log(-math.log(rng.random()))
                for system, strength in TRUE.items()
            }
            order = sorted(worth, key=lambda system: -worth[system])
            # Two of the four, as the pairs of one ranking are no independent ones.
            pair = rng.sample(order, 2)
            ranks = {system: 1 + order.index(system) for system in pair}
            levels = sorted(ranks.values())
            ranks = {system: 1 + levels.index(rank) for system, rank in ranks.items()}
            votes.append(vote(ranks, item=str(item), rater=f"rater {rater}"))
    return votes


def test_the_taste_of_simulated_raters_is_found_again() -> None:
    found = standings(simulated(1, 3000, raters=2))
    assert [one.system for one in found] == list(TRUE)
    assert [one.rank for one in found] == [1, 2, 3, 4]
    for one in found:
        assert one.strength == pytest.approx(TRUE[one.system], abs=0.12)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    trials, inside = 60, 0
    for seed in range(trials):
        for one in standings(simulated(100 + seed, 150)):
            inside += one.strength_low <= TRUE[one.system] <= one.strength_high
    assert 0.90 <= inside / (trials * len(TRUE)) <= 0.99


def test_votes_of_raters_who_copy_each_other_are_not_worth_more() -> None:
    one = head_to_head(60, 0, 40)
    ten = [
        vote(given.ranks, item=given.item, rater=f"rater {it}") for given in one for it in range(10)
    ]
    alone, copied = standings(one)[0], standings(ten)[0]
    assert copied.wins == 10 * alone.wins
    assert copied.win_share_low == pytest.approx(alone.win_share_low)
    assert copied.win_share_high == pytest.approx(alone.win_share_high)


def test_systems_that_never_met_are_ranked_through_those_that_both_met() -> None:
    votes = []
    for one, other in combinations("abc", 2):
        if (one, other) == ("a", "c"):
            continue
        ranks = [{one: 1, other: 2}] * 80 + [{one: 2, other: 1}] * 20
        votes += [
            vote(given, item=str(it), comparison=one + other) for it, given in enumerate(ranks)
        ]
    a, b, c = standings(votes)
    assert [one.system for one in (a, b, c)] == ["a", "b", "c"]
    assert a.strength - c.strength == pytest.approx(2 * (a.strength - b.strength), rel=0.05)


def test_no_votes_have_no_standings() -> None:
    assert standings([]) == []
