"""What raters are shown, and what is kept of their votes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from rated import compared, session_of

from bayling.rating import votes
from bayling.rating.session import Refused, Session, rater_name

pytestmark = pytest.mark.unit


def test_nothing_that_is_shown_names_a_system(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    session.vote(0, "Ana", [1, 2], False, 3)
    shown = [session.overview(), session.progress("Ana")]
    shown += [session.item(number, "Ana") for number in range(len(session.items))]
    assert "secret" not in json.dumps(shown)


def test_each_system_stands_on_either_side_as_often_and_the_order_is_kept(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue", "green"), tmp_path)
    item = session.items[0]
    orders = [tuple(session.order(item, f"rater {it}")) for it in range(600)]
    assert orders == [tuple(session.order(item, f"rater {it}")) for it in range(600)]
    counted = Counter(orders)
    assert len(counted) == 6
    assert min(counted.values()) > 60
    other = session_of(compared(tmp_path, "red", "blue", "green"), tmp_path / "other", seed=2)
    assert orders != [tuple(other.order(item, f"rater {it}")) for it in range(600)]


def test_a_vote_is_for_the_system_that_stood_there(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    for number in range(len(session.items)):
        shown = session.item(number, "Ana")["answers"]
        session.vote(number, "Ana", [2, 1], False, 3)
        [kept] = [it for it in session.votes() if it.item == session.items[number].id]
        winner = min(kept.ranks, key=lambda system: kept.ranks[system])
        assert winner == f"secret-{shown[1][0].split()[0]}"
        assert session.item(number, "Ana")["vote"] == {"ranks": [2, 1], "bad": False}
        assert session.item(number, "Bo")["vote"] is None


def test_a_rater_goes_on_where_they_stopped_and_others_at_their_own_place(tmp_path: Path) -> None:
    comparison = compared(tmp_path, "red", "blue")
    session = session_of(comparison, tmp_path)
    session.vote(0, "Ana", [1, 2], False, 3)
    session.vote(1, "Ana", [1, 1], True, 3)
    session.vote(1, "Bo", [1, 1], False, 3)
    session.withdraw(0, "Ana")
    session.withdraw(2, "Ana")  # nothing to take back
    session.close()
    again = session_of(comparison, tmp_path)
    assert [one["done"] for one in again.progress("Ana")] == [False, True, False, False]
    assert [one["done"] for one in again.progress("Bo")] == [False, True, False, False]
    assert [one["done"] for one in again.progress("Cy")] == [False] * 4
    assert votes.read([again.path]) == again.votes()


def test_votes_on_other_answers_do_not_count(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    session.vote(0, "Ana", [1, 2], False, 3)
    session.close()
    other = session_of(compared(tmp_path, "red", "green"), tmp_path)
    assert not other.votes()
    assert not any(one["done"] for one in other.progress("Ana"))


def test_translations_show_the_sentence_and_what_is_asked_beside_it(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    shown = {
        item.id: session.item(number, "Ana")["turns"] for number, item in enumerate(session.items)
    }
    assert shown["t1"] == ("The tea is cold.",)
    assert shown["t2"] == ("今天天气很好。\n确保包含这些词：Wetter",)
    assert shown["i1"] == ("Name three rivers of Kenya.",)
    assert len(shown["m1"]) == 3


def test_directions_are_groups_of_their_own(tmp_path: Path) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    groups = session.overview()["groups"]
    assert [(one["task"], one["source_lang"], one["items"]) for one in groups] == [
        ("instruction", None, 1),
        ("multi-turn", None, 1),
        ("translation", "zh", 1),
        ("translation", "en", 1),
    ]


@pytest.fixture
def three(tmp_path: Path) -> Session:
    return session_of(compared(tmp_path, "red", "blue", "green"), tmp_path)


def test_ranks_are_kept_without_gaps(three: Session) -> None:
    three.vote(0, "Ana", [1, 3, 3], False, 3)
    [kept] = three.votes()
    assert sorted(kept.ranks.values()) == [1, 2, 2]


@pytest.mark.parametrize(
    ("number", "ranks", "bad", "seconds"),
    [
        (9, [1, 2, 3], False, 1),
        (0, [1, 2], False, 1),
        (0, [1, 2, 4], False, 1),
        (0, [1, 2, True], False, 1),
        (0, "123", False, 1),
        (0, [1, 2, 3], True, 1),
        (0, [1, 2, 3], None, 1),
        (0, [1, 2, 3], False, -1),
        (0, [1, 2, 3], False, float("nan")),
        (0, [1, 2, 3], False, None),
    ],
)
def test_a_vote_that_makes_no_sense_is_not_kept(
    three: Session, number: int, ranks: object, bad: object, seconds: object
) -> None:
    with pytest.raises(Refused):
        three.vote(number, "Ana", ranks, bad, seconds)
    assert not three.votes()
    assert three.path.read_bytes() == b""


def test_one_person_has_one_name(tmp_path: Path) -> None:
    assert rater_name("  Zoe\u0308   Tan ") == "Zoë Tan"
    for wrong in ("", "   ", "x" * 61, "a\x00b"):
        with pytest.raises(Refused):
            rater_name(wrong)
