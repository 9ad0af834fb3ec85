from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sources import write_json_lines

from bayling.config import compose
from bayling.errors import UserError
from bayling.evaluate.suites import knowledge

pytestmark = pytest.mark.unit

ROW: dict[str, Any] = {
    "passage": None,
    "question": "How many?",
    "options": ["(A)one", "(B)two", "(C)three", "(D)four"],
    "label": "B",
}


def suite_of(*files: Path) -> knowledge.Knowledge:
    names = ",".join(map(str, files))
    config = compose([f"evaluate.knowledge.files=[{names}]"]).evaluate
    return knowledge.suite(config, None)  # type: ignore[arg-type]  # it reads files alone


def test_it_asks_the_questions_of_all_files_and_scores_the_answers(tmp_path: Path) -> None:
    one = write_json_lines(tmp_path / "one.jsonl", [ROW, {**ROW, "label": None}, ROW])
    two = write_json_lines(tmp_path / "two.jsonl", [{**ROW, "label": "A"}])
    suite = suite_of(one, two)
    assert [row["id"] for row in suite.questions] == ["one/1", "one/3", "two/1"]
    assert suite.decoding.max_new_tokens == 512
    scored = suite.score([{**row, "outputs": ["Answer is choice (B)"]} for row in suite.questions])
    values = {name: figures["accuracy"].value for name, figures in scored.samples.items()}
    assert values == {"all": 0.5, "one": 1.0, "two": 0.0}
    assert scored.details["unlabelled"] == {"one": 1}


def test_without_questions_it_says_how_to_name_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate.knowledge.files=\[.*\]"):
        suite_of()
    with pytest.raises(UserError, match=r"no question in .*has a label"):
        suite_of(write_json_lines(tmp_path / "one.jsonl", [{**ROW, "label": None}]))


def test_an_impossible_length_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluate.knowledge.max_new_tokens must be at least 1"):
        compose(["evaluate.knowledge.max_new_tokens=0"])
