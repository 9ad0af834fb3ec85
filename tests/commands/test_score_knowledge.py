"""`bayling score knowledge`: figures, and what it says of files that do not fit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from sources import write_json_lines, write_lines

from bayling.commands import score_knowledge
from bayling.errors import UserError

pytestmark = pytest.mark.unit

LABELS = "BABC"
OPTIONS = ["(A)one", "(B)two", "(C)three", "(D)four"]
ANSWERS = ["Answer is choice (B)", "The answer is (A).", "I cannot say.", "答案：D"]


def score(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    score_knowledge.register(parser.add_subparsers())
    parsed = parser.parse_args(["knowledge", *map(str, arguments)])
    parsed.work(parsed)


def figures(folder: Path, *arguments: object) -> dict[str, Any]:
    out = folder / "figures.json"
    score(*arguments, "--json", out)
    made: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return made


def exam(path: Path, labels: str = LABELS) -> Path:
    rows = [{"question": "How many?", "options": OPTIONS, "label": label} for label in labels]
    return write_json_lines(path, rows)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return exam(tmp_path / "exam.jsonl")


def test_text_predictions_against_an_exam(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_lines(tmp_path / "answers.txt", ANSWERS)
    made = figures(tmp_path, "--predictions", predictions, "--labels", labels)
    assert (made["accuracy"], made["unextracted"], made["questions"]) == (0.5, 0.25, 4)
    low, high = made["intervals"]["accuracy"]
    assert 0 <= low < 0.5 < high <= 1
    assert made["exams"]["exam"]["chance"] == 0.25
    said = capsys.readouterr().out
    assert "50.00" in said
    assert "25.00" in said


@pytest.mark.parametrize(
    "row",
    [
        lambda text: {"output": text},
        lambda text: {"text": text, "usage": {"total_tokens": 9}},
        lambda text: {"outputs": [text]},
        lambda text: {"choices": [{"message": {"role": "assistant", "content": text}}]},
    ],
)
def test_predictions_as_json_lines_of_several_forms(row: Any, labels: Path, tmp_path: Path) -> None:
    predictions = write_json_lines(tmp_path / "answers.jsonl", [row(text) for text in ANSWERS])
    assert figures(tmp_path, "--predictions", predictions, "--labels", labels)["accuracy"] == 0.5


def test_plain_labels(tmp_path: Path) -> None:
    labels = write_lines(tmp_path / "labels.txt", ["B", "A", '["A", "C"]', "CD"])
    predictions = write_lines(tmp_path / "answers.txt", ["B", "B", "A and C", "D"])
    assert figures(tmp_path, "--predictions", predictions, "--labels", labels)["accuracy"] == 0.5


def test_several_files_are_paired_in_their_order(tmp_path: Path) -> None:
    labels = [exam(tmp_path / "one.jsonl", "AB"), exam(tmp_path / "two.jsonl", "CD")]
    predictions = [
        write_lines(tmp_path / "one.txt", ["A", "A"]),
        write_lines(tmp_path / "two.txt", ["C", "D"]),
    ]
    made = figures(tmp_path, "--predictions", *predictions, "--labels", *labels)
    assert made["accuracy"] == 0.75
    assert {name: one["figures"]["accuracy"]["value"] for name, one in made["exams"].items()} == {
        "one": 0.5,
        "two": 1.0,
    }


def test_the_answers_of_an_evaluation_find_their_labels_by_id(tmp_path: Path) -> None:
    labels = [exam(tmp_path / "one.jsonl", "AB"), exam(tmp_path / "two.jsonl", "CD")]
    rows = [
        {"id": one, "outputs": [letter]}
        for one, letter in (("two/2", "D"), ("one/1", "A"), ("two/1", "C"), ("one/2", "A"))
    ]
    predictions = write_json_lines(tmp_path / "knowledge.jsonl", rows)
    assert figures(tmp_path, "--predictions", predictions, "--labels", *labels)["accuracy"] == 0.75


def test_a_question_without_a_label_has_a_prediction_that_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "?", "options": OPTIONS, "label": label} for label in ("A", [], "B")]
    labels = write_json_lines(tmp_path / "exam.jsonl", rows)
    predictions = write_lines(tmp_path / "answers.txt", ["A", "C", "B"])
    made = figures(tmp_path, "--predictions", predictions, "--labels", labels)
    assert (made["accuracy"], made["questions"], made["unlabelled"]) == (1.0, 2, {"exam": 1})
    assert "1 without a label left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        (["A"] * 3, r"answers has 3 predictions, and .*exam.jsonl 4 labels"),
        ([{"id": "exam/1", "text": "A"}] * 4, r"answers, line 2: the id 'exam/1' .* line 1, too"),
        ([{"id": 7, "text": "A"}] * 4, r"answers, line 2: the id '7' is that of .*line 1, too"),
        ([{"id": "exam/1", "text": "A"}], r"exam.jsonl, line 2: .* no prediction .* 'exam/2'"),
        (
            [{"id": "exam/1", "text": "A"}, {"id": "exam/9", "text": "A"}],
            r"line 2: it has the id 'exam/9', which no label has",
        ),
        ([{"answers": "A"}] * 4, r"answers, line 1: there is no text under output, .*\"answers\""),
    ],
)
def test_files_that_do_not_fit_are_one_sentence_with_file_and_line(
    predictions: list[Any], said: str, labels: Path, tmp_path: Path
) -> None:
    plain = isinstance(predictions[0], str)
    path = (write_lines if plain else write_json_lines)(tmp_path / "answers", predictions)
    with pytest.raises(UserError, match=said):
        score("--predictions", path, "--labels", labels)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["A", "Z"], r"labels, line 2: the label 'Z' names no option"),
        (["A", "because"], r"labels, line 2: the label 'because' names no option"),
        (["A", '["A"'], r"labels, line 2: it is no JSON"),
        (["", ""], r"labels holds no label"),
    ],
)
def test_an_unknown_label_is_named(lines: list[str], said: str, tmp_path: Path) -> None:
    labels = write_lines(tmp_path / "labels", lines)
    with pytest.raises(UserError, match=said):
        score("--predictions", write_lines(tmp_path / "a", ["A", "B"]), "--labels", labels)


def test_as_many_files_of_predictions_as_of_labels(labels: Path, tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / name, ["A"] * 4) for name in ("one", "two")]
    with pytest.raises(UserError, match=r"2 files of predictions for 1 of labels"):
        score("--predictions", *paths, "--labels", labels)
