"""How much a caller may use, by a clock that passes when a test says so."""

from __future__ import annotations

import pytest

from bayling.errors import UserError
from bayling.serve.limits import LimitReached, Limits, Meter, Meters, duration

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def used(meter: Meter) -> bool:
    """One request from beginning to end; whether it was let in."""
    try:
        meter.enter()
    except LimitReached:
        return False
    meter.leave()
    return True


def test_a_minutes_requests_may_come_at_once_and_then_come_evenly(clock: Clock) -> None:
    meter = Meter(Limits(requests_per_minute=6), clock=clock)
    assert [used(meter) for _ in range(8)] == [True] * 6 + [False] * 2
    with pytest.raises(LimitReached, match="6 requests a minute: try again in 10 s") as early:
        meter.enter()
    clock.now += early.value.wait_s - 0.01
    assert not used(meter)
    clock.now += 0.01
    assert [used(meter), used(meter)] == [True, False]
    clock.now += 3600
    assert [used(meter) for _ in range(8)] == [True] * 6 + [False] * 2


def test_a_request_that_was_refused_costs_nothing(clock: Clock) -> None:
    meter = Meter(Limits(requests_per_minute=60, concurrent_requests=1), clock=clock)
    meter.enter()
    for _ in range(100):
        assert not used(meter)
    meter.leave()
    assert meter.headers()["x-ratelimit-remaining-requests"] == "59"


def test_tokens_are_charged_afterwards_and_a_debt_is_waited_for(clock: Clock) -> None:
    meter = Meter(Limits(tokens_per_minute=600), clock=clock)
    meter.enter()
    meter.charge(900)
    meter.leave()
    with pytest.raises(LimitReached, match=r"600 tokens a minute.*try again in 30 s") as early:
        meter.enter()
    assert early.value.wait_s == pytest.approx(30)
    clock.now += early.value.wait_s
    assert used(meter)


def test_requests_at_a_time_are_counted_until_they_are_over(clock: Clock) -> None:
    meter = Meter(Limits(concurrent_requests=2), clock=clock)
    meter.enter()
    meter.enter()
    with pytest.raises(LimitReached, match="2 requests at a time"):
        meter.enter()
    clock.now += 3600  # waiting alone does not help
    assert not used(meter)
    meter.leave()
    assert used(meter)


def test_without_limits_everything_passes_and_no_header_says_otherwise(clock: Clock) -> None:
    meter = Meter(Limits(), clock=clock)
    for _ in range(1000):
        meter.enter()
        meter.charge(10**9)
    assert meter.headers() == {}


def test_the_headers_are_openais(clock: Clock) -> None:
    meter = Meter(Limits(requests_per_minute=60, tokens_per_minute=6000), clock=clock)
    meter.enter()
    meter.charge(150)
    assert meter.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5850",
        "x-ratelimit-reset-tokens": "1.5s",
    }
    meter.charge(7000)
    assert meter.headers()["x-ratelimit-remaining-tokens"] == "0"
    assert meter.headers()["x-ratelimit-reset-tokens"] == "1m11.5s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0121, "13ms"), (8.64, "8.64s"), (90, "1m30s"), (360, "6m0s"), (7200, "2h0m0s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_replicas_together_let_through_what_one_would(clock: Clock, replicas: int) -> None:
    limits = Limits(requests_per_minute=42, tokens_per_minute=4200, concurrent_requests=42)
    meters = [Meter(limits, 1 / replicas, clock) for _ in range(replicas)]
    assert sum(used(meter) for meter in meters for _ in range(100)) == 42
    for meter in meters:
        assert meter.headers()["x-ratelimit-limit-requests"] == "42"
        assert meter.headers()["x-ratelimit-remaining-tokens"] == "4200"
    clock.now += 60
    inside = 0
    for meter in meters:
        for _ in range(100):
            try:
                meter.enter()
                inside += 1
            except LimitReached:
                break
    assert inside == 42


def test_a_share_of_less_than_one_request_still_passes_one(clock: Clock) -> None:
    meter = Meter(Limits(requests_per_minute=1, concurrent_requests=1), 1 / 4, clock)
    assert [used(meter), used(meter)] == [True, False]
    clock.now += 240
    assert used(meter)


def test_new_limits_hold_at_once_and_forgive_nothing(clock: Clock) -> None:
    meters = Meters(clock=clock)
    meter = meters.of("a", Limits(requests_per_minute=2, tokens_per_minute=100))
    assert [used(meter) for _ in range(3)] == [True, True, False]
    meter.charge(300)
    same = meters.of("a", Limits(requests_per_minute=4, tokens_per_minute=200))
    assert same is meter
    assert same.headers()["x-ratelimit-limit-requests"] == "4"
    clock.now += 59
    assert not used(same)  # 200 in debt, at 200 a minute
    clock.now += 1
    assert used(same)
    assert used(meters.of("a", Limits()))


def test_callers_do_not_use_up_each_others_limits(clock: Clock) -> None:
    meters, limits = Meters(clock=clock), Limits(requests_per_minute=1)
    assert used(meters.of("a", limits)) and not used(meters.of("a", limits))
    assert used(meters.of("b", limits))


def test_callers_that_came_once_take_no_memory_for_ever(clock: Clock) -> None:
    meters, limits = Meters(clock=clock), Limits(requests_per_minute=10, tokens_per_minute=100)
    busy = meters.of("busy", limits)
    busy.enter()
    indebted = meters.of("indebted", limits)
    indebted.charge(10**9)
    for number in range(20_000):
        clock.now += 1
        assert used(meters.of(f"once-{number}", limits))
        assert len(meters) < 1100
    assert meters.of("busy", limits) is busy
    assert not used(meters.of("indebted", limits))


@pytest.mark.parametrize(
    "name", ["requests_per_minute", "tokens_per_minute", "concurrent_requests"]
)
def test_a_limit_that_lets_nothing_through_is_refused(name: str) -> None:
    Limits(**{name: 1}).check("serve.")
    with pytest.raises(UserError, match=rf"serve\.{name} must be at least 1"):
        Limits(**{name: 0}).check("serve.")
