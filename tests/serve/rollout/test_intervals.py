"""The limits, against published figures and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bayling.serve.rollout import intervals

pytestmark = pytest.mark.unit


def test_the_difference_of_shares_is_newcombes() -> None:
    """Table II of the paper, method 10, contrasts (a) and (e), at 95 %."""
    for (hits, of, base_hits, base_of), (lower, upper) in {
        (56, 70, 48, 80): (0.0524, 0.3339),
        (10, 10, 0, 20): (0.6791, 1.0),
    }.items():
        found = intervals.difference_of_shares(hits, of, base_hits, base_of, 0.025, 0.025)
        assert found.estimate == pytest.approx(hits / of - base_hits / base_of)
        assert found.lower == pytest.approx(lower, abs=5e-5)
        assert found.upper == pytest.approx(upper, abs=5e-5)


def test_no_requests_say_nothing_about_a_share() -> None:
    found = intervals.difference_of_shares(0, 0, 0, 100, 0.05, 0.05)
    assert found.lower < 0 and found.upper == pytest.approx(1.0)


def test_too_few_samples_bound_no_quantile() -> None:
    few, many = [1.0, 1.1, 1.2], sorted(np.linspace(1, 2, 500))
    found = intervals.ratio_of_quantiles(few, many, 0.9, 0.0001, 0.0001)
    assert (found.lower, found.upper) == (0.0, math.inf)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_each_limit_of_a_ratio_errs_no_more_often_than_asked(quantile: float) -> None:
    """On samples as skewed as latencies are, of sizes as different as a canary's."""
    random, level, rounds = np.random.default_rng(3), 0.05, 800
    above = below = 0
    for _ in range(rounds):
        own = sorted(np.exp(random.standard_normal(60)))
        base = sorted(np.exp(random.standard_normal(400)))
        found = intervals.ratio_of_quantiles(own, base, quantile, level, level)
        above += found.lower > 1
        below += found.upper < 1
    for errors in (above, below):
        assert errors / rounds <= level + 2 * math.sqrt(level / rounds)


def test_one_in_two_slower_is_seen_by_the_ratio_of_medians() -> None:
    random = np.random.default_rng(4)
    own = sorted(1.5 * np.exp(0.5 * random.standard_normal(400)))
    base = sorted(np.exp(0.5 * random.standard_normal(2000)))
    found = intervals.ratio_of_quantiles(own, base, 0.5, 0.01, 0.01)
    assert 1.25 < found.lower < 1.5 < found.upper < 1.9
