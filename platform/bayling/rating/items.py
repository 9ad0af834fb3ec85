"""What is judged: questions that several systems were asked, each with all of their answers.

Answer files are JSON lines as the evaluate stage writes them: `id`, `turns` (what the user says),
`outputs` (one for each turn), and `source_lang` and `target_lang` where it is a translation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from bayling import languages
from bayling.errors import UserError
from bayling.stage import fingerprint

MOST_SYSTEMS = 4
"""More answers than that nobody holds in mind at a time."""


class Task(Enum):
    """The kinds of question that are ranked apart."""

    translation = "translation"
    """One turn, source and target language known."""
    instruction = "instruction"
    """One turn."""
    multi_turn = "multi-turn"
    """Several turns, each answered after the system's own earlier answers."""


@dataclass(frozen=True)
class Item:
    """A question, and what each system answered."""

    suite: str
    """Empty where there is one file a system; ids are unique in a suite."""
    id: str
    task: Task
    turns: tuple[str, ...]
    source_lang: str | None
    target_lang: str | None
    answers: Mapping[str, tuple[str, ...]]
    """System → its answer to each turn."""

    @property
    def key(self) -> tuple[str, str]:
        return self.suite, self.id

    @property
    def alike(self) -> bool:
        """Whether there is nothing to choose between."""
        return len(set(self.answers.values())) == 1


@dataclass(frozen=True)
class AnswerFile:
    """One system's answers, or those to one suite."""

    path: Path
    system: str | None = None
    """None to take it from the path."""
    origin: str = ""
    """Where the file is from, if not from where it lies."""

    def __str__(self) -> str:
        return self.origin or str(self.path)


@dataclass(frozen=True)
class Comparison:
    """Everything that all systems have answered."""

    systems: tuple[str, ...]
    items: tuple[Item, ...]
    missing: Mapping[str, int]
    """System → how many questions others have answered and it has not: they are left out."""
    sources: Mapping[str, tuple[str, ...]]
    """System → the files its answers come from."""

    @cached_property
    def fingerprint(self) -> str:
        """Names systems, questions and answers. Votes hold for nothing else."""
        rows = [
            [*item.key, item.turns, sorted(item.answers.items())]
            for item in sorted(self.items, key=lambda item: item.key)
        ]
        return fingerprint(sorted(self.systems), rows)

    def drawn(self, each: int | None, seed: int) -> list[Item]:
        """Items in the order in which all raters see them, those with equal answers left out.

        Args:
            each: at most so many of each task, at random. More of them begin with the same ones,
                so that a larger sample goes on from a smaller one.
        """
        shuffled = sorted(
            (item for item in self.items if not item.alike),
            key=lambda item: hashlib.sha256("\0".join([str(seed), *item.key]).encode()).digest(),
        )
        taken: Counter[Task] = Counter()
        chosen = []
        for item in shuffled:
            taken[item.task] += 1
            if each is None or taken[item.task] <= each:
                chosen.append(item)
        return chosen


def read(files: Sequence[AnswerFile]) -> Comparison:
    """Bring together the answers of two to four systems, which may have several files, one a suite.

    Raises:
        UserError: a file or row cannot be read, systems were asked different things under one id,
            or there is nothing that all of them answered.
    """
    named = _named(files)
    systems = tuple(dict.fromkeys(system for system, _, _ in named))
    if not 2 <= len(systems) <= MOST_SYSTEMS:
        raise UserError(
            f"{len(systems)} systems to compare ({', '.join(systems) or 'none'}): give the answer "
            f"files of 2 to {MOST_SYSTEMS}, a system's name before its file where the paths do "
            "not tell, NAME=FILE"
        )
    rows: dict[tuple[str, str], dict[str, tuple[AnswerFile, dict[str, Any]]]] = {}
    for system, suite, file in named:
        for row in _rows(file):
            answered = rows.setdefault((suite, row["id"]), {})
            if system in answered:
                raise UserError(
                    f"{file}: {system} has answered {row['id']!r} before, in "
                    f"{answered[system][0]}: ids are to be unique"
                )
            answered[system] = file, row
    missing = {
        system: count
        for system in systems
        if (count := sum(system not in answered for answered in rows.values()))
    }
    items = tuple(
        _item(key, {system: answered[system] for system in systems})
        for key, answered in rows.items()
        if len(answered) == len(systems)
    )
    if not items:
        raise UserError(
            f"no question was answered by all of {', '.join(systems)}: their rows are to have the "
            "same ids, and where a system has several files the same file names"
        )
    sources: dict[str, tuple[str, ...]] = {}
    for system, _, file in named:
        sources[system] = (*sources.get(system, ()), str(file))
    return Comparison(systems, items, missing, sources)


