"""Votes, and the file that they are appended to, each safe on the disk before its rater goes on.

A line is a vote, or the withdrawal of one. Of several lines of one rater for one item the last one
counts. A line that a crash cut short was never confirmed to anybody.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError


@dataclass(frozen=True)
class Vote:
    """One rater's ranking of the answers to one item."""

    comparison: str
    """The fingerprint of what was compared."""
    suite: str
    item: str
    task: str
    source_lang: str | None
    target_lang: str | None
    rater: str
    shown: tuple[str, ...]
    """The systems, from left to right as the rater saw them."""
    ranks: Mapping[str, int]
    """System → its rank; 1 is the best, and equal ranks are ties."""
    bad: bool
    """Whether none of the answers was any good."""
    seconds: float
    """From the answers' appearance to the vote."""
    at: str
    """UTC, ISO 8601."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What was judged."""
        return self.comparison, self.suite, self.item

    def line(self) -> dict[str, Any]:
        """As it lies in the file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def withdrawal(vote: Vote, at: str) -> dict[str, Any]:
    """The line that takes a vote back."""
    kept = ("comparison", "suite", "item", "rater")
    return {**{name: getattr(vote, name) for name in kept}, "withdrawn": True, "at": at}


def read(paths: Sequence[Path]) -> list[Vote]:
    """The votes that count, of several files together, one after the other.

    Raises:
        UserError: a file cannot be read, or a complete line of it is no vote.
    """
    lines: list[dict[str, Any]] = []
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the votes {path}: {error.strerror}") from None
        *complete, _cut_short = content.split(b"\n")
        places = (f"{path}, line {number}" for number in range(1, len(complete) + 1))
        lines += map(_parsed, complete, places)
    votes: dict[tuple[str, ...], Vote] = {}
    for line in lines:
        who_and_what = tuple(line[name] for name in ("comparison", "suite", "item", "rater"))
        votes.pop(who_and_what, None)
        if not line.get("withdrawn"):
            votes[who_and_what] = Vote(**line)
    return list(votes.values())


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        texts = ["comparison", "suite", "item", "rater", "at"]
        if not row.get("withdrawn"):
            vote = Vote(**row)
            row["shown"] = tuple(vote.shown)
            texts.append("task")
            ranks = vote.ranks.values()
            if len(ranks) < 2 or not all(type(rank) is int and rank > 0 for rank in ranks):
                raise ValueError("ranks are numbers from 1, of two systems or more")
        if not all(isinstance(row[name], str) for name in texts):
            raise ValueError(f"{', '.join(texts)} are texts")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: no vote as `bayling rate` writes it ({error})") from None
    assert isinstance(row, dict)
    return row


class Journal:
    """A file of votes that lines are appended to. Threads may share one.

    Raises:
        UserError: the file cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._claim()
            self._drop_what_was_cut_short()
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)  # the name of a new file, too
            os.close(folder)
        except OSError as error:
            raise UserError(f"cannot write votes to {path}: {error.strerror}") from None

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; it is on the disk when this returns.

        Raises:
            OSError: it is not, and no part of it is in the file.
        """
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            before = os.fstat(self._file).st_size
            try:
                if os.write(self._file, data) != len(data):
                    raise OSError("the disk is full")
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, before)
                raise

    def close(self) -> None:
        os.close(self._file)

    def _claim(self) -> None:
        """The kernel gives it back with the process. Some network file systems have no locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another `bayling rate` is writing votes to {self.path}: its page takes several "
                "raters at a time"
            ) from None
        except OSError:
            pass

    def _drop_what_was_cut_short(self) -> None:
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size, 0)
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
