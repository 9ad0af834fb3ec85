"""Tokenising and packing of a partition, and the tokenizer that is trained for a model without."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bayling.data import conversations, heldout, packing, tokenizer
from bayling.data.config import DataConfig
from bayling.data.making import CONVERSATIONS, part
from bayling.data.tables import read_conversations
from bayling.language_families import family_of
from bayling.model import ModelConfig
from bayling.model_folder import load_chat
from bayling.stage import write_json
from bayling.templates import TASKS, ChatFormat, Conversation, Encoded, Message, Template

TOO_LONG = "longer than data.sequence_length"


@dataclass(frozen=True)
class Tokens:
    """The work on one partition; it runs inside Ray's tasks."""

    config: DataConfig
    model: ModelConfig
    folder: Path

    @property
    def bin_width(self) -> int:
        """Tokens by which lengths are counted together."""
        return max(1, self.config.sequence_length // 64)

    def pack(self, number: int) -> dict[str, Any]:
        """Tokenise and pack a partition; returns sizes and what was dropped."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one task, one core
        path = self.folder / CONVERSATIONS / part(number)
        rows = read_conversations(path, requirements=False)
        shard = self.folder / "packed" / f"shard-{number:05d}"
        sizes, dropped, lengths = self._pack(list(rows), shard)
        return {"sizes": sizes, "dropped": dropped, "lengths": lengths}

    def pack_heldout(self) -> dict[str, int]:
        """Pack the held-out conversations, on which training measures its loss; returns sizes."""
        rows = heldout.as_conversations(self.folder)
        return self._pack(rows, self.folder / "heldout" / "packed" / "shard-00000")[0]

    def train_tokenizer(self, template: Template) -> None:
        """Train a tokenizer on the first conversations."""
        fixed = [*template.phrases(), *conversations.phrases(self.config.languages)]
        made = tokenizer.train(self._sample(), self.model.vocab_size, template, fixed)
        made.chat_template = template.chat_template()
        made.model_max_length = self.model.context_length
        made.save_pretrained(self.folder / "tokenizer")

    def _pack(
        self, rows: list[Conversation], target: Path
    ) -> tuple[dict[str, int], dict[str, int], Counter[int]]:
        """Returns sizes, what was dropped, and how many conversations are as long as a bin says."""
        chat = load_chat(self.folder / "tokenizer", self.model.template.value)
        names = group_names(self.config)
        dropped: Counter[str] = Counter()
        kept = []
        cut = 0
        encoded = chat.encode([row.messages for row in rows])
        for row, made in zip(rows, encoded, strict=True):
            tokens = made
            if not isinstance(tokens, str) and len(tokens.ids) > self.config.sequence_length:
                tokens = self._cut(chat, row.messages)
                cut += not isinstance(tokens, str)
            if isinstance(tokens, str):
                dropped[tokens] += 1
            else:
                group = names.index(f"{row.task}/{family_of(row.target_lang)}")
                kept.append(packing.Item(row.id, tokens, group))
        packed = packing.write_shard(kept, self.config.sequence_length, target)
        write_json(target.parent / packing.GROUPS, names)
        sizes = {
            "sequences": packed.sequences,
            "tokens": packed.tokens,
            "supervised_tokens": packed.supervised,
            "cut_conversations": cut,
        }
        width = self.bin_width
        lengths = Counter(len(item.encoded.ids) // width * width for item in kept)
        return sizes, dict(dropped), lengths

    def _cut(self, chat: ChatFormat, messages: tuple[Message, ...]) -> Encoded | str:
        """As much of a conversation as fits: its system text, and its first turns with their
        answers. `TOO_LONG` where not even one does."""
        ends = [end for end, one in enumerate(messages, 1) if one.role == "assistant"][:-1]
        for end in reversed(ends):
            [tokens] = chat.encode([messages[:end]])
            if not isinstance(tokens, str) and len(tokens.ids) <= self.config.sequence_length:
                return tokens
        return TOO_LONG

    def _sample(self) -> Iterator[str]:
        """Messages of the first conversations of partitions, never all in memory.

        CLDR's partitions are all alike. Those of sources are not, and each has its part.
        """
        paths = sorted((self.folder / CONVERSATIONS).glob("part-*.parquet"))
        left = self.config.tokenizer_sample
        each = -(-left // len(paths)) if self.config.sources else left
        for path in paths:
            for row in islice(read_conversations(path, requirements=False), min(each, left)):
                yield from (message.content for message in row.messages)
                left -= 1


def group_names(config: DataConfig) -> list[str]:
    """The groups by which losses are told apart: every task in every target's language family."""
    families = sorted({family_of(tag) for tag in config.languages})
    return [f"{task}/{family}" for task in TASKS for family in families]
