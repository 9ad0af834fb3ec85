"""Shares are what the configuration says, whatever the sizes of the sources."""

from __future__ import annotations

import pytest

from bayling.config import compose
from bayling.data.mixture import (
    GroupShares,
    MixtureConfig,
    Stratum,
    TaskShares,
    choose,
    plan,
    times,
)
from bayling.errors import UserError

pytestmark = pytest.mark.unit


def amounts(counts: dict[Stratum, int], uses: dict[Stratum, float]) -> dict[Stratum, float]:
    return {stratum: round(counts[stratum] * one, 6) for stratum, one in uses.items()}


DE = Stratum.of("opus", "de", "en")
SW = Stratum.of("opus", "en", "sw")
BIG = Stratum.of("crawl", "en", "de")
ZH = Stratum.of("belle", "zh", "zh")
EN = Stratum.of("alpaca", "en", "en")


def test_rows_are_used_as_they_come() -> None:
    counts = {DE: 8000, SW: 2000}
    assert amounts(counts, plan(counts, {}, 5000, MixtureConfig())) == {DE: 4000, SW: 1000}


def test_a_source_with_twice_the_weight_has_twice_the_part() -> None:
    counts = {DE: 1000, BIG: 1000}
    made = amounts(counts, plan(counts, {"opus": 2.0}, 900, MixtureConfig()))
    assert made == {DE: 600, BIG: 300}


def test_temperature_brings_languages_together() -> None:
    counts = {DE: 10_000, SW: 100}
    config = MixtureConfig(temperature=2.0, most_uses=10)
    made = amounts(counts, plan(counts, {}, 1100, config))
    assert made == {DE: 1000, SW: 100}, "10:1 in place of 100:1"


def test_what_a_language_cannot_take_goes_to_the_others() -> None:
    counts = {DE: 10_000, SW: 100}
    config = MixtureConfig(temperature=100.0, most_uses=2)
    made = amounts(counts, plan(counts, {}, 1100, config))
    assert made == {DE: 900, SW: 200}


def test_there_cannot_be_more_than_there_is() -> None:
    counts = {DE: 100, SW: 10}
    assert amounts(counts, plan(counts, {}, 10_000, MixtureConfig())) == {DE: 100, SW: 10}


def test_caps_and_floors() -> None:
    counts = {DE: 10_000, SW: 500}
    capped = MixtureConfig(most_per_language=300)
    assert amounts(counts, plan(counts, {}, 2000, capped)) == {DE: 300, SW: 300}
    floored = MixtureConfig(least_per_language=400)
    assert amounts(counts, plan(counts, {}, 1000, floored)) == {DE: 600, SW: 400}


def test_groups_have_their_parts() -> None:
    """BayLing 2's: 43 % Chinese, 26 % English, 31 % between two languages."""
    counts = {DE: 50_000, SW: 3000, ZH: 20_000, EN: 90_000}
    config = MixtureConfig(groups=GroupShares(zh=0.43, en=0.26, crosslingual=0.31))
    made = amounts(counts, plan(counts, {}, 10_000, config))
    assert made[ZH] == 4300
    assert made[EN] == 2600
    assert made[DE] + made[SW] == pytest.approx(3100)
    with pytest.raises(UserError, match=r"groups\.zh=0\.43, but no source has such rows"):
        plan({DE: 10, EN: 10}, {}, 10, config)


@pytest.mark.parametrize("recipe", ["bayling-2-7b", "bayling-2-13b", "bayling-2-8b"])
def test_the_recipes_have_the_parts_of_bayling_2(recipe: str) -> None:
    groups = compose([f"recipe={recipe}"]).data.mixture.groups
    assert (groups.zh, groups.en, groups.crosslingual, groups.other) == (0.43, 0.26, 0.31, 0)


def test_how_often_a_row_is_used_is_right_on_average_and_the_same_in_every_run() -> None:
    names = [f"row-{index}" for index in range(4000)]
    drawn = [times(2.3, 7, name) for name in names]
    assert set(drawn) == {2, 3}
    assert sum(drawn) / len(drawn) == pytest.approx(2.3, abs=0.03)
    assert drawn == [times(2.3, 7, name) for name in names]
    assert drawn != [times(2.3, 8, name) for name in names]


def test_a_place_between_0_and_1_chooses_by_weight() -> None:
    weights = {"a": 1.0, "b": 3.0}
    assert [choose(weights, at) for at in (0, 0.24, 0.26, 0.999)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MixtureConfig(groups=GroupShares(zh=0.5)), "must add up to 1, not 0.5: zh=0.5, en=0"),
        (MixtureConfig(tasks=TaskShares(1.5, -0.5, 0)), "constrained cannot be negative"),
        (MixtureConfig(tasks=TaskShares(0, 0, 0)), "must add up to 1, not 0"),
        (MixtureConfig(temperature=0.5), "must be at least 1"),
    ],
)
def test_what_cannot_be_is_told(config: MixtureConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        config.validate()
