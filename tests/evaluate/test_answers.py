from __future__ import annotations

from pathlib import Path

import pytest

from bayling.evaluate.answers import Answers
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.suite import Row
from bayling.evaluate.suites.heldout import HeldOut

pytestmark = pytest.mark.unit

SUITE = HeldOut(
    [{"id": str(number), "prompt": f"Say {number}."} for number in range(10)], Decoding(8)
)


def answered(rows: list[Row]) -> list[Row]:
    return [{**row, "outputs": [row["id"]]} for row in rows]


def test_what_is_kept_is_not_missing_whatever_the_size_of_the_pieces(tmp_path: Path) -> None:
    answers = Answers(tmp_path, SUITE)
    assert answers.missing(4) == [range(0, 4), range(4, 8), range(8, 10)]
    answers.keep(range(4, 8), answered(answers.questions(range(4, 8))))
    again = Answers(tmp_path, SUITE)
    assert again.missing(4) == [range(0, 4), range(8, 10)]
    assert again.missing(3) == [range(0, 3), range(3, 4), range(8, 10)]
    assert not again.path.exists()


def test_the_last_piece_makes_it_one_file_in_the_questions_order(tmp_path: Path) -> None:
    answers = Answers(tmp_path, SUITE)
    for piece in reversed(answers.missing(3)):
        answers.keep(piece, answered(answers.questions(piece)))
    assert answers.missing(3) == []
    assert [row["outputs"] for row in answers.read()] == [[str(number)] for number in range(10)]
    assert [path.name for path in tmp_path.iterdir()] == ["heldout.jsonl"]


def test_pieces_that_were_all_there_are_put_together_by_the_next_one(tmp_path: Path) -> None:
    """It may have been killed between the last piece and the file."""
    answers = Answers(tmp_path, SUITE)
    for piece in answers.missing(5):
        answers.keep(piece, answered(answers.questions(piece)))
    whole = answers.path.read_text("utf-8")
    answers.path.unlink()
    for piece in Answers(tmp_path, SUITE).missing(10):
        answers.keep(piece, answered(answers.questions(piece)))
    assert answers.path.read_text("utf-8") == whole
