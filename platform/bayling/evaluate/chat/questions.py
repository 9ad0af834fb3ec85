"""Files of open questions: BayLing-80, vicuna-80, MT-bench, told from their keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate.files import read_rows
from bayling.evaluate.suite import Row

_EXPECTED = 'expected {"question_id": …, "text" or "turns": a question, or one for each turn}'


def read(paths: Sequence[Path]) -> list[Row]:
    """Questions in the order of the files.

    Each has an `id` (the file's name without its ending, `/`, `question_id`), `turns`, `category`
    (None where there is none), `set` (the file's name without its ending), `question_id`, and
    `reference` (one right answer for each turn, or None), which MT-bench has for some.

    Raises:
        UserError: a file cannot be read, a row is no question, an id is there twice, or two files
            have one name.
    """
    questions: list[Row] = []
    seen: dict[str, Path] = {}
    for path in paths:
        name = path.name.removesuffix(".jsonl").removesuffix(".json")
        if name in seen:
            raise UserError(
                f"{seen[name]} and {path} would both be the questions {name!r}: rename one"
            )
        seen[name] = path
        questions += _read(path, name)
    return questions


def _read(path: Path, name: str) -> list[Row]:
    lines: dict[str, int] = {}
    questions = []
    for line, row in read_rows(path):
        place = f"{path}, line {line}"
        turns = texts(row["turns"] if "turns" in row else row.get("text"))
        if not turns or "question_id" not in row:
            raise UserError(f"{place}: {_EXPECTED}")
        number = str(row["question_id"])
        if number in lines:
            raise UserError(
                f"{place}: question_id {number} is that of line {lines[number]} already"
            )
        lines[number] = line
        reference = texts(row.get("reference"))
        questions.append(
            {
                "id": f"{name}/{number}",
                "turns": turns,
                "category": None if row.get("category") is None else str(row["category"]),
                "set": name,
                "question_id": number,
                "reference": reference if len(reference) == len(turns) else None,
            }
        )
    return questions


def texts(value: Any) -> list[str]:
    """One text or several as a list; empty where it is neither, or one of them is empty."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        return []
    fine = all(isinstance(text, str) and text.strip() for text in listed)
    return list(listed) if fine else []
