"""Conversations from what there is: CLDR's values, or clean sentence pairs and conversations."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bayling.data import conversations, tables
from bayling.data.cleaning.contamination import TestTexts
from bayling.data.config import DataConfig
from bayling.data.gathering import PAIRS, QUARANTINE, SIBLINGS, TALKS
from bayling.data.instructions import building, interactive
from bayling.data.instructions.building import name_of_conversation, turned
from bayling.data.instructions.forms import PromptShares
from bayling.data.instructions.siblings import Siblings
from bayling.data.mixture import Stratum, choose, draw, times
from bayling.data.tables import Pair, Quarantined
from bayling.requirements import all_satisfied
from bayling.templates import Conversation

CONVERSATIONS = "conversations"
HELD_OUT = "held out"
_EQUAL = "an answer equals a held-out text"


def part(number: int) -> str:
    """The file of a partition of conversations."""
    return f"part-{number:05d}.parquet"


@dataclass(frozen=True)
class Making:
    """The work on one partition of conversations; it runs inside Ray's tasks."""

    config: DataConfig
    seed: int
    folder: Path

    def from_cldr(self, number: int, heldout_texts: frozenset[str]) -> dict[str, Any]:
        """Write a partition of conversations about CLDR's values; returns counts."""
        first = number * self.config.partition_size
        last = min(first + self.config.partition_size, self.config.from_cldr)
        counts: Counter[str] = Counter()
        dropped: Counter[str] = Counter()

        def rows() -> Iterator[Conversation]:
            for index in range(first, last):
                try:
                    made = conversations.build(index, self.config, self.seed)
                except conversations.Dropped as error:
                    dropped[str(error)] += 1
                    continue
                if any(message.content in heldout_texts for message in made.messages):
                    dropped[_EQUAL] += 1
                    continue
                yield made

        self._write(number, rows(), counts)
        return {"counts": dict(counts), "dropped": dict(dropped)}

    def from_rows(
        self, number: int, name: str, uses: Mapping[Stratum, float], tests: Path
    ) -> dict[str, Any]:
        """Write a partition of conversations about the rows of a partition of clean tables.

        Args:
            uses: how often a row of each stratum is used.
            tests: hashes of the held-out texts.
        """
        counts: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        victims: list[Quarantined] = []
        pairs = list(tables.read_pairs(self.folder / PAIRS / name))
        tested = self._tested(pairs, tests)
        elsewhere = self._elsewhere(name, tests)
        siblings = Siblings([])
        if self.config.mixture.tasks.interactive:
            usable = (pair for row, pair in enumerate(pairs) if row not in tested)
            siblings = Siblings([*usable, *elsewhere])

        def rows() -> Iterator[Conversation]:
            for row, pair in enumerate(pairs):
                if row in tested:
                    dropped[HELD_OUT] += 1
                    victims.append(_held_out(pair))
                    continue
                stratum = Stratum.of(pair.origin, pair.source_lang, pair.target_lang)
                following = row + 1 if row + 1 < len(pairs) and row + 1 not in tested else row
                more = pairs[following] if following != row else None
                pair_id = pair.id
                for use in range(times(uses.get(stratum, 0.0), self.seed, pair_id)):
                    try:
                        yield self._conversation(pair, pair_id, more, siblings, use)
                    except building.Dropped as error:
                        dropped[str(error)] += 1
            for talk in tables.read_conversations(self.folder / TALKS / name):
                kept = replace(talk, id=name_of_conversation(talk.messages))
                stratum = Stratum.of(talk.origin, talk.source_lang, talk.target_lang)
                for _ in range(times(uses.get(stratum, 0.0), self.seed, kept.id)):
                    yield kept

        self._write(number, rows(), counts)
        tables.write_quarantine(self.folder / QUARANTINE / "heldout" / name, victims)
        return {"counts": dict(counts), "dropped": dict(dropped)}

    def _conversation(
        self, pair: Pair, pair_id: str, more: Pair | None, siblings: Siblings, use: int
    ) -> Conversation:
        """What comes of a pair when it is used for the nth time, from 0.

        Args:
            pair_id: the pair's; to make it takes a hash of its texts.
            more: the pair after it.
            siblings: the pairs that may be used, by what they translate.
        """
        name = f"{pair_id} {use}"
        rng = random.Random(int(draw(self.seed, "words", name) * 2**64))
        config = self.config
        shares = PromptShares.of(
            config.chinese_prompts, config.source_prompts, config.target_prompts
        )
        # Each direction as often as the other, and the other one the next time.
        other_way = (draw(self.seed, "direction", pair_id) < 0.5) is (use % 2 == 0)
        task = choose(vars(config.mixture.tasks), draw(self.seed, "task", name))
        if more is not None and (more.languages != pair.languages or _share_a_text(more, pair)):
            more = None
        if other_way:
            pair, more = turned(pair), turned(more) if more is not None else None
        if task == "interactive":
            others = siblings.of(pair)
            return interactive.build(pair, more, rng, shares, config.max_turns, others)
        return building.build(pair, task, rng, shares)

    def _elsewhere(self, name: str, tests: Path) -> list[Pair]:
        """Pairs of other partitions that say in another way what is said in this one."""
        path = self.folder / SIBLINGS / name
        pairs = list(tables.read_pairs(path)) if path.exists() else []
        tested = self._tested(pairs, tests)
        return [pair for row, pair in enumerate(pairs) if row not in tested]

    def _tested(self, pairs: list[Pair], tests: Path) -> frozenset[int]:
        """Rows that share words with what is held out."""
        known = TestTexts.read(tests, self.config.cleaning.shared_ngram)
        sides = [pair.source for pair in pairs], [pair.target for pair in pairs]
        return frozenset(row for texts in sides for row in known.shared(texts))

    def _write(self, number: int, rows: Iterable[Conversation], counts: Counter[str]) -> None:
        def counted() -> Iterator[Conversation]:
            for made in rows:
                counts.update(_groups(made))
                yield made

        tables.write_conversations(self.folder / CONVERSATIONS / part(number), counted())


def _share_a_text(one: Pair, other: Pair) -> bool:
    """Whether one is another translation of the same sentence, which nobody would add to it."""
    return one.source == other.source or one.target == other.target


def _held_out(pair: Pair) -> Quarantined:
    sides = pair.source_lang, pair.target_lang, pair.source, pair.target
    return Quarantined(HELD_OUT, "shares words with the held-out set", pair.file, pair.line, *sides)


def _groups(row: Conversation) -> list[str]:
    return [
        "conversations",
        "turns:" + str(sum(message.role == "user" for message in row.messages)),
        f"task:{row.task}",
        f"direction:{row.source_lang}>{row.target_lang}",
        f"answers:{row.target_lang}/{row.task}",
        f"language:{row.source_lang}",
        f"language:{row.target_lang}",
        f"origin:{row.origin}",
        *_checks(row),
    ]


def _checks(row: Conversation) -> list[str]:
    """Turns with requirements, and those of them that somebody would meet who only copies."""
    found = []
    previous = None
    for user, assistant in zip(row.messages, row.messages[1:], strict=False):
        if user.role == "user" and user.requirements:
            found.append("checks:turns")
            if all_satisfied(user.requirements, user.content, previous):
                found.append("checks:met by a copy of the prompt")
            if previous is not None and all_satisfied(user.requirements, previous, previous):
                found.append("checks:met by the answer before")
        if assistant.role == "assistant":
            previous = assistant.content
    return found
