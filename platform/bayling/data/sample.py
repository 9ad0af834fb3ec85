"""Conversations as the data stage would build them, from the beginning of what it would read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from bayling.data import conversations, general
from bayling.data.cleaning.text import normalise
from bayling.data.config import DataConfig
from bayling.data.instructions import building
from bayling.data.instructions.forms import PromptShares
from bayling.data.sources import Pair, Source, Talk, open_source
from bayling.data.tables import Pair as Kept
from bayling.templates import Message


def sample(config: DataConfig, seed: int, number: int) -> list[Sequence[Message]]:
    """The messages of about `number` conversations: fewer where some cannot be built.

    Sources have equal parts; nothing is cleaned but what makes a row useless by itself.

    Raises:
        UserError: a source cannot be read.
    """
    from_cldr = round(number * config.from_cldr / config.conversations)
    made: list[Sequence[Message]] = []
    for index in range(from_cldr):
        try:
            made.append(conversations.build(index, config, seed).messages)
        except conversations.Dropped:
            continue
    for one in config.sources:
        each = -(-(number - from_cldr) // len(config.sources))
        made += _of(open_source(one), config, seed, each)
    return made


def _of(source: Source, config: DataConfig, seed: int, number: int) -> list[Sequence[Message]]:
    shares = PromptShares.of(config.chinese_prompts, config.source_prompts, config.target_prompts)
    made: list[Sequence[Message]] = []
    rows = (row for file in source.files for row in source.rows(file))
    for index, row in enumerate(islice(rows, number)):
        if isinstance(row, Talk):
            messages = general.clean(
                row.messages, row.language, config.languages, config.cleaning.max_turn_characters
            )[0]
            if not isinstance(messages, str):
                made.append(messages)
        elif isinstance(row, Pair) and row.source and row.target:
            sides = normalise(row.source), normalise(row.target)
            pair = Kept(row.source_lang, row.target_lang, *sides, "", row.place.file, index)
            try:
                rng = random.Random(f"{seed} {index}")
                made.append(building.build(pair, "translate", rng, shares).messages)
            except building.Dropped:
                continue
    return made
