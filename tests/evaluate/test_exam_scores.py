from __future__ import annotations

from typing import Any

import pytest

from bayling.evaluate import exam_scores

pytestmark = pytest.mark.unit


def answered(file: str, right: str, output: str, **more: Any) -> dict[str, Any]:
    row = {"id": f"{file}/{output}", "file": file, "language": "en", "options": list("wxyz")}
    return {
        **row,
        "several": False,
        "right": list(right),
        "answer": None,
        "outputs": [output],
    } | more


ROWS = [
    answered("easy", "A", "Answer is choice (A)"),
    answered("easy", "B", "Answer is choice (B)"),
    answered("easy", "C", "Answer is choice (C)"),
    answered("easy", "D", "Answer is choice (A)"),
    answered("hard", "A", "I cannot say."),
    answered("hard", "AB", "A, B", several=True),
]


def test_every_exam_counts_alike_in_the_mean() -> None:
    scored = exam_scores.score(ROWS).as_dict()["groups"]
    figures = {
        name: {figure: one["value"] for figure, one in group["figures"].items()}
        for name, group in scored.items()
    }
    assert figures["easy"] == {"accuracy": 0.75, "unextracted": 0.0}
    assert figures["hard"] == {"accuracy": 0.5, "unextracted": 0.5}
    assert figures["all"] == pytest.approx({"accuracy": 0.625, "unextracted": 0.25})
    assert scored["all"]["figures"]["accuracy"]["items"] == 6
    low, high = (scored["all"]["figures"]["accuracy"][end] for end in ("low", "high"))
    assert 0 <= low < 0.625 < high <= 1


def test_groups_say_what_they_are_and_what_guessing_would_reach() -> None:
    groups = exam_scores.score(ROWS).groups
    assert groups["easy"] == {"kind": "exam", "language": "en", "chance": 0.25}
    assert "chance" not in groups["hard"]
    assert groups["all"]["kind"] == "overall"


def test_what_was_chosen_and_what_was_not_understood_can_be_looked_at() -> None:
    exams = exam_scores.score(ROWS).details["exams"]
    assert exams["easy"] == {"chosen": {"A": 2, "B": 1, "C": 1}, "unextracted": []}
    assert exams["hard"]["chosen"] == {"AB": 1}
    (lost,) = exams["hard"]["unextracted"]
    assert lost["output"] == "I cannot say."


def test_some_of_several_right_options_are_not_enough() -> None:
    rows = [answered("exam", "AC", text, several=True) for text in ("A", "AC", "ABC")]
    assert exam_scores.score(rows).samples["exam"]["accuracy"].value == pytest.approx(1 / 3)


def test_open_answers_are_compared_by_what_they_mean() -> None:
    rows = [
        answered("math", "", text, options=[], answer=r"\frac{1}{2}")
        for text in ("The answer is 0.5.", "The answer is 2.", "Let me think about it first.")
    ]
    figures = exam_scores.score(rows).samples["math"]
    assert figures["accuracy"].value == pytest.approx(1 / 3)
    assert figures["unextracted"].value == pytest.approx(1 / 3)


def test_two_systems_can_be_compared_question_by_question() -> None:
    better = exam_scores.score([{**row, "outputs": [f"({row['right'][0]})"]} for row in ROWS[:4]])
    difference = better.against(exam_scores.score(ROWS[:4]))["easy"]["accuracy"]
    assert (difference.value, difference.baseline, difference.items) == (1.0, 0.75, 4)
