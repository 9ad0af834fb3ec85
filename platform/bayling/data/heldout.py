"""The held-out part: sentences and conversations about values that training never sees.

It is small by configuration (values × directions), made by the driver, and written as JSON
lines that a person can read.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bayling.data import cldr, conversations
from bayling.data.config import DataConfig, trained_directions, zero_shot_directions
from bayling.data.instructions import interactive
from bayling.data.instructions.building import Dropped, turned
from bayling.data.instructions.forms import PromptShares
from bayling.data.instructions.siblings import Siblings
from bayling.data.tables import Pair
from bayling.errors import UserError
from bayling.prompts import translate_prompt
from bayling.stage import fingerprint, jsonable
from bayling.templates import Conversation, Message

TRANSLATE_FILE = "heldout/translate.jsonl"
INTERACTIVE_FILE = "heldout/interactive.jsonl"
_TRIES = 60


@dataclass
class HeldOut:
    """What the evaluate stage asks, and every text that training must not contain."""

    translate: list[dict[str, Any]] = field(default_factory=list)
    interactive: list[Conversation] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """Names the test set: scores are comparable where this is equal."""
        return fingerprint(self.translate, self.interactive)


def build(config: DataConfig, seed: int) -> HeldOut:
    """Held-out translations from CLDR for every direction, trained and zero-shot, and
    conversations; none where nothing is trained on that is from CLDR.

    Raises:
        UserError: a direction has no sentence at all, because CLDR lacks a language's texts.
    """
    heldout = HeldOut()
    if not config.from_cldr:
        return heldout
    for directions, zero_shot in (
        (trained_directions(config.languages), False),
        (zero_shot_directions(config.languages), True),
    ):
        for source, target in directions:
            heldout.translate += _direction(config, seed, source, target, zero_shot, heldout)
    index = 0
    while (
        len(heldout.interactive) < config.heldout_interactive
        and index < _TRIES * config.heldout_interactive
    ):
        try:
            made = conversations.build(index, config, seed, part="heldout", interactive=True)
            heldout.interactive.append(made)
            heldout.texts.update(
                message.content for message in made.messages if message.role == "assistant"
            )
        except conversations.Dropped as error:
            heldout.dropped[str(error)] += 1
        index += 1
    return heldout


def _direction(
    config: DataConfig, seed: int, source: str, target: str, zero_shot: bool, heldout: HeldOut
) -> list[dict[str, Any]]:
    rng = conversations.row_rng(seed, f"heldout {source} {target}", 0)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for attempt in range(_TRIES * config.heldout_per_direction):
        if len(rows) == config.heldout_per_direction:
            break
        kind = cldr.KINDS[len(rows) % len(cldr.KINDS)]
        if attempt >= _TRIES * config.heldout_per_direction // 2:
            kind = rng.choice(cldr.KINDS)  # the language may lack this one altogether
        value = conversations.draw_value(rng, config, seed, heldout=True, kind=kind)
        if value.key in seen:
            continue
        form = cldr.FORMS[kind][0]
        try:
            pair = {tag: cldr.write(value, form, tag).text for tag in (source, target)}
        except cldr.NotInCldr as error:
            heldout.dropped[str(error)] += 1
            continue
        seen.add(value.key)
        # The same value in every other language tells an answer in the wrong language.
        others = dict(pair)
        for tag in config.languages:
            try:
                others[tag] = cldr.write(value, form, tag).text
            except cldr.NotInCldr:
                continue
        heldout.texts.update(others.values())
        rows.append(
            {
                "id": fingerprint(source, target, value),
                "source_lang": source,
                "target_lang": target,
                "source": pair[source],
                "target": pair[target],
                "prompt": translate_prompt(pair[source], target, "en"),
                "in_other_languages": {tag: text for tag, text in others.items() if tag != target},
                "kind": kind,
                "zero_shot": zero_shot,
                "origin": cldr.ORIGIN,
            }
        )
    if not rows:
        raise UserError(
            f"CLDR has too few texts to test {source} → {target}: "
            "take one of them out of data.languages"
        )
    return rows


def both_ways(pair: Pair) -> list[dict[str, Any]]:
    """The rows that ask for a pair's translation, in its direction and in the other."""
    rows = []
    for one in (pair, turned(pair)):
        rows.append(
            {
                "id": fingerprint(one.source_lang, one.target_lang, one.source, one.target),
                "source_lang": one.source_lang,
                "target_lang": one.target_lang,
                "source": one.source,
                "target": one.target,
                "prompt": translate_prompt(one.source, one.target_lang, "en"),
                # Of whole sentences a detector tells the language better than a comparison.
                "in_other_languages": {},
                "kind": "text",
                "zero_shot": False,
                "origin": one.origin,
            }
        )
    return rows


def refined(pairs: Sequence[Pair], config: DataConfig, seed: int) -> list[Conversation]:
    """Conversations about held-out pairs, at most `heldout_interactive`, in turns of languages."""
    by_languages: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_languages[pair.languages].append(pair)
    shares = PromptShares.of(config.chinese_prompts, 0.0, 0.0)
    siblings = Siblings(pairs)
    made: list[Conversation] = []
    for row in zip_longest(*by_languages.values()):
        for pair in row:
            if pair is None or len(made) >= config.heldout_interactive:
                continue
            rng = conversations.row_rng(seed, f"heldout {pair.id}", 0)
            one = turned(pair) if rng.random() < 0.5 else pair
            try:
                made.append(
                    interactive.build(one, None, rng, shares, config.max_turns, siblings.of(one))
                )
            except Dropped:
                continue
    return made


def as_conversations(folder: Path) -> list[Conversation]:
    """What was written to `folder`, with the right answers: trained directions only, as the
    loss on directions that training leaves out would hide how training goes."""
    rows = []
    for line in (folder / TRANSLATE_FILE).read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["zero_shot"]:
            continue
        turns: tuple[Message, ...] = (
            Message("user", row["prompt"]),
            Message("assistant", row["target"]),
        )
        source, target = row["source_lang"], row["target_lang"]
        rows.append(Conversation(row["id"], turns, "translate", source, target, row["origin"]))
    for line in (folder / INTERACTIVE_FILE).read_text("utf-8").splitlines():
        row = json.loads(line)
        turns = tuple(Message(item["role"], item["content"]) for item in row.pop("messages"))
        rows.append(Conversation(messages=turns, **row))
    return rows


def write(heldout: HeldOut, folder: Path) -> None:
    (folder / "heldout").mkdir(parents=True, exist_ok=True)
    _write_lines(folder / TRANSLATE_FILE, heldout.translate)
    _write_lines(folder / INTERACTIVE_FILE, heldout.interactive)


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(jsonable(row), ensure_ascii=False) + "\n")
