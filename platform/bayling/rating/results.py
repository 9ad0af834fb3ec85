"""What votes come to: standings and agreement, over all tasks and for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bayling.rating.agreement import Agreement, agreement
from bayling.rating.items import Task
from bayling.rating.ranking import Standing, standings
from bayling.rating.votes import Vote
from bayling.stage import jsonable

ALL = "all"


@dataclass(frozen=True)
class Group:
    """The votes of one task, or of all."""

    votes: int
    items: int
    raters: int
    all_bad: int
    """Votes that none of the answers is any good."""
    standings: list[Standing]
    agreement: Agreement | None
    """None where nobody has judged what somebody else has."""

    def as_dict(self) -> dict[str, Any]:
        """As it is written to JSON: `systems` maps names to figures."""
        return {
            "votes": self.votes,
            "items": self.items,
            "raters": self.raters,
            "all_bad": self.all_bad,
            "systems": {one.system: one.figures() for one in self.standings},
            "agreement": jsonable(self.agreement),
        }

    def metrics(self) -> dict[str, float]:
        """As single numbers with a path for a name, for a tracking store."""
        numbers: dict[str, float] = {
            "votes": self.votes,
            "items": self.items,
            "raters": self.raters,
            "all_bad": self.all_bad,
        }
        for one in self.standings:
            numbers |= {f"{one.system}/{name}": value for name, value in one.figures().items()}
        if self.agreement is not None:
            numbers |= {
                f"agreement/{name}": value
                for name, value in (
                    (self.agreement.measure, self.agreement.value),
                    ("low", self.agreement.low),
                    ("high", self.agreement.high),
                    ("same", self.agreement.same),
                    ("items", self.agreement.items),
                )
                if value is not None
            }
        return numbers


def results(votes: Sequence[Vote]) -> dict[str, Group]:
    """Groups by name: `all`, and each task that has votes where there are several."""
    tasks = {task.value: [it for it in votes if it.task == task.value] for task in Task}
    judged = {name: given for name, given in tasks.items() if given}
    parts = judged if len(judged) > 1 else {}
    return {name: _group(given) for name, given in {ALL: votes, **parts}.items()}


def _group(votes: Sequence[Vote]) -> Group:
    return Group(
        votes=len(votes),
        items=len({vote.key for vote in votes}),
        raters=len({vote.rater for vote in votes}),
        all_bad=sum(vote.bad for vote in votes),
        standings=standings(votes),
        agreement=agreement(votes),
    )
