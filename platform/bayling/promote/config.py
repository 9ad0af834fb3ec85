"""The `promote` group of the configuration: the thresholds of the gate."""

from __future__ import annotations

from dataclasses import dataclass

from bayling.errors import UserError


@dataclass
class PromoteConfig:
    """What a candidate must reach, and by how much it may fall behind the model it would replace.

    That model is the champion, or, when there is none, the untrained model. BLEU and chrF++ run
    from 0 to 100, shares from 0 to 1.
    """

    name: str = "default"
    min_chrf: float = 0.0
    """chrF++ over all trained directions together."""
    max_off_target: float = 0.05
    """Answers in the wrong language or script, over all trained directions."""
    max_chrf_loss: float = 0.5
    """How far chrF++ over all trained directions may fall below the other model's."""
    max_direction_loss: float = 8.0
    """How far chrF++ of any one trained direction may fall."""
    max_exact_match_loss: float = 0.03
    max_interactive_loss: float = 0.05
    """How far the share of turns whose requirements are met may fall."""

    def validate(self) -> None:
        if not 0 <= self.min_chrf <= 100:
            raise UserError(f"promote.min_chrf must lie between 0 and 100, not {self.min_chrf}")
        if not 0 <= self.max_off_target <= 1:
            raise UserError(
                f"promote.max_off_target is a share between 0 and 1, not {self.max_off_target}"
            )
        for key in (
            "max_chrf_loss",
            "max_direction_loss",
            "max_exact_match_loss",
            "max_interactive_loss",
        ):
            if getattr(self, key) < 0:
                raise UserError(f"promote.{key} cannot be negative: {getattr(self, key)}")
