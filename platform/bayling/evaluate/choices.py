"""Multiple-choice questions in AGIEval's format, and the prompts in which BayLing is asked them.

A row is `{passage, question, options[], label, answer, other}` (arXiv 2304.06364). The published
files are not clean: options come with letters of several forms, out of order, or without any;
labels are a letter, several in one string, or a list. What they mean is told here, once.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate.files import found, read_lines, read_rows
from bayling.languages import letters_in_script

LETTERS = string.ascii_uppercase
_FORMS = {
    "en": (
        "Question:\n{question}\nChoices:\n{options}\n\nAnswer:\n"
        'Output the correct answer in this format: "Answer is choice ()"'
    ),
    "zh": '问题：\n{question}\n选项：\n{options}\n\n答案：\n按照此格式输出正确答案："答案是选项()"',
}
"""As in BayLing's published evaluation. A passage stands before it."""
_OPEN_FORMS = {"en": "Question:\n{question}\nAnswer:", "zh": "问题：{question}\n答案："}
"""Of questions without options: the Chinese one is BayLing's, which has no English ones."""
_LETTERED = re.compile(r"\s*(?:[(（]\s*([A-Z])\s*[)）]|([A-Z])\s*[.．。、:：?？]|([A-Z])(?=\s))\s*")
_MOST_UNSEEN = 10
"""Options of questions that are not there: a label beyond J is a mistake."""
_BRACKETED = re.compile(r"\s*[(（]\s*[A-Z]\s*[)）]\s*")


@dataclass(frozen=True)
class Question:
    """A question, and what the right answer to it is."""

    line: int
    """In its file, from 1."""
    id: str
    """Its own, or its file's name and its line."""
    passage: str
    question: str
    options: tuple[str, ...]
    """Their texts without letters, in the order of their letters: the first one is A."""
    right: frozenset[str]
    """The letters of the right options; none where it has an open answer, or no label at all."""
    answer: str | None
    """The right answer to a question without options."""

    @property
    def judged(self) -> bool:
        """Whether it is known what is right."""
        return bool(self.right) or self.answer is not None


@dataclass(frozen=True)
class QuestionFile:
    """The questions of one file, which is one exam."""

    name: str
    """The file's name without its ending."""
    path: Path
    language: str
    """Of the questions: `en` or `zh`. A Chinese exam of English is asked in English."""
    several: bool
    """Whether some question has several right options, so that each may have."""
    questions: tuple[Question, ...]
    """All of the file, in its order, those that nobody can judge included."""

    @property
    def unlabelled(self) -> int:
        """How many questions say nothing of what is right, and are not asked."""
        return sum(not question.judged for question in self.questions)

    def rows(self) -> list[dict[str, Any]]:
        """The questions that can be judged as a suite's rows."""
        return [
            {
                "id": question.id,
                "turns": [prompt(question, self.language)],
                "file": self.name,
                "language": self.language,
                "options": list(question.options),
                "several": self.several,
                "right": sorted(question.right),
                "answer": question.answer,
            }
            for question in self.questions
            if question.judged
        ]


def prompt(question: Question, language: str) -> str:
    """The zero-shot prompt, in a language of `en` and `zh`."""
    form = (_FORMS if question.options else _OPEN_FORMS)[language]
    options = "\n".join(
        f"({letter}){text}" for letter, text in zip(LETTERS, question.options, strict=False)
    )
    asked = form.format(question=question.question, options=options)
    return f"{question.passage}\n\n{asked}" if question.passage else asked


def find(patterns: Sequence[str], key: str) -> list[Path]:
    """The files that paths and patterns name, each an exam with a name of its own.

    Raises:
        UserError: one of them names none, or two files have one name; `key` says where they stand.
    """
    paths = found(patterns, key)
    names: dict[str, Path] = {}
    for path in paths:
        if (other := names.setdefault(_name(path), path)) != path:
            raise UserError(
                f"{key}: {other} and {path} are one name, {_name(path)!r}, in the scores: leave "
                "one out, or rename it"
            )
    return paths


