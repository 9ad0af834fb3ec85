from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.evaluate.pairs import Outcome, counts
from bayling.evaluate.reviews import Reviews, read

pytestmark = pytest.mark.unit


def bayling(number: int, own: Any, other: Any, result: str, **different: Any) -> dict[str, Any]:
    return {
        "question_id": number,
        "question": f"question {number}",
        "category": "writing" if number % 2 else "math",
        "system1": {"name": "BayLing-13B", "response": "Yes."},
        "system2": {"name": "GPT-3.5-turbo", "response": "No."},
        "review": ["Both are short."],
        "score": [own, other],
        "result": result,
        **different,
    }


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), "utf-8")  # the published files end without a newline
    return path


def hand_count(found: Reviews) -> tuple[int, int, int]:
    outcomes = [review.pair.outcome for review in found.reviews]
    return tuple(outcomes.count(outcome) for outcome in (Outcome.win, Outcome.tie, Outcome.loss))


def test_reviews_as_bayling_publishes_them(tmp_path: Path) -> None:
    path = write(
        tmp_path / "reviews.jsonl",
        bayling(1, 9.0, 7.0, "WIN"),
        bayling(2, 8.0, 8.0, "TIE"),
        bayling(3, 8.5, 9.0, "LOSS"),
        bayling(4, 2.0, 9.0, "LOSS"),
    )
    found = read([path])
    assert not found.unjudged
    assert counts([review.pair for review in found.reviews]) == {
        **{"wins": 1, "ties": 1, "losses": 2},
        "judged": 4,
    }
    assert {review.systems for review in found.reviews} == {("BayLing-13B", "GPT-3.5-turbo")}
    assert found.reviews[0].pair.groups == (("category", "writing"),)


def test_reviews_as_fastchat_publishes_those_of_vicuna(tmp_path: Path) -> None:
    def row(number: int, score: list[float]) -> dict[str, Any]:
        ids = {"answer1_id": f"a{number}", "answer2_id": f"b{number}", "reviewer_id": 1}
        text = " ".join(map(str, score)) + "\nBoth are fine."
        return {"review_id": f"r{number}", "question_id": number, **ids, "text": text} | {
            "metadata": {},
            "score": score,
        }

    path = write(
        tmp_path / "review_gpt35_vicuna.jsonl",
        row(1, [9.0, 8.5]),
        row(2, [9.0, 9.0]),
        row(3, [-1, -1]),  # what FastChat writes where it could not read its judge
    )
    found = read([path])
    assert hand_count(found) == (1, 1, 0)
    [unjudged] = found.unjudged
    assert str(unjudged) == f"{path}, line 3: the judge gave no scores (-1, -1)"
    assert found.reviews[0].systems == ("review_gpt35_vicuna: answer 1", "answer 2")


def test_reviews_as_fastchat_publishes_those_of_mt_bench(tmp_path: Path) -> None:
    def row(number: int, turn: int, first: str, second: str) -> dict[str, Any]:
        winners = {"g1_winner": first, "g2_winner": second}
        models = {"model_1": "alpaca-13b", "model_2": "gpt-3.5-turbo"}
        return {"question_id": number, **models, **winners, "turn": turn}

    path = write(
        tmp_path / "gpt-4_pair.jsonl",
        row(81, 1, "model_1", "model_1"),
        row(81, 2, "model_1", "model_2"),  # whoever was shown first
        row(82, 1, "tie", "model_2"),
        row(82, 2, "model_2", "model_2"),
        row(83, 1, "model_2", "error"),
    )
    found = read([path])
    assert hand_count(found) == (1, 2, 1)
    assert [review.pair.agreed for review in found.reviews] == [True, False, False, True]
    assert [row.line for row in found.unjudged] == [5]
    assert found.reviews[1].pair.groups == (("turn", "turn 2"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "no JSON object"),
        ({"question_id": 1, "text": "A question?"}, "neither score nor g1_winner"),
        (bayling(1, 9, 8, "WIN", system1="BayLing"), "does not name two systems"),
        (bayling(1, "9", 8, "WIN"), "score is ['9', 8], not two numbers"),
        (bayling(1, 9, 8, "WIN", score=[9]), "score is [9], not two numbers"),
        (bayling(1, float("nan"), 8, "WIN"), "not two numbers"),
        (bayling(1, 90, 80, "WIN"), "not between 0 and 10"),
        (bayling(1, 9, 8, "LOSS"), "result is 'LOSS', but score is [9, 8]"),
        (bayling(1, 9, 8, "maybe"), "result is 'maybe'"),
    ],
)
def test_a_row_that_says_nothing_is_named_and_kept_out(
    tmp_path: Path, row: Any, reason: str
) -> None:
    path = write(tmp_path / "reviews.jsonl", bayling(7, 9, 8, "WIN"), "", row)
    found = read([path])
    assert hand_count(found) == (1, 0, 0)
    [unjudged] = found.unjudged
    assert str(unjudged).startswith(f"{path}, line 3: ") and reason in str(unjudged)


def test_a_question_reviewed_twice_is_refused(tmp_path: Path) -> None:
    rows = [bayling(1, 9, 8, "WIN"), bayling(2, 9, 8, "WIN"), bayling(1, 5, 8, "LOSS")]
    path = write(tmp_path / "reviews.jsonl", *rows)
    with pytest.raises(UserError, match=r"line 3: question 1 was reviewed in .*, line 1 already"):
        read([path])


def test_a_file_given_twice_under_two_names_is_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, bayling(1, 9, 8, "WIN")) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(UserError, match=r"b\.jsonl, line 1: question 1 was reviewed in .*a\.jsonl"):
        read(paths)


def test_settings_number_their_questions_alike(tmp_path: Path) -> None:
    english = write(tmp_path / "en.jsonl", bayling(1, 9, 8, "WIN"))
    chinese = write(tmp_path / "zh.jsonl", bayling(1, 5, 8, "LOSS", question="问题一"))
    assert hand_count(read([english, chinese])) == (1, 0, 1)


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read([tmp_path / "none.jsonl"])
    with pytest.raises(UserError, match="is empty"):
        read([write(tmp_path / "empty.jsonl", "")])
