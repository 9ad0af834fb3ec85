"""Pairs of answers before a judge, in both orders, each judgement on disk as soon as it is there.

A judgement is found again by what was asked and of which model, so a run that was killed asks for
none twice, and one with other answers asks for its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate import json_lines
from bayling.evaluate.chat import prompts
from bayling.evaluate.chat.config import JudgeConfig
from bayling.evaluate.chat.judge import Judge, Unanswered
from bayling.evaluate.chat.prompts import Messages
from bayling.evaluate.pairs import Scores
from bayling.stage import Report, fingerprint

JUDGEMENTS = "judgements.jsonl"
_DOWN_AFTER = 24
"""Questions in a row without an answer, after which the others are not asked: each would take
minutes to be given up."""
_TELLING = "the judge compares answers"


@dataclass(frozen=True)
class Match:
    """Two systems' answers to one question."""

    question: str
    """Its id."""
    turns: Sequence[str]
    own: Sequence[str]
    """Those of the system in question, turn by turn."""
    other: Sequence[str]
    reference: Sequence[str] | None = None


@dataclass(frozen=True)
class Judgement:
    """What a judge said of a match in one order; a line of the file of judgements."""

    key: str
    question: str
    own_first: bool
    scores: Scores | None
    """None where it gave none that can be read, asked twice."""
    review: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Judged:
    """A match in both orders: that with the own answers first, then the other one. A reason
    stands for a judgement that there is not."""

    match: Match
    orders: tuple[Judgement | str, Judgement | str]

    @property
    def judgements(self) -> list[Judgement]:
        """Those that there are, with scores or without."""
        return [order for order in self.orders if isinstance(order, Judgement)]

    @property
    def scores(self) -> tuple[Scores, Scores] | None:
        """Those of both orders; None where one of them has none."""
        first, second = (
            order.scores if isinstance(order, Judgement) else None for order in self.orders
        )
        return None if first is None or second is None else (first, second)

    @property
    def unjudged(self) -> str:
        """Why there are no scores; empty where there are."""
        for order in self.orders:
            if isinstance(order, str):
                return order
            if order.scores is None:
                return "the judge's answer has no scores"
        return ""


def judge(
    matches: Sequence[Match], config: JudgeConfig, path: Path, report: Report
) -> list[Judged]:
    """Have a judge compare answers.

    Args:
        path: the file of judgements; what it has already is not asked for again.

    Returns:
        What became of each match, in their order.

    Raises:
        UserError: the service refuses every question, or the file is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(_Log(path)) as log:
        return asyncio.run(_Judging(config, log, report, 2 * len(matches)).all(matches))


class _Judging:
    """One round of questions to a judge."""

    def __init__(self, config: JudgeConfig, log: _Log, report: Report, total: int) -> None:
        self._config, self._log = config, log
        self._report, self._done, self._total = report, 0, total
        self._places = asyncio.Semaphore(config.concurrency)
        self._unanswered = 0  # in a row

    async def all(self, matches: Sequence[Match]) -> list[Judged]:
        self._report(_TELLING, 0, self._total)
        async with Judge(self._config) as judge:
            orders = await asyncio.gather(
                *(
                    self._one(judge, match, own_first)
                    for match in matches
                    for own_first in (True, False)
                )
            )
        return [
            Judged(match, (orders[2 * index], orders[2 * index + 1]))
            for index, match in enumerate(matches)
        ]

    async def _one(self, judge: Judge, match: Match, own_first: bool) -> Judgement | str:
        first, second = match.own, match.other
        if not own_first:
            first, second = second, first
        messages = prompts.ask(match.turns, first, second, match.reference)
        key = fingerprint(self._config.model, messages, own_first)
        found: Judgement | str | None = self._log.known.get(key)
        if found is None:
            async with self._places:
                found = await self._asked(judge, messages, key, match.question, own_first)
        self._done += 1
        self._report(_TELLING, self._done, self._total)
        return found

    async def _asked(
        self, judge: Judge, messages: Messages, key: str, question: str, own_first: bool
    ) -> Judgement | str:
        if self._unanswered >= _DOWN_AFTER:
            return f"not asked, as {_DOWN_AFTER} questions in a row had no answer"
        try:
            replies = [await judge.ask(messages)]
            if prompts.scores(replies[0].text) is None:
                replies.append(await judge.ask(prompts.ask_again(messages, replies[0].text)))
        except Unanswered as error:
            self._unanswered += 1
            return str(error)
        self._unanswered = 0
        scores = prompts.scores(replies[-1].text)
        if scores is not None and not own_first:
            scores = scores[1], scores[0]
        judgement = Judgement(
            key,
            question,
            own_first,
            scores,
            "\n\n".join(reply.text for reply in replies),
            len(replies),
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
        )
        self._log.add(judgement)
        return judgement


class _Log:
    """The file of judgements: a line each, written when it is there."""

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Judgement] = {}
        if path.exists():
            _mend(path)
            for line, row in json_lines.lines(path):
                judgement = _read(row)
                if judgement is None:
                    raise UserError(
                        f"{path}, line {line} is no judgement: take the line out, and that pair "
                        "is judged again"
                    )
                self.known[judgement.key] = judgement
        self._file: TextIOWrapper = path.open("a", encoding="utf-8")

    def add(self, judgement: Judgement) -> None:
        self._file.write(json.dumps(asdict(judgement), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _read(row: dict[str, Any] | str) -> Judgement | None:
    """A line of the file; None where it is something else."""
    try:
        judgement = Judgement(**row)  # type: ignore[arg-type]  # a text is a TypeError too
        if judgement.scores is None:
            return judgement
        own, other = judgement.scores
        return replace(judgement, scores=(float(own), float(other)))
    except (TypeError, ValueError):
        return None


def _mend(path: Path) -> None:
    """Cut off a last line that was being written when its process ended."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
