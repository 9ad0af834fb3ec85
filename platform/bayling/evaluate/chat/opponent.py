"""Answers that were published, to compare a model's with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate.files import read_rows
from bayling.evaluate.suite import Row

_SHOWN = 3
_EXPECTED = (
    "expected question_id and an answer: response (BayLing), choices[turns] (MT-bench), "
    "answer_id and text (FastChat), system1 and system2 (reviews), or turns and outputs"
)


@dataclass(frozen=True)
class Opponent:
    """A system whose answers are known."""

    name: str
    outputs: dict[str, list[str]]
    """Id of a question → an answer for each of its turns."""


@dataclass(frozen=True)
class _Answer:
    place: str
    system: str | None
    question_id: str
    turns: tuple[str, ...] | None
    """The question, where the file repeats it."""
    outputs: list[str]


def read(paths: Sequence[Path], system: str | None, questions: Sequence[Row]) -> Opponent:
    """The answers to `questions` in files that somebody published.

    An answer belongs to the question that its row repeats. Where a row has none, `question_id`
    decides, which needs the questions to be from one file.

    Args:
        system: whose answers to take, where the files have several systems'.

    Raises:
        UserError: a file cannot be read or has another form; there are several systems and none
            was chosen; a question has no answer, or two different ones.
    """
    found = [answer for path in paths for answer in _read(path)]
    named = sorted({answer.system for answer in found if answer.system is not None})
    if system is not None and system not in named:
        raise UserError(
            f"evaluate.chat.opponent_system={system} answers nothing in {_listed(paths)}"
            + (f"; there are {', '.join(named)}" if named else ": its rows name no system")
        )
    if system is None and len(named) > 1:
        raise UserError(
            f"{_listed(paths)} has answers of {', '.join(named)}: choose one with "
            "evaluate.chat.opponent_system"
        )
    chosen = [answer for answer in found if system is None or answer.system == system]
    outputs = _matched(chosen, questions)
    if missing := [row["id"] for row in questions if row["id"] not in outputs]:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise UserError(
            f"{_listed(paths)} has no answer to {len(missing)} of {len(questions)} questions "
            f"({shown}): take out those questions, or name the files with their answers too"
        )
    return Opponent(system or (named[0] if named else paths[0].stem), outputs)


def _matched(answers: Sequence[_Answer], questions: Sequence[Row]) -> dict[str, list[str]]:
    by_turns: dict[tuple[str, ...], list[Row]] = {}
    for row in questions:
        by_turns.setdefault(_stripped(row["turns"]), []).append(row)
    one_set = len({row["set"] for row in questions}) == 1
    by_number = {row["question_id"]: row for row in questions}
    outputs: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for answer in answers:
        if answer.turns is not None:
            rows = by_turns.get(answer.turns, [])
        elif one_set:
            rows = [by_number[answer.question_id]] if answer.question_id in by_number else []
        else:
            raise UserError(
                f"{answer.place}: the row does not repeat its question, and question_id "
                f"{answer.question_id} could belong to any of several files of questions: "
                "evaluate one at a time"
            )
        for row in rows:
            if len(answer.outputs) != len(row["turns"]):
                raise UserError(
                    f"{answer.place}: {len(answer.outputs)} answers to the {len(row['turns'])} "
                    f"turns of {row['id']}"
                )
            if outputs.get(row["id"], answer.outputs) != answer.outputs:
                raise UserError(
                    f"{answer.place}: another answer to {row['id']} than in {places[row['id']]}"
                )
            outputs[row["id"]] = answer.outputs
            places[row["id"]] = answer.place
    return outputs


def _read(path: Path) -> Iterator[_Answer]:
    for line, row in read_rows(path):
        place = f"{path}, line {line}"
        answers = list(_answers(row))
        number = row.get("question_id", row.get("id"))
        if not answers or number is None:
            raise UserError(f"{place}: {_EXPECTED}")
        for system, question, given in answers:
            outputs = [given] if isinstance(given, str) else given
            if not isinstance(outputs, list) or not all(isinstance(one, str) for one in outputs):
                raise UserError(f"{place}: {_EXPECTED}")
            turns = [question] if isinstance(question, str) else question
            told = _stripped(turns) if isinstance(turns, list) else None
            yield _Answer(place, system, str(number), told, outputs)


def _answers(row: dict[str, Any]) -> Iterator[tuple[str | None, Any, Any]]:
    """System, question and answers of a row, in whichever form it is."""
    model = row.get("model_id")
    name = None if model is None else str(model)
    if "system1" in row and "system2" in row:
        for key in ("system1", "system2"):
            system = row[key] if isinstance(row[key], dict) else {}
            yield str(system.get("name", key)), row.get("question"), system.get("response")
    elif "response" in row:
        yield name, row.get("text", row.get("question")), row["response"]
    elif "outputs" in row:
        yield name, row.get("turns"), row["outputs"]
    elif isinstance(row.get("choices"), list) and row["choices"]:
        choice = row["choices"][0]
        yield name, None, choice.get("turns") if isinstance(choice, dict) else None
    elif "answer_id" in row:
        yield name, None, row.get("text")


def _stripped(turns: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(turn).strip() for turn in turns)


def _listed(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