def _named(files: Sequence[AnswerFile]) -> list[tuple[str, str, AnswerFile]]:
    """Each file with its system and its suite.

    Files of one name lie in folders named after systems (`answers/SYSTEM/SUITE.jsonl`); files of
    different names are named after systems themselves.
    """
    unnamed = [file.path for file in files if file.system is None]
    by_folder = len({path.stem for path in unnamed}) < len(unnamed)
    named = []
    for file in files:
        told = file.path.resolve().parent.name if by_folder else file.path.stem
        named.append((file.system or told, file.path.stem, file))
    if len({system for system, _, _ in named}) == len(named):
        return [(system, "", file) for system, _, file in named]
    return named


def _rows(file: AnswerFile) -> Iterator[dict[str, Any]]:
    try:
        lines = file.path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read the answers {file}: {error.strerror}") from None
    empty = True
    for number, line in enumerate(lines, 1):
        if line.strip():
            empty = False
            yield _row(line, f"{file}, line {number}")
    if empty:
        raise UserError(f"{file} has no answers in it")


def _row(line: bytes, where: str) -> dict[str, Any]:
    """A row whose fields are as they should be; its languages as BCP-47 tags."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: no JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
        raise UserError(f"{where}: expected an object with an id, turns and outputs")
    for field in ("turns", "outputs"):
        texts = row.get(field)
        if not (isinstance(texts, list) and texts and all(isinstance(it, str) for it in texts)):
            raise UserError(f"{where}: {field!r} is no list of texts")
    if len(row["turns"]) != len(row["outputs"]):
        raise UserError(
            f"{where}: {len(row['turns'])} turns and {len(row['outputs'])} outputs; each turn has "
            "one"
        )
    for field in ("source_lang", "target_lang"):
        code = row.get(field)
        if code is not None and not isinstance(code, str):
            raise UserError(f"{where}: {field!r} is no language tag")
        try:
            row[field] = languages.parse(code) if code else None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    row["id"] = str(row["id"])
    return row


def _item(key: tuple[str, str], answered: Mapping[str, tuple[AnswerFile, dict[str, Any]]]) -> Item:
    asked: dict[str, Any] = {}
    for field in ("turns", "source_lang", "target_lang"):
        told = [(file, row[field]) for file, row in answered.values() if row[field] is not None]
        asked[field] = told[0][1] if told else None
        for file, value in told:
            if value != asked[field]:
                raise UserError(
                    f"{told[0][0]} and {file} have different {field!r} for {key[1]!r}: they are "
                    "not answers to the same questions"
                )
    if len(asked["turns"]) > 1:
        task = Task.multi_turn
    elif asked["source_lang"] and asked["target_lang"]:
        task = Task.translation
    else:
        task = Task.instruction
    return Item(
        suite=key[0],
        id=key[1],
        task=task,
        turns=tuple(asked["turns"]),
        source_lang=asked["source_lang"],
        target_lang=asked["target_lang"],
        answers={system: tuple(row["outputs"]) for system, (_, row) in answered.items()},
    )
