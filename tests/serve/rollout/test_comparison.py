"""What a comparison says, and how often it is wrong: by simulation, with fixed seeds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bayling.serve.rollout.comparison import Looks, Traffic, Verdict, compare, overall, rates
from bayling.serve.rollout.config import RolloutConfig

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Model:
    """What a version does to its requests."""

    errors: float = 0.01
    off_target: float = 0.05
    ttft_s: float = 0.2
    tpot_s: float = 0.03
    streams: bool = True

    def traffic(self, random: np.random.Generator, requests: int) -> Traffic:
        times: tuple[tuple[float, ...], ...] = ((), ())
        if self.streams:
            times = tuple(
                tuple(median * np.exp(spread * random.standard_normal(requests)))
                for median, spread in ((self.ttft_s, 0.6), (self.tpot_s, 0.3))
            )
        return Traffic(
            requests,
            int(random.binomial(requests, self.errors)),
            *times,
            requests,
            int(random.binomial(requests, self.off_target)),
        )


def added(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(
        one.requests + other.requests,
        one.errors + other.errors,
        one.ttft_s + other.ttft_s,
        one.tpot_s + other.tpot_s,
        one.judged + other.judged,
        one.off_target + other.off_target,
    )


def rolled_out(
    random: np.random.Generator,
    candidate: Model,
    base: Model,
    config: RolloutConfig,
    looks_a_step: int,
) -> tuple[str, int]:
    """How a rollout ends – full, worse, undecided – and after how many of its requests."""
    looks, total = Looks.of(config), 0
    for share in config.steps:
        own, other = Traffic(), Traffic()
        for look in range(1, looks_a_step + 1):
            more = looks.next(look - 1) - own.requests
            own = added(own, candidate.traffic(random, more))
            # Of a base with far more traffic, more would only cost time here.
            other = added(other, base.traffic(random, min(3 * more, int(more * (1 / share - 1)))))
            verdict = overall(compare(own, other, config, looks, look))
            if verdict is Verdict.worse:
                return "worse", total + own.requests
            if verdict is Verdict.as_good:
                break
        else:
            return "undecided", total + own.requests
        total += own.requests
    return "full", total


def test_a_version_rolled_out_over_itself_becomes_full() -> None:
    random = np.random.default_rng(1)
    ends = [rolled_out(random, Model(), Model(), RolloutConfig(), 8) for _ in range(100)]
    assert Counter(end for end, _ in ends) == {"full": 100}
    assert np.mean([requests for _, requests in ends]) < 3500


@pytest.mark.parametrize(
    ("worse", "within"),
    [
        (Model(errors=0.10), 400),
        (Model(errors=0.06), 1600),
        (Model(errors=1.0), 25),
        (Model(off_target=0.20), 800),
        (Model(ttft_s=0.32), 800),
        (Model(tpot_s=0.045), 400),
    ],
)
def test_a_worse_version_is_rolled_back_in_95_of_100_rollouts(worse: Model, within: int) -> None:
    """In its first step, after so many of its requests at most."""
    random = np.random.default_rng(2)
    ends = [rolled_out(random, worse, Model(), RolloutConfig(), 8) for _ in range(100)]
    caught = [requests for end, requests in ends if end == "worse"]
    assert len(caught) >= 95
    assert np.quantile(caught, 0.95) <= within


def at_the_edge(**changes: float) -> RolloutConfig:
    """With nothing allowed to be lost: a version that equals the base is as bad as may be, and
    chance alone decides whether it is called worse."""
    strict = RolloutConfig(
        max_error_increase=1e-9, max_off_target_increase=1e-9, max_latency_ratio=1 + 1e-9
    )
    return replace(strict, **changes)


def test_looking_again_and_again_does_not_roll_an_equal_version_back_more_often_than_stated() -> (
    None
):
    """Every measure at every look of every step has its chance to be wrong."""
    config = at_the_edge(wrong_rollbacks=0.3)
    config.steps = [0.5]
    random, rounds = np.random.default_rng(5), 300
    ends = Counter(rolled_out(random, Model(), Model(), config, 6)[0] for _ in range(rounds))
    assert ends["full"] == 0
    assert ends["worse"] / rounds <= 0.3
    assert ends["worse"] > 0, "no look ever errs: the limits are far too wide"


def test_the_stated_share_holds_for_all_steps_together() -> None:
    """Of shares only, whose looks are cheap: 600 rollouts of three steps, twelve looks each."""
    config = at_the_edge(wrong_rollbacks=0.2)
    looks, model = Looks.of(config), Model(streams=False, errors=0.05, off_target=0.3)
    random, rounds, wrong = np.random.default_rng(6), 600, 0
    for _ in range(rounds):
        verdicts = []
        for _ in config.steps:
            own = other = Traffic()
            for look in range(1, 13):
                more = looks.next(look - 1) - own.requests
                own = added(own, model.traffic(random, more))
                other = added(other, model.traffic(random, more))
                verdicts.append(overall(compare(own, other, config, looks, look)))
        wrong += Verdict.worse in verdicts
    assert wrong / rounds <= 0.2


def test_a_version_worse_than_allowed_becomes_full_no_more_often_than_stated() -> None:
    config = RolloutConfig(wrong_promotions=0.2, steps=[0.5])
    random, rounds = np.random.default_rng(7), 400
    worse = Model(errors=0.031, streams=False)  # the edge is 0.03
    ends = Counter(
        rolled_out(random, worse, Model(streams=False), config, 9)[0] for _ in range(rounds)
    )
    assert ends["full"] / rounds <= 0.2


def test_no_traffic_is_no_success() -> None:
    config = RolloutConfig()
    looks = Looks.of(config)
    findings = compare(Traffic(), Traffic(), config, looks, 4)
    assert {one.verdict for one in findings} == {Verdict.unmeasured}
    assert overall(findings) is Verdict.undecided
    assert looks.due(0) == 0


def test_fewer_requests_than_asked_for_never_make_a_version_as_good() -> None:
    config = RolloutConfig(max_error_increase=0.3, max_off_target_increase=0.3)
    looks = Looks.of(config)
    assert overall(compare(Traffic(199), Traffic(5000), config, looks, 3)) is Verdict.undecided
    assert overall(compare(Traffic(200), Traffic(5000), config, looks, 4)) is Verdict.as_good


def test_a_measure_that_only_one_version_has_holds_the_rollout() -> None:
    config = RolloutConfig()
    timed = Traffic(5000, ttft_s=(0.1,) * 5000)
    findings = compare(Traffic(1600), timed, config, Looks.of(config), 7)
    by_name = {one.measure: one.verdict for one in findings}
    assert by_name["errors"] is Verdict.as_good
    assert by_name["ttft_median"] is Verdict.undecided
    assert by_name["tpot_median"] is Verdict.unmeasured
    assert overall(findings) is Verdict.undecided


def test_looks_come_at_doubling_numbers_of_requests() -> None:
    looks = Looks.of(RolloutConfig(min_samples=200))
    assert [looks.next(look) for look in range(5)] == [25, 50, 100, 200, 400]
    assert [looks.due(requests) for requests in (24, 25, 49, 50, 199, 200, 399, 400)] == [
        *(0, 1, 1, 2, 3, 4, 4, 5)
    ]
    small = Looks.of(RolloutConfig(min_samples=3))
    assert [small.due(requests) for requests in (1, 2, 3, 4)] == [1, 2, 2, 3]


def test_the_levels_of_all_looks_add_up_to_what_is_stated() -> None:
    looks = Looks.of(RolloutConfig())
    spent = sum(looks.level_worse(look) for look in range(1, 100_000))
    assert spent * 6 * 3 == pytest.approx(0.05, rel=1e-3)
    first = looks.due(200)
    spent = sum(looks.level_good(look) for look in range(first, 100_000))
    assert spent == pytest.approx(0.05, rel=1e-3)


def test_a_sentence_has_the_figures_that_decided() -> None:
    config = RolloutConfig()
    [errors, *_] = compare(Traffic(200, 40), Traffic(4000, 40), config, Looks.of(config), 4)
    assert errors.verdict is Verdict.worse
    assert errors.sentence().startswith("failed requests: 20.0% after 1.0% (between +")
    slow = Traffic(200, ttft_s=(0.5,) * 200)
    base = Traffic(4000, ttft_s=(0.2,) * 4000)
    ttft = compare(slow, base, config, Looks.of(config), 4)[2]
    assert "500 ms after 200 ms (between ×2.50 and ×2.50, ×1.25 is allowed)" in ttft.sentence()


def test_figures_are_none_where_there_are_no_samples() -> None:
    found = rates({"7": Traffic(4, 1, (0.1, 0.3, 0.2), ()), "8": Traffic()})
    assert found["7"]["errors"] == 0.25
    assert found["7"]["ttft_median"] == 0.2
    assert found["7"]["tpot_p90"] is None
    assert found["8"] == {**dict.fromkeys(found["8"]), "requests": 0}
    assert not any(isinstance(value, float) and math.isnan(value) for value in found["8"].values())
