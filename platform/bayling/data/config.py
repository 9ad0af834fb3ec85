"""The `data` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bayling import languages
from bayling.data.sources.config import source_configs
from bayling.errors import UserError

PIVOTS = ("en", "zh")
"""As in BayLing 2, every training pair has one of these on one side."""


@dataclass
class DataConfig:
    """Which languages, how many conversations, and what is kept for testing."""

    name: str = "cldr"
    languages: list[str] = field(default_factory=lambda: ["en", "zh", "de"])
    """BCP-47 tags; English or Chinese must be among them."""
    conversations: int = 20000
    interactive_share: float = 0.3
    """The part of the conversations that goes on after the first translation."""
    max_turns: int = 4
    """The most user turns of one conversation."""
    chinese_prompts: float = 0.25
    """The part of the conversations whose instructions are Chinese; the rest are English."""
    heldout_share: float = 0.1
    """The part of all values (dates, amounts, quantities, lists) that training never sees."""
    heldout_per_direction: int = 24
    heldout_interactive: int = 100
    sources: list[Any] = field(default_factory=list)
    """Parallel text and conversations of one's own: paths, or mappings as `SourceConfig` has them.
    They become `SourceConfig` objects when the group is validated."""
    sequence_length: int = 512
    """Tokens in one packed training sequence; a longer conversation is dropped and counted."""
    partition_size: int = 2000
    """Conversations that are built, tokenised and packed together, in one worker's memory."""
    tokenizer_sample: int = 8000
    """Conversations that the tokenizer is trained on, where the model brings none."""

    def validate(self) -> None:
        self.sources = source_configs(self.sources)
        self.languages = [languages.parse(code) for code in self.languages]
        repeated = {tag for tag in self.languages if self.languages.count(tag) > 1}
        if repeated:
            raise UserError(f"data.languages names {', '.join(sorted(repeated))} twice")
        if len(self.languages) < 2:
            raise UserError("data.languages needs at least two languages to translate between")
        if not any(tag in PIVOTS for tag in self.languages):
            raise UserError(
                "data.languages needs en or zh: every training pair has one of them on one side"
            )
        for key in ("interactive_share", "chinese_prompts"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"data.{key} must lie between 0 and 1, not {getattr(self, key)}")
        if not 0 < self.heldout_share <= 0.5:
            raise UserError(
                f"data.heldout_share must be above 0 and at most 0.5, not {self.heldout_share}"
            )
        for key in (
            "conversations",
            "heldout_per_direction",
            "partition_size",
            "tokenizer_sample",
        ):
            if getattr(self, key) < 1:
                raise UserError(f"data.{key} must be at least 1, not {getattr(self, key)}")
        if self.max_turns < 2 and self.interactive_share > 0:
            raise UserError("data.max_turns must be at least 2 for interactive conversations")
        if self.heldout_interactive < 0:
            raise UserError("data.heldout_interactive cannot be negative")
        if self.sequence_length < 32:
            raise UserError(f"data.sequence_length must be at least 32, not {self.sequence_length}")


def trained_directions(tags: list[str]) -> list[tuple[str, str]]:
    """Source and target of every pair with English or Chinese on one side."""
    return [
        (source, target)
        for source in tags
        for target in tags
        if source != target and (source in PIVOTS or target in PIVOTS)
    ]


def zero_shot_directions(tags: list[str]) -> list[tuple[str, str]]:
    """The directions that are only tested: neither side is English or Chinese."""
    return [
        (source, target)
        for source in tags
        for target in tags
        if source != target and source not in PIVOTS and target not in PIVOTS
    ]