def read(path: Path) -> QuestionFile:
    """The questions of a file of JSON rows.

    Raises:
        UserError: it cannot be read, or a line is no question; the message names the line.
    """
    questions = [_question(row, number, path) for number, row in read_rows(path)]
    ids: dict[str, int] = {}
    for question in questions:
        if question.id in ids:
            raise UserError(
                f"{path}, line {question.line}: the id {question.id!r} is that of line "
                f"{ids[question.id]}, too"
            )
        ids[question.id] = question.line
    chinese = sum(letters_in_script(one.question, "zh")[0] > 0 for one in questions)
    return QuestionFile(
        name=_name(path),
        path=path,
        # Not by the number of letters: most of those in an exam of mathematics are formulas.
        language="zh" if 2 * chinese > len(questions) else "en",
        several=any(len(question.right) > 1 for question in questions),
        questions=tuple(questions),
    )


def read_labels(path: Path) -> QuestionFile:
    """The questions of which a file has the labels alone, one a line: `B`, `ACD`, `["A", "C"]`.

    Without the questions there are as many options as the labels name, four at least.

    Raises:
        UserError: it cannot be read, or a line is no label; the message names it.
    """
    rights = []
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        try:
            value = json.loads(text) if text.startswith(("[", '"')) else text
        except ValueError as error:
            raise UserError(f"{path}, line {number}: it is no JSON ({error})") from None
        rights.append(label_of(value, _MOST_UNSEEN, f"{path}, line {number}"))
    if not any(rights):
        raise UserError(f"{path} holds no label")
    highest = max(LETTERS.index(letter) for right in rights for letter in right)
    return QuestionFile(
        name=_name(path),
        path=path,
        language="en",
        several=any(len(right) > 1 for right in rights),
        questions=tuple(
            Question(
                line=number,
                id=f"{_name(path)}/{number}",
                passage="",
                question="",
                options=("",) * max(4, highest + 1),
                right=right,
                answer=None,
            )
            for number, right in enumerate(rights, 1)
        ),
    )


def label_of(value: Any, options: int, place: str) -> frozenset[str]:
    """The letters that a label names: `B`, `ACD`, `A, C`, `["A", "C"]`. None of no label.

    Raises:
        UserError: it names something that is no option.
    """
    parts = value if isinstance(value, list) else [value]
    texts = [unicodedata.normalize("NFKC", str(part)) for part in parts if part is not None]
    # The published files have a "。" among the letters of one label.
    letters = [character for text in texts for character in text if character.isalnum()]
    for letter in letters:
        if letter not in LETTERS[:options]:
            raise UserError(
                f"{place}: the label {value!r} names no option: they are "
                f"{LETTERS[0]} to {LETTERS[options - 1]}"
            )
    return frozenset(letters)


def _question(record: Mapping[str, Any], line: int, path: Path) -> Question:
    place = f"{path}, line {line}"
    question = record.get("question")
    options = record.get("options") or []
    if not isinstance(question, str):
        raise UserError(f"{place}: it has no 'question': AGIEval's format is expected")
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise UserError(f"{place}: 'options' is no list of texts")
    if len(options) == 1 or len(options) > len(LETTERS):
        raise UserError(f"{place}: a choice is between 2 to {len(LETTERS)} options")
    label, answer = record.get("label"), record.get("answer")
    own = record.get("id")
    return Question(
        line=line,
        id=f"{_name(path)}/{line}" if own is None else str(own),
        passage=str(record.get("passage") or "").strip(),
        question=question.strip(),
        options=_texts(options),
        right=label_of(label, len(options), place) if options else frozenset(),
        # Where there are options, `answer` repeats the label, if anything.
        answer=None if options or answer is None else str(answer),
    )


def _texts(options: Sequence[str]) -> tuple[str, ...]:
    """The options in the order of their letters, and without them.

    Where all have a letter and each has its own, labels mean these letters, whatever the order.
    Otherwise the order is all that there is, and letters that stand in brackets are mistaken ones.
    """
    matches = [_LETTERED.match(option) for option in options]
    written = [
        next(letter for letter in match.groups() if letter) if match else "" for match in matches
    ]
    if sorted(written) == list(LETTERS[: len(options)]):
        texts = {
            letter: option[match.end() :].strip()
            for letter, option, match in zip(written, options, matches, strict=True)
            if match
        }
        return tuple(texts[letter] for letter in sorted(texts))
    return tuple(_BRACKETED.sub("", option, count=1).strip() for option in options)


def _name(path: Path) -> str:
    return path.stem if path.suffix in (".json", ".jsonl") else path.name
