"""Reviews that judges wrote of pairs of answers, as they are published.

Three forms are told from their keys: BayLing's (`system1`, `system2`, `score`, `result`), that of
FastChat's vicuna-80 (`answer1_id`, `answer2_id`, `score`), and that of its MT-bench (`model_1`,
`model_2`, `g1_winner`, `g2_winner`: both orders, no scores).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate import json_lines
from bayling.evaluate.pairs import Outcome, Pair, by_score, in_both_orders
from bayling.stage import fingerprint

_RESULTS = {"WIN": Outcome.win, "TIE": Outcome.tie, "LOSS": Outcome.loss}
_HIGHEST = 10.0


class _Nonsense(Exception):
    """Why a row is no review."""


@dataclass(frozen=True)
class Review:
    """A judged pair of answers."""

    systems: tuple[str, str]
    """That in question, and the one that it is compared with."""
    path: Path
    line: int
    pair: Pair


@dataclass(frozen=True)
class Unjudged:
    """A row that says nothing of who is better."""

    path: Path
    line: int
    reason: str
    systems: tuple[str, str] | None
    """None where not even they can be told."""

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass
class Reviews:
    """What files of reviews hold."""

    reviews: list[Review] = field(default_factory=list)
    unjudged: list[Unjudged] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Reviews:
    """The reviews of some files, and the rows that are none.

    Raises:
        UserError: a file cannot be read or is empty; a pair is reviewed twice for one question.
    """
    found = Reviews()
    seen: dict[str, str] = {}
    for path in paths:
        empty = True
        for line, row in json_lines.lines(path):
            empty = False
            systems = None
            try:
                if isinstance(row, str):
                    raise _Nonsense(row)
                systems = _systems(row, path)
                identity = _identity(row, systems, path)
                place = f"{path}, line {line}"
                if identity in seen:
                    raise UserError(
                        f"{place}: question {row['question_id']} was reviewed in {seen[identity]} "
                        "already: take one of the two out"
                    )
                seen[identity] = place
                pair = _of_winners(row) if "g1_winner" in row else _of_scores(row)
                found.reviews.append(Review(systems, path, line, pair))
            except _Nonsense as error:
                found.unjudged.append(Unjudged(path, line, str(error), systems))
        if empty:
            raise UserError(f"{path} is empty: there is nothing to read")
    return found


def _systems(row: dict[str, Any], path: Path) -> tuple[str, str]:
    """Whose answers a row is about."""
    if "question_id" not in row:
        raise _Nonsense("no question_id")
    if "g1_winner" in row and "g2_winner" in row:
        names = [row.get("model_1"), row.get("model_2")]
    elif "system1" in row and "system2" in row:
        both = [row["system1"], row["system2"]]
        names = [one.get("name") if isinstance(one, dict) else None for one in both]
    elif "score" in row:
        # These rows know their answers by ids; which systems' they are is in the file's name.
        names = [f"{path.stem}: answer 1", "answer 2"]
    else:
        raise _Nonsense("no review: it has neither score nor g1_winner and g2_winner")
    first, second = names
    if not isinstance(first, str) or not isinstance(second, str):
        raise _Nonsense("it does not name two systems")
    return first, second


def _identity(row: dict[str, Any], systems: tuple[str, str], path: Path) -> str:
    """Equal for two reviews of one thing. Question 1 of one file of questions is another one than
    that of another file, so where a row does not repeat its question the file counts."""
    question = row.get("question", str(path.resolve()))
    return fingerprint(systems, str(row["question_id"]), question, row.get("turn"))


def _of_scores(row: dict[str, Any]) -> Pair:
    """From BayLing's rows, and FastChat's of vicuna-80."""
    score = row.get("score")
    if not isinstance(score, list) or len(score) != 2 or not all(map(_is_number, score)):
        raise _Nonsense(f"score is {_short(score)}, not two numbers")
    if score == [-1, -1]:
        raise _Nonsense("the judge gave no scores (-1, -1)")
    if not all(0 <= value <= _HIGHEST for value in score):
        raise _Nonsense(f"score is {_short(score)}, not between 0 and {_HIGHEST:g}")
    scores = float(score[0]), float(score[1])
    outcome = by_score(scores)
    if "result" in row:
        said = _RESULTS.get(str(row["result"]).upper())
        if said is not outcome:
            raise _Nonsense(f"result is {_short(row['result'])}, but score is {_short(score)}")
    return Pair(outcome, scores, groups=_groups(row))


def _of_winners(row: dict[str, Any]) -> Pair:
    """From FastChat's rows of MT-bench."""
    winners = {"model_1": Outcome.win, "model_2": Outcome.loss, "tie": Outcome.tie}
    outcomes = []
    for key in ("g1_winner", "g2_winner"):
        if row[key] not in winners:
            raise _Nonsense(f"{key} is {_short(row[key])}")
        outcomes.append(winners[row[key]])
    first, second = outcomes
    return Pair(in_both_orders(first, second), None, first is second, _groups(row))


def _groups(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    groups = []
    if isinstance(row.get("category"), str):
        groups.append(("category", row["category"]))
    if "turn" in row:
        groups.append(("turn", f"turn {row['turn']}"))
    return tuple(groups)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
