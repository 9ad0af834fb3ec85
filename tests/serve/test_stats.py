"""What versions are compared by."""

from __future__ import annotations

import json

import pytest
from one_request import one_request

from bayling.serve.stats import Sample, VersionStats, Windows

pytestmark = pytest.mark.unit


def windows(**options: int) -> Windows:
    return Windows(began=900.0, **options)


def test_figures_are_of_one_version_and_since_a_moment() -> None:
    counted = windows()
    for at, version, status in (
        (1000.0, "7", 200),
        (1010.0, "7", 500),
        (1020.0, "7", 200),
        (1020.0, "8", 504),
    ):
        counted.add(one_request(at=at, version=version, status=status))
    seven, eight = counted.since(1005).values()
    assert (seven.version, seven.since, seven.requests, seven.errors) == ("7", 1005.0, 2, 1)
    assert (seven.prompt_tokens, seven.completion_tokens) == (20, 10)
    assert (eight.version, eight.requests, eight.errors) == ("8", 1, 1)
    assert seven.ttft_s == (Sample(1010.0, 0.1), Sample(1020.0, 0.1))


def test_callers_own_mistakes_say_nothing_of_a_version() -> None:
    counted = windows()
    for status in (400, 404, 413, 429):
        counted.add(one_request(status=status))
    counted.add(one_request(version="", status=401))
    assert counted.since(0) == {}
    counted.add(one_request(status=499))  # who left may have waited too long
    assert (counted.since(0)["7"].requests, counted.since(0)["7"].errors) == (1, 0)


def test_judged_translations_are_counted_one_by_one() -> None:
    counted = windows()
    counted.add(one_request(judged=3, off_target=1))
    counted.add(one_request(judged=0, off_target=0))
    stats = counted.since(0)["7"]
    assert (stats.judged, stats.off_target) == (3, 1)


def test_what_is_not_known_any_more_is_not_claimed() -> None:
    counted = windows(kept=100)
    counted.add(one_request(at=950.0))
    assert counted.since(0)["7"].since == 900.0  # when counting began
    for second in range(200):
        counted.add(one_request(at=1000.0 + second))
    stats = counted.since(0)["7"]
    assert (stats.since, stats.requests) == (1100.0, 100)
    assert counted.since(1150)["7"].since == 1150.0


def test_the_newest_two_thousand_times_are_there() -> None:
    counted = windows()
    for number in range(10_000):
        counted.add(one_request(at=1000.0 + number, ttft_s=None if number % 2 else 0.5))
    stats = counted.since(0)["7"]
    assert stats.requests == 10_000
    assert len(stats.ttft_s) >= 2000 and len(stats.tpot_s) >= 2000
    assert stats.tpot_s[-1].at == 10_999.0 and stats.ttft_s[-1].at == 10_998.0


def test_versions_come_and_go_and_memory_does_not_grow() -> None:
    counted = windows()
    for version in range(100):
        counted.add(one_request(version="1"))
        counted.add(one_request(version=f"{version + 2}"))
    known = counted.since(0)
    assert len(known) <= 20 and {"1", "101"} <= set(known)
    assert known["1"].requests == 100


def test_figures_survive_json() -> None:
    counted = windows()
    counted.add(one_request(judged=2, off_target=1))
    stats = counted.since(0)["7"]
    assert VersionStats.from_json(json.loads(json.dumps(stats.to_json()))) == stats
