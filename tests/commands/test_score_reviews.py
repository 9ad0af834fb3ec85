"""`bayling score reviews`: the figures it prints and writes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from bayling.commands import score_reviews
from bayling.errors import UserError

pytestmark = pytest.mark.unit

SCORES = {
    "en.jsonl": [(9, 7), (8, 8), (6, 9), (10, 5)],
    "zh.jsonl": [(7, 9), (7, 9), (9, 8)],
}


def row(number: int, question: str, score: tuple[float, float]) -> dict[str, Any]:
    return {
        "question_id": number,
        "question": question,
        "category": "writing",
        "system1": {"name": "ours", "response": ""},
        "system2": {"name": "theirs", "response": ""},
        "score": list(score),
    }


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for name, scores in SCORES.items():
        rows = [row(number, f"{name} {number}", pair) for number, pair in enumerate(scores)]
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        paths.append(path)
    with paths[1].open("a") as file:
        file.write("nonsense\n")
    return paths


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    score_reviews.register(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["reviews", *map(str, words)])
    arguments.work(arguments)


def test_the_figures_are_those_of_a_hand_count(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*files, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {name: figures[name] for name in ("wins", "ties", "losses", "judged", "unjudged")} == {
        **{"wins": 3, "ties": 1, "losses": 3},
        **{"judged": 7, "unjudged": 1},
    }
    assert figures["score_ratio"] == pytest.approx(56 / 55)
    low, high = figures["intervals"]["score_ratio"]
    assert low < figures["score_ratio"] < high
    [pair] = figures["pairs"]
    assert pair["systems"] == ["ours", "theirs"]
    assert [file["wins"] for file in pair["files"]] == [2, 1]
    english, chinese = 33 / 29, 23 / 26
    assert [file["score_ratio"] for file in pair["files"]] == pytest.approx([english, chinese])
    assert pair["mean_score_ratio_of_files"] == pytest.approx((english + chinese) / 2)
    assert pair["groups"]["writing"]["judged"] == 7
    assert figures["unjudged_rows"][0].startswith(f"{files[1]}, line 4: ")
    said = capsys.readouterr().out
    assert "ours against theirs" in said
    assert f"{56 / 55:.1%}" in said
    assert f"{files[1]}, line 4" in said


def test_pairs_of_systems_are_not_mixed(files: list[Path], tmp_path: Path) -> None:
    third = tmp_path / "others.jsonl"
    other = row(0, "en.jsonl 0", (3, 9)) | {"system2": {"name": "another", "response": ""}}
    third.write_text(json.dumps(other))
    run(files[0], third, "--json", tmp_path / "figures.json")
    pairs = json.loads((tmp_path / "figures.json").read_text())["pairs"]
    assert [(pair["systems"][1], pair["wins"], pair["losses"]) for pair in pairs] == [
        ("theirs", 2, 1),
        ("another", 0, 1),
    ]


def test_files_without_any_review_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question_id": 1, "text": "Why?"}\n')
    with pytest.raises(UserError, match=r"none of 1 rows is a review; the first: .*line 1"):
        run(path)


def test_figures_that_cannot_be_written_are_a_sentence(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        run(files[0], "--json", tmp_path / "no" / "figures.json")
