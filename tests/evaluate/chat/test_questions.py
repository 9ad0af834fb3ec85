from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.evaluate.chat.questions import read

pytestmark = pytest.mark.unit


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"text": "Why?"}, ["Why?"]),  # BayLing-80, one turn
        ({"text": ["为什么？", "请再说一遍。"]}, ["为什么？", "请再说一遍。"]),  # several
        ({"turns": ["Why?"]}, ["Why?"]),  # vicuna-80
        (
            {"turns": ["Why?", "Again."], "reference": ["So.", "So."]},
            ["Why?", "Again."],
        ),  # MT-bench
    ],
)
def test_each_published_form(tmp_path: Path, row: dict[str, Any], turns: list[str]) -> None:
    path = write(tmp_path / "some.en.jsonl", {"question_id": 81, "category": "writing", **row})
    [question] = read([path])
    assert question["id"] == "some.en/81"
    assert question["turns"] == turns
    assert question["category"] == "writing"
    assert question["reference"] == row.get("reference")


def test_files_that_number_alike_stay_apart(tmp_path: Path) -> None:
    row = {"question_id": 1, "text": "Why?"}
    paths = [write(tmp_path / name, row) for name in ("en.jsonl", "zh.jsonl")]
    assert [question["id"] for question in read(paths)] == ["en/1", "zh/1"]


def test_a_reference_for_some_turns_only_is_none(tmp_path: Path) -> None:
    row = {"question_id": 1, "turns": ["Why?", "Again."], "reference": ["So."]}
    assert read([write(tmp_path / "x.jsonl", row)])[0]["reference"] is None


@pytest.mark.parametrize(
    "row",
    [
        {"question_id": 1},
        {"text": "Why?"},
        {"question_id": 1, "text": ""},
        {"question_id": 1, "text": ["Why?", " "]},
        {"question_id": 1, "turns": []},
        {"question_id": 1, "turns": [1]},
    ],
)
def test_a_row_that_is_no_question_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write(tmp_path / "x.jsonl", {"question_id": 0, "text": "Why?"}, row)
    with pytest.raises(UserError, match=r"x\.jsonl, line 2: expected"):
        read([path])


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *[{"question_id": 1, "text": "Why?"}] * 2)
    with pytest.raises(UserError, match="line 2: question_id 1 is that of line 1 already"):
        read([path])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    row = {"question_id": 1, "text": "Why?"}
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(UserError, match="rename one"):
        read([write(folder / "x.jsonl", row) for folder in folders])


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*none\.jsonl"):
        read([tmp_path / "none.jsonl"])
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes('{"question_id": 1, "text": "Warum nicht schön?"}'.encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read([broken])
    broken.write_text('{"question_id": 1, ')
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read([broken])
