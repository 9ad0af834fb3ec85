"""The keys of `data.cleaning`."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from bayling.errors import UserError

STEPS = (
    "empty",
    "identical",
    "length",
    "ratio",
    "markup",
    "script",
    "language",
    "contaminated",
    "duplicate",
    "near duplicate",
    "boilerplate",
)
"""In the order in which they look at a pair."""


@dataclass
class CleaningConfig:
    """What a sentence pair must be like to be trained on."""

    skip: list[str] = field(default_factory=list)
    """Steps that are left out, by name."""
    max_characters: int = 2000
    """Of one side of a pair."""
    max_turn_characters: int = 20000
    """Of one turn of a conversation."""
    max_ratio: float = 3.0
    """How many times longer one side may be than the other would lead to expect, each language
    taken at its usual length; twice that where both are shorter than 20 characters."""
    min_script_share: float = 0.3
    """Of a side's letters in its language's script. Chinese may be full of Latin names."""
    min_language_probability: float = 0.02
    """That a side is in its language, among all that the detector knows."""
    near_duplicate: float = 0.85
    """Two pairs that share so much of their character 5-grams (Jaccard) count as one."""
    boilerplate_after: int = 20
    """A sentence that stands beside more different ones than this is no translation of them."""
    shared_ngram: int = 10
    """Words (for scripts without spaces: characters) in a row that a pair may not share with a
    test set; a sentence of a test set that is shorter may not be there as a whole."""

    def validate(self) -> None:
        for name in self.skip:
            if name not in STEPS:
                near = get_close_matches(name, STEPS, n=1)
                hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(STEPS)}"
                raise UserError(f"data.cleaning.skip: there is no step {name!r}{hint}")
        for key in ("max_characters", "max_turn_characters", "boilerplate_after"):
            if getattr(self, key) < 1:
                raise UserError(f"data.cleaning.{key} must be at least 1, not {getattr(self, key)}")
        if self.max_ratio < 1:
            raise UserError(f"data.cleaning.max_ratio must be at least 1, not {self.max_ratio:g}")
        if self.shared_ngram < 3:
            raise UserError(
                f"data.cleaning.shared_ngram={self.shared_ngram}: fewer than 3 words in a row are "
                "shared by texts that have nothing else in common"
            )
        for key in ("min_script_share", "min_language_probability", "near_duplicate"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(
                    f"data.cleaning.{key} must lie between 0 and 1, not {getattr(self, key):g}"
                )
        if self.near_duplicate < 0.5:
            raise UserError(
                f"data.cleaning.near_duplicate={self.near_duplicate:g}: what shares less than half "
                "is no duplicate, and would not be found"
            )
