"""`bayling score knowledge`: exam answers that any system wrote, against their labels."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.evaluate.choices import QuestionFile
    from bayling.evaluate.suite import Row, Scored

_HELP = "answers to multiple-choice questions"
_EPILOG = """examples:
  bayling score knowledge --predictions sat-en.out --labels agieval/sat-en.jsonl
  bayling score knowledge --predictions out/*.jsonl --labels agieval/*.jsonl    in one order
  bayling score knowledge --predictions answers/trained/knowledge.jsonl --labels agieval/*.jsonl

Predictions: one a line, as text or as JSON with the text under output, text, prediction,
response or answer, or as OpenAI's API answers. They belong to the labels in their order; where
they have an id of the labels (sat-en/17 is line 17 of sat-en.jsonl), by that.
Labels: AGIEval's format, or one label a line: B, or ACD where several options are right.
"""
_KEYS = ("output", "text", "prediction", "response", "answer")


@dataclass(frozen=True)
class _Prediction:
    place: str
    text: str
    id: str | None


def register(subcommands: Any) -> None:
    """Add `knowledge` to the commands of `bayling score`."""
    added = subcommands.add_parser(
        "knowledge",
        help=_HELP,
        description=_HELP[0].upper() + _HELP[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(work=_score)
    added.add_argument("--predictions", nargs="+", required=True, metavar="FILE")
    added.add_argument("--labels", nargs="+", required=True, metavar="FILE")
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _score(arguments: argparse.Namespace) -> None:
    from bayling.evaluate import choices, exam_scores
    from bayling.evaluate.files import found
    from bayling.stage import write_json

    exams = [_labels(path) for path in choices.find(arguments.labels, "--labels")]
    scored = exam_scores.score(_answered(exams, found(arguments.predictions, "--predictions")))
    unlabelled = {exam.name: exam.unlabelled for exam in exams if exam.unlabelled}
    figures = _figures(scored, unlabelled)
    _show(figures)
    if arguments.json is not None:
        try:
            write_json(arguments.json, figures)
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None


def _labels(path: Path) -> QuestionFile:
    """A file in AGIEval's format, or of plain labels."""
    from bayling.evaluate import choices

    return choices.read(path) if _is_json(path) else choices.read_labels(path)


def _is_json(path: Path) -> bool:
    """Whether a file has JSON objects, and not plain lines."""
    from bayling.evaluate.files import read_lines

    return next((line for line in read_lines(path) if line.strip()), "").lstrip().startswith("{")


def _answered(exams: Sequence[QuestionFile], predictions: Sequence[Path]) -> list[Row]:
    """The questions that can be judged, each with its prediction."""
    files = [_predictions(path) for path in predictions]
    if len(files) == 1 and len(exams) > 1:
        return _joined(exams, files[0], predictions[0])
    if len(files) != len(exams):
        raise UserError(
            f"{len(files)} files of predictions for {len(exams)} of labels: name one for each, in "
            "the same order, or one for all"
        )
    return [
        row
        for exam, file, path in zip(exams, files, predictions, strict=True)
        for row in _joined([exam], file, path)
    ]


def _joined(
    exams: Sequence[QuestionFile], predictions: Sequence[_Prediction], path: Path
) -> list[Row]:
    by_id: dict[str, _Prediction] = {}
    for prediction in predictions:
        if prediction.id is None:
            continue
        if (other := by_id.setdefault(prediction.id, prediction)) is not prediction:
            raise UserError(
                f"{prediction.place}: the id {prediction.id!r} is that of {other.place}, too"
            )
    questions = {question.id: question for exam in exams for question in exam.questions}
    if by_id.keys() & questions.keys():
        texts = _by_id(exams, predictions, by_id, path)
    else:
        if len(predictions) != len(questions):
            labels = ", ".join(str(exam.path) for exam in exams)
            raise UserError(
                f"{path} has {len(predictions)} predictions, and {labels} "
                f"{len(questions)} labels: each label needs one, in the same order"
            )
        texts = {
            one: prediction.text for one, prediction in zip(questions, predictions, strict=True)
        }
    return [{**row, "outputs": [texts[row["id"]]]} for exam in exams for row in exam.rows()]


def _by_id(
    exams: Sequence[QuestionFile],
    predictions: Sequence[_Prediction],
    by_id: Mapping[str, _Prediction],
    path: Path,
) -> dict[str, str]:
    places = {
        question.id: (f"{exam.path}, line {question.line}", question.judged)
        for exam in exams
        for question in exam.questions
    }
    for prediction in predictions:
        if prediction.id not in places:
            what = "no id" if prediction.id is None else f"the id {prediction.id!r}"
            raise UserError(f"{prediction.place}: it has {what}, which no label has")
    for one, (place, judged) in places.items():
        if judged and one not in by_id:
            raise UserError(f"{place}: {path} has no prediction with the id {one!r}")
    return {one: prediction.text for one, prediction in by_id.items()}


def _predictions(path: Path) -> list[_Prediction]:
    from bayling.evaluate.files import read_lines, read_rows

    if not _is_json(path):
        # An empty line is an answer in which nothing was said.
        return [
            _Prediction(f"{path}, line {number}", line, None)
            for number, line in enumerate(read_lines(path), 1)
        ]
    return [
        _Prediction(
            f"{path}, line {number}",
            _text(row, f"{path}, line {number}"),
            None if (own := row.get("id", row.get("question_id"))) is None else str(own),
        )
        for number, row in read_rows(path)
    ]


def _text(record: Mapping[str, Any], place: str) -> str:
    if outputs := record.get("outputs"):
        return str(outputs[-1])
    for key in _KEYS:
        if isinstance(record.get(key), str):
            return str(record[key])
    try:
        return str(record["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        raise UserError(
            f"{place}: there is no text under {', '.join(_KEYS)} or outputs, but "
            f"{json.dumps(sorted(record), ensure_ascii=False)}"
        ) from None


def _figures(scored: Scored, unlabelled: Mapping[str, int]) -> dict[str, Any]:
    """What `--json` holds: the headline by its names, then everything by exam."""
    groups = scored.as_dict()["groups"]
    overall = groups.pop("all")["figures"]
    return {
        **{name: figure["value"] for name, figure in overall.items()},
        "intervals": {name: [figure["low"], figure["high"]] for name, figure in overall.items()},
        "questions": overall["accuracy"]["items"],
        "unlabelled": dict(unlabelled),
        "exams": groups,
        "details": scored.details,
    }


def _show(figures: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("exam")
    for name in ("questions", "accuracy %", "95 %", "chance", "unextracted %"):
        table.add_column(name, justify="right")
    for name, exam in figures["exams"].items():
        accuracy, lost = exam["figures"]["accuracy"], exam["figures"]["unextracted"]
        chance = f"{100 * exam['chance']:.0f}" if "chance" in exam else ""
        table.add_row(
            name,
            f"{accuracy['items']:,}",
            f"{100 * accuracy['value']:.2f}",
            _interval(accuracy["low"], accuracy["high"]),
            chance,
            f"{100 * lost['value']:.2f}",
        )
    if len(figures["exams"]) > 1:
        table.add_row(
            "mean of exams",
            f"{figures['questions']:,}",
            f"{100 * figures['accuracy']:.2f}",
            _interval(*figures["intervals"]["accuracy"]),
            "",
            f"{100 * figures['unextracted']:.2f}",
        )
    console.print(table)
    for name, number in figures["unlabelled"].items():
        console.print(f"{name}: {number} without a label left out")


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"
