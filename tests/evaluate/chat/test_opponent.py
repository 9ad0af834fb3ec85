from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.evaluate.chat import opponent
from bayling.evaluate.suite import Row

pytestmark = pytest.mark.unit


def question(number: int, *turns: str, name: str = "en") -> Row:
    place = {"set": name, "question_id": str(number)}
    return {"id": f"{name}/{number}", "turns": list(turns), "category": None, **place}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


ONE = [question(1, "Why?")]
TWO = [question(1, "Why?", "Again.")]


@pytest.mark.parametrize(
    ("row", "questions", "name"),
    [
        # BayLing's answers, FastChat's of vicuna-80 and of MT-bench, and this platform's own.
        ({"question_id": 1, "text": ["Why?"], "response": ["So."]}, ONE, "file"),
        ({"question_id": 1, "answer_id": "x", "model_id": "bard", "text": "So."}, ONE, "bard"),
        (
            {"question_id": 1, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["a", "b"]}]},
            TWO,
            "gpt-4",
        ),
        ({"id": "old/7", "turns": ["Why?", "Again."], "outputs": ["a", "b"]}, TWO, "file"),
    ],
)
def test_each_published_form(
    tmp_path: Path, row: dict[str, Any], questions: list[Row], name: str
) -> None:
    found = opponent.read([write(tmp_path / "file.jsonl", row)], None, questions)
    assert found.name == name
    assert found.outputs == {"en/1": ["So."] if questions is ONE else ["a", "b"]}


def review(asked: Any, own: Any, other: Any) -> dict[str, Any]:
    return {
        "question_id": 1,
        "question": asked,
        "system1": {"name": "BayLing-13B", "response": own},
        "system2": {"name": "GPT-3.5-turbo", "response": other},
        "score": [9, 8],
    }


def test_one_of_the_systems_of_reviews_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.jsonl", review("Why?", "So.", "Because."))
    found = opponent.read([path], "GPT-3.5-turbo", ONE)
    assert (found.name, found.outputs) == ("GPT-3.5-turbo", {"en/1": ["Because."]})
    with pytest.raises(UserError, match=r"answers of BayLing-13B, GPT-3\.5-turbo: choose one"):
        opponent.read([path], None, ONE)
    with pytest.raises(UserError, match=r"opponent_system=GPT-4 answers nothing"):
        opponent.read([path], "GPT-4", ONE)


def test_an_answer_belongs_to_the_question_that_its_row_repeats(tmp_path: Path) -> None:
    """All four sets of BayLing-80 number their questions alike."""
    questions = [question(1, "Why?"), question(1, "为什么？", name="zh"), *TWO[:0]]
    several = question(1, "Why?", "Again.", name="multi")
    paths = [
        write(tmp_path / "a.jsonl", review("为什么？", "所以。", "因为。")),
        write(tmp_path / "b.jsonl", review("Why?", "So.", "Because.")),
        write(tmp_path / "c.jsonl", review(["Why?", "Again."], ["a", "b"], ["c", "d"])),
    ]
    found = opponent.read(paths, "BayLing-13B", [*questions, several])
    assert found.outputs == {"en/1": ["So."], "zh/1": ["所以。"], "multi/1": ["a", "b"]}


def test_a_number_alone_does_not_say_which_question_of_several_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question_id": 1, "answer_id": "x", "text": "So."})
    with pytest.raises(UserError, match="any of several files of questions"):
        opponent.read([path], None, [*ONE, question(1, "为什么？", name="zh")])


def test_a_question_without_an_answer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question_id": 1, "text": "Why?", "response": "So."})
    with pytest.raises(UserError, match=r"no answer to 1 of 2 questions \(en/2\)"):
        opponent.read([path], None, [*ONE, question(2, "How?")])


def test_two_different_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    rows = [{"question_id": 1, "text": "Why?", "response": said} for said in ("So.", "No.")]
    path = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(UserError, match=r"line 2: another answer to en/1 than in .*line 1"):
        opponent.read([path], None, ONE)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question_id": 1, "score": 3}, "expected question_id and an answer"),
        ({"question_id": 1, "text": "Why?", "response": None}, "expected question_id"),
        ({"question_id": 1, "text": "Why?", "response": ["a", "b"]}, "2 answers to the 1 turns"),
    ],
)
def test_a_row_that_is_no_answer_is_named(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"line 1: {says}"):
        opponent.read([write(tmp_path / "a.jsonl", row)], None, ONE)
