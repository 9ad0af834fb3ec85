"""Answers on disk: JSON lines, in pieces while they are made, one file when all are there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayling.evaluate.suite import Row, Suite


class Answers:
    """One system's answers to one suite, in `FOLDER/SUITE.jsonl`.

    Until all are there they lie in pieces, each in a file named by its place among the questions:
    an evaluation that was interrupted asks again only what had not come back, whatever the size of
    its pieces.
    """

    def __init__(self, folder: Path, suite: Suite) -> None:
        self.suite = suite
        self.path = folder / f"{suite.name}.jsonl"
        self._parts = folder / f"{suite.name}.parts"

    def missing(self, size: int) -> list[range]:
        """The places of the questions that have no answers yet, in pieces of at most `size`."""
        if self.path.exists():
            return []
        pieces, start = [], 0
        for part in [*self._kept(), range(len(self.suite.questions), len(self.suite.questions))]:
            pieces += [
                range(first, min(first + size, part.start))
                for first in range(start, part.start, size)
            ]
            start = max(start, part.stop)
        return pieces

    def questions(self, piece: range) -> list[Row]:
        return list(self.suite.questions[piece.start : piece.stop])

    def keep(self, piece: range, rows: Sequence[Row]) -> None:
        """Write a piece's answers; with the last one, the file of all."""
        write_lines(self._part(piece), rows)
        self.finish()

    def finish(self) -> None:
        """Put the pieces together, if all are there."""
        if self.path.exists() or self.missing(len(self.suite.questions)):
            return
        rows: dict[int, Row] = {}
        for piece in self._kept():
            rows |= zip(piece, read_lines(self._part(piece)), strict=True)
        write_lines(self.path, [rows[place] for place in range(len(self.suite.questions))])
        shutil.rmtree(self._parts, ignore_errors=True)

    def take_over(self, rows: Sequence[Row]) -> None:
        """Answers that were given elsewhere, to the same questions."""
        write_lines(self.path, rows)

    def read(self) -> list[Row]:
        """The questions with their `outputs`, in the questions' order."""
        return read_lines(self.path)

    def _part(self, piece: range) -> Path:
        return self._parts / f"{piece.start:08d}-{piece.stop:08d}.jsonl"

    def _kept(self) -> list[range]:
        names = sorted(path.stem for path in self._parts.glob("[0-9]*.jsonl"))
        return [range(*map(int, name.split("-"))) for name in names]


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    """Write JSON lines; complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(path)
