from __future__ import annotations

from typing import Any

import pytest

from bayling.evaluate import conversing

pytestmark = pytest.mark.unit


def turn(role: str, content: str, *requirements: tuple[str, list[str]]) -> dict[str, Any]:
    wanted = [{"kind": kind, "values": values} for kind, values in requirements]
    return {"role": role, "content": content, "requirements": wanted}


def conversation(*outputs: str) -> dict[str, Any]:
    return {
        "id": " ".join(outputs),
        "messages": [
            turn("user", "Provide …", ("script", ["de"]), ("contains", ["5"])),
            turn("assistant", "in 5 Tagen"),
            turn("user", "Make it shorter.", ("script", ["de"]), ("shorter", [])),
            turn("assistant", "in 5 T."),
        ],
        "outputs": list(outputs),
    }


def figures(*conversations: dict[str, Any], group: str = "all") -> dict[str, float]:
    scored = conversing.score(conversations)
    return {name: sample.value for name, sample in scored.samples[group].items()}


def test_a_turn_is_judged_after_the_models_own_earlier_answer() -> None:
    assert figures(conversation("in 5 Tagen", "in 5 T."))["satisfied"] == 1
    # Shorter than the true answer before it, but not than the model's own.
    second = figures(conversation("in 5 T", "in 5 Tage"))
    assert (second["first_turn"], second["later_turns"]) == (1, 0)
    first = figures(conversation("in 6 Tagen", "in 6 T."))
    assert (first["first_turn"], first["later_turns"]) == (0, 1)


def test_conversations_are_scored_by_turn_by_kind_and_as_a_whole() -> None:
    asked = [
        conversation("in 5 Tagen", "in 5 T."),
        conversation("in 5 Tagen", "in 5 Tagen"),
        conversation("через 5 дней", "5"),
        conversation("in 5 Tagen", ""),
    ]
    scored = figures(*asked)
    assert scored.pop("final_chrf") < 100
    assert scored == pytest.approx(
        {
            "satisfied": 5 / 8,
            "first_turn": 3 / 4,
            "later_turns": 2 / 4,
            "wishes_kept": 3 / 4,  # the script stays German; nothing is in no script
            "conversations": 1 / 4,
            "exact": 4 / 8,
        }
    )
    assert figures(*asked, group="shorter")["satisfied"] == 2 / 4
    assert figures(*asked, group="contains")["satisfied"] == 1


def test_right_answers_have_full_marks() -> None:
    assert figures(conversation("in 5 Tagen", "in 5 T."))["final_chrf"] == pytest.approx(100)


def test_what_broke_is_there_to_be_read_one_of_each_kind_first() -> None:
    asked = [
        conversation("in 5 Tagen", "in 5 Tagen"),
        conversation("in 5 Tage", "in 5 Tagen"),
        conversation("in 6 Tagen", "in 6 T."),
    ]
    broken = conversing.score(asked).details["broken"]
    first = [next(turn["missed"] for turn in one["turns"] if turn["missed"]) for one in broken]
    assert [items[0]["kind"] for items in first] == ["shorter", "contains", "shorter"]
    assert broken[0]["turns"][1]["reference"] == "in 5 T."


def test_no_conversations_have_no_scores() -> None:
    assert conversing.score([]).samples == {}


def test_an_answer_too_few_is_an_error_and_not_a_score() -> None:
    with pytest.raises(ValueError, match="shorter"):
        conversing.score([conversation("in 5 Tagen")])
