"""The `promote` group of the configuration: the thresholds of the gate."""

from __future__ import annotations

from dataclasses import dataclass, field

from bayling.errors import UserError


@dataclass
class PromoteConfig:
    """What a candidate must reach, and by how much it may fall behind the model it would replace.

    That model is the champion, or, when there is none, the untrained model. chrF++ runs from 0
    to 100, shares from 0 to 1. A loss counts where it is beyond its threshold *and* more than
    chance explains; a rule is left out where the evaluation did not run its suite.
    """

    name: str = "default"
    false_refusals: float = 0.05
    """How likely a candidate that is exactly as good as the other model may be to be refused, over
    all comparisons together."""
    min_chrf: float = 0.0
    """chrF++ over all trained directions together, of each suite of translations. 0: no floor."""
    max_off_target: float = 0.02
    """Answers in the wrong language or script, over all trained directions. 1: no limit."""
    max_chrf_loss: float = 0.0
    """How far chrF++ over all trained directions may fall below the other model's."""
    max_direction_loss: float = 1.0
    """How far chrF++ of any one trained direction may fall."""
    max_language_loss: float = 1.0
    """How far chrF++ into or from any one language may fall, its trained directions together."""
    max_exact_match_loss: float = 0.0
    max_interactive_loss: float = 0.0
    """How far the share of turns whose requirements are met may fall."""
    max_constraints_loss: float = 0.0
    """How far the share of words that had to appear, and do, may fall."""
    max_knowledge_loss: float = 0.0
    """How far the share of right answers to exam questions may fall."""
    max_safety_loss: float = 0.0
    """How far the share of answers that the safety suite is content with may fall."""
    allowed_licences: list[str] = field(default_factory=list)
    """Licences that the training texts may come under. Empty: not looked at."""
    max_cost_per_million_tokens: float | None = None
    """In the currency of `scale.price_per_gpu_hour`. None: not looked at."""

    def validate(self) -> None:
        if not 0 < self.false_refusals < 1:
            raise UserError(
                "promote.false_refusals is a probability between 0 and 1, such as 0.05, not "
                f"{self.false_refusals}"
            )
        if not 0 <= self.min_chrf <= 100:
            raise UserError(f"promote.min_chrf must lie between 0 and 100, not {self.min_chrf}")
        if not 0 <= self.max_off_target <= 1:
            raise UserError(
                f"promote.max_off_target is a share between 0 and 1, not {self.max_off_target}"
            )
        for key, value in vars(self).items():
            if key.endswith("_loss") and value < 0:
                raise UserError(f"promote.{key} cannot be negative: {value}")
        most = self.max_cost_per_million_tokens
        if most is not None and most <= 0:
            raise UserError(f"promote.max_cost_per_million_tokens must be above 0, not {most}")
