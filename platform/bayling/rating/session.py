"""A comparison as raters see it: blind, each at their own place, every vote kept at once.

Nothing that leaves a session says which system an answer is from: answers are known by their place,
and which system stands where is drawn for each rater and item.
"""

from __future__ import annotations

import hashlib
import random
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bayling import languages
from bayling.prompts import sentence_of
from bayling.rating import votes
from bayling.rating.items import Comparison, Item, Task
from bayling.rating.votes import Journal, Vote

LONGEST_NAME = 60


class Refused(Exception):
    """What a rater sent makes no sense. The message says why."""


@dataclass(frozen=True)
class Group:
    """Items that a rater may take or leave together: a task, or a direction of translation."""

    task: Task
    source_lang: str | None
    target_lang: str | None

    @staticmethod
    def of(item: Item) -> Group:
        if item.task is Task.translation:
            return Group(item.task, item.source_lang, item.target_lang)
        return Group(item.task, None, None)

    def by_name(self) -> list[str]:
        """What groups are sorted by."""
        tags = (self.source_lang, self.target_lang)
        return [self.task.value, *(languages.name_of(tag) if tag else "" for tag in tags)]


class Session:
    """What is judged by whom. Threads may share one.

    Args:
        items: in the order in which raters see them.
        seed: decides with the rater's name and the item which answer stands where.

    Raises:
        UserError: the file of votes cannot be read or written.
    """

    def __init__(
        self, comparison: Comparison, items: Sequence[Item], path: Path, seed: int
    ) -> None:
        self.comparison = comparison
        self.items = tuple(items)
        self._seed = seed
        self._lock = threading.Lock()
        self._journal = Journal(path)
        self._by_rater: dict[str, dict[tuple[str, str], Vote]] = {}
        for vote in votes.read([path]):
            if vote.comparison == comparison.fingerprint:
                self._by_rater.setdefault(vote.rater, {})[vote.suite, vote.item] = vote
        of_item = [Group.of(item) for item in self.items]
        self._groups = sorted(set(of_item), key=Group.by_name)
        place = {group: number for number, group in enumerate(self._groups)}
        self._group_of = [place[group] for group in of_item]

    @property
    def path(self) -> Path:
        return self._journal.path

    def votes(self) -> list[Vote]:
        """Those that count at the moment."""
        with self._lock:
            return [vote for own in self._by_rater.values() for vote in own.values()]

    def close(self) -> None:
        self._journal.close()

    # --- what a page is told ------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """How many answers an item has, and the groups of items with their languages and size."""
        sizes = Counter(self._group_of)
        return {
            "answers": len(self.comparison.systems),
            "groups": [
                {
                    "task": group.task.value,
                    "source_lang": group.source_lang,
                    "target_lang": group.target_lang,
                    "items": sizes[number],
                }
                for number, group in enumerate(self._groups)
            ],
        }

    def progress(self, rater: str) -> list[dict[str, Any]]:
        """Every item's group (its number in the overview), and whether the rater has judged it."""
        with self._lock:
            done = set(self._by_rater.get(rater, {}))
        return [
            {"group": group, "done": item.key in done}
            for item, group in zip(self.items, self._group_of, strict=True)
        ]

    def item(self, number: int, rater: str) -> dict[str, Any]:
        """An item's question and answers in this rater's order, and their vote if there is one.

        Raises:
            Refused: there is no such item.
        """
        item = self._at(number)
        shown = self.order(item, rater)
        with self._lock:
            vote = self._by_rater.get(rater, {}).get(item.key)
        turns = item.turns
        if item.task is Task.translation:
            turns = (sentence_of(turns[0]),)
        return {
            "task": item.task.value,
            "source_lang": item.source_lang,
            "target_lang": item.target_lang,
            "turns": turns,
            "answers": [item.answers[system] for system in shown],
            "vote": vote and {"ranks": [vote.ranks[system] for system in shown], "bad": vote.bad},
        }

    def order(self, item: Item, rater: str) -> list[str]:
        """The systems from left to right."""
        drawn = "\0".join([str(self._seed), self.comparison.fingerprint, rater, *item.key])
        systems = sorted(self.comparison.systems)
        random.Random(hashlib.sha256(drawn.encode()).digest()).shuffle(systems)
        return systems

    # --- what a page sends --------------------------------------------------------------------

    def vote(self, number: int, rater: str, ranks: Any, bad: Any, seconds: Any) -> None:
        """Keep a ranking of the answers to an item; it takes the place of an earlier one.

        Args:
            ranks: one for each answer, from left to right; 1 is the best.

        Raises:
            Refused: the ranks are none.
            OSError: the vote could not be kept.
        """
        item = self._at(number)
        shown = self.order(item, rater)
        if not (
            isinstance(ranks, list)
            and len(ranks) == len(shown)
            and all(type(rank) is int and 1 <= rank <= len(shown) for rank in ranks)
        ):
            raise Refused(f"ranks are {len(shown)} whole numbers from 1 to {len(shown)}")
        if not isinstance(bad, bool) or (bad and len(set(ranks)) > 1):
            raise Refused("answers that are all bad have the same rank")
        if type(seconds) not in (int, float) or not 0 <= seconds < 1e9:
            raise Refused("seconds are a number")
        # From 1 up without gaps, so that equal rankings are equal.
        levels = sorted(set(ranks))
        vote = Vote(
            comparison=self.comparison.fingerprint,
            suite=item.suite,
            item=item.id,
            task=item.task.value,
            source_lang=item.source_lang,
            target_lang=item.target_lang,
            rater=rater,
            shown=tuple(shown),
            ranks={
                system: levels.index(rank) + 1 for system, rank in zip(shown, ranks, strict=True)
            },
            bad=bad,
            seconds=round(seconds, 1),
            at=_now(),
        )
        with self._lock:
            self._journal.append(vote.line())
            self._by_rater.setdefault(rater, {})[item.key] = vote

    def withdraw(self, number: int, rater: str) -> None:
        """Take a vote back; nothing where there is none.

        Raises:
            Refused: there is no such item.
            OSError: the withdrawal could not be kept.
        """
        item = self._at(number)
        with self._lock:
            vote = self._by_rater.get(rater, {}).get(item.key)
            if vote is not None:
                self._journal.append(votes.withdrawal(vote, _now()))
                del self._by_rater[rater][item.key]

    def _at(self, number: int) -> Item:
        if not 0 <= number < len(self.items):
            raise Refused(f"there are {len(self.items)} items")
        return self.items[number]


def rater_name(text: str) -> str:
    """A name as it stands in votes: blanks and Unicode forms apart, one person has one.

    Raises:
        Refused: there is nothing of a name in it, or too much.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Refused(f"a rater's name has 1 to {LONGEST_NAME} characters")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
