"""Which version a request goes to, and what happens to a plan whose versions cannot be loaded."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.serve.fleet import Fleet, Version

pytestmark = pytest.mark.unit

NOBODY: Any = None
"""What would answer; nobody is asked here."""
CONVERSATIONS = [f"conversation {number}" for number in range(2000)]


def version(number: str) -> Version:
    if number == "9":
        raise UserError("version 9 lies in /models/9, which is not there")
    return Version("bayling", number, ["en"], NOBODY)


def fleet(shares: dict[str, float]) -> Fleet:
    made = Fleet("bayling", version)
    follow(made, shares)
    return made


def follow(one: Fleet, shares: dict[str, float]) -> None:
    one.take(shares)
    one.load()


def chosen(one: Fleet) -> list[str]:
    return [one.choose("bayling", conversation).version for conversation in CONVERSATIONS]


def test_a_conversation_changes_its_version_once_while_a_share_grows() -> None:
    one = fleet({"7": 1.0})
    before = chosen(one)
    for share in (0.0, 0.05, 0.25, 0.5, 1.0):
        follow(one, {"7": 1 - share, "8": share})
        now = chosen(one)
        assert abs(now.count("8") / len(now) - share) < 0.03
        assert all(new == "8" for old, new in zip(before, now, strict=True) if old == "8")
        before = now


def test_a_version_without_a_share_answers_who_names_it() -> None:
    one = fleet({"7": 1.0, "8": 0.0})
    assert set(chosen(one)) == {"7"}
    assert one.choose("bayling@8", "anything").version == "8"


def test_a_version_that_cannot_be_loaded_is_left_out_and_told() -> None:
    one = fleet({"7": 1.0})
    follow(one, {"7": 0.5, "9": 0.5})
    assert set(chosen(one)) == {"7"}
    assert one.shares == {"7": 0.5}
    assert one.troubles == {"9": "version 9 lies in /models/9, which is not there"}
    follow(one, {"7": 1.0})
    assert one.troubles == {}


def test_a_plan_of_nothing_that_can_be_loaded_changes_nothing() -> None:
    one = fleet({"7": 1.0})
    follow(one, {"9": 1.0})
    assert set(chosen(one)) == {"7"}
    assert set(one.troubles) == {"9"}


def test_a_fleet_that_begins_with_nothing_says_why() -> None:
    with pytest.raises(UserError, match="/models/9"):
        fleet({"9": 1.0})


def test_a_share_is_taken_away_at_once_while_another_version_is_still_loading() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load(number: str) -> Version:
        if number == "10":
            loading.set()
            assert go_on.wait(10)
        return version(number)

    one = Fleet("bayling", load)
    follow(one, {"7": 0.5, "8": 0.5})
    one.take({"7": 0.5, "8": 0.5, "10": 0.0})
    thread = threading.Thread(target=one.load)
    thread.start()
    assert loading.wait(10)
    one.take({"7": 1.0})
    assert set(chosen(one)) == {"7"}
    go_on.set()
    thread.join(10)
    # What was loaded for the earlier plan is not served.
    assert one.shares == {"7": 1.0}
