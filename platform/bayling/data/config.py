"""The `data` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bayling import languages
from bayling.data.cleaning.config import CleaningConfig
from bayling.data.mixture import MixtureConfig
from bayling.data.sources.config import source_config, source_configs
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
    sources: list[Any] = field(default_factory=list)
    """Parallel text and conversations of one's own: paths, or mappings as `SourceConfig` has them.
    They become `SourceConfig` objects when the group is validated. Without any, all is built from
    CLDR."""
    decontaminate: list[Any] = field(default_factory=list)
    """Test sets, as in `sources`: nothing of them is trained on."""
    pivots_only: bool = True
    """Train on sentence pairs of `sources` only if English or Chinese is on one side, as BayLing 2
    does; the other directions are left to transfer. Such pairs are counted, not kept."""
    cldr_share: float | None = None
    """The part of the conversations that is built from CLDR: with sources none unless it is set,
    without sources all."""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    interactive_share: float = 0.3
    """The part of the conversations that goes on after the first translation."""
    max_turns: int = 4
    """The most user turns of one conversation."""
    chinese_prompts: float = 0.25
    """The part of the conversations whose instructions are Chinese; the rest are English."""
    source_prompts: float = 0.1
    """The part of the instructions about sentences from `sources` that are in the language of the
    sentence, and of those in the language that it is translated to."""
    target_prompts: float = 0.1
    heldout_share: float = 0.1
    """The part of all values (dates, amounts, quantities, lists) that training never sees."""
    heldout_per_direction: int = 24
    heldout_interactive: int = 100
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
        for key in ("interactive_share", "chinese_prompts", "source_prompts", "target_prompts"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"data.{key} must lie between 0 and 1, not {getattr(self, key)}")
        if self.chinese_prompts + self.source_prompts + self.target_prompts > 1:
            raise UserError(
                "data.chinese_prompts, source_prompts and target_prompts are together more than 1"
            )
        if self.cldr_share is not None and not 0 <= self.cldr_share <= 1:
            raise UserError(f"data.cldr_share must lie between 0 and 1, not {self.cldr_share:g}")
        if self.cldr_share is not None and self.cldr_share < 1 and not self.sources:
            raise UserError(f"data.cldr_share={self.cldr_share:g}: the rest needs data.sources")
        if self.decontaminate and not self.sources:
            raise UserError("data.decontaminate is for data.sources: CLDR's tests are its own")
        self.decontaminate = [
            source_config(one, f"data.decontaminate[{index}]")
            for index, one in enumerate(self.decontaminate)
        ]
        self.cleaning.validate()
        self.mixture.validate()
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

    @property
    def from_cldr(self) -> int:
        """Conversations that are built from CLDR."""
        share = (0.0 if self.sources else 1.0) if self.cldr_share is None else self.cldr_share
        return round(self.conversations * share)


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
