"""The `serve.rollout` part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from bayling.errors import UserError


@dataclass
class RolloutConfig:
    """How a new version takes over, and what it must not do worse than the one before it."""

    steps: list[float] = field(default_factory=lambda: [0.05, 0.25, 0.5])
    """The new version's share of the traffic, step by step, before it gets all."""
    min_samples: int = 200
    """Requests that the new version must have answered in each step."""
    min_step_s: float = 300.0
    """How long each step lasts at least, however many requests come."""
    undecided_after_s: float = 7200.0
    """A step that takes longer is called undecided. The version keeps its share, and goes on when
    there is enough to decide by."""
    keep_previous_s: float = 900.0
    """How long the old version stays ready after it was replaced, for an undo at once."""
    max_error_increase: float = 0.02
    """How much larger the share of failed requests may be: 0.02 is 2 in 100."""
    max_off_target_increase: float = 0.05
    """How much larger the share of answers in the wrong language or script may be."""
    max_latency_ratio: float = 1.25
    """How many times as long the first token, and each token after it, may take: by the median
    and by the slowest tenth."""
    wrong_rollbacks: float = 0.05
    """The share of rollouts of a version just as good as the old one that may be rolled back."""
    wrong_promotions: float = 0.05
    """The share of rollouts of a version worse than allowed that may become full."""
    probes: int = 12
    """Translations that a version must answer before it gets traffic, in as many languages."""
    poll_s: float = 2.0
    """How often the controller looks at what runs, and at the registry."""

    def validate(self) -> None:
        """Raise UserError for values that cannot work."""
        shares = self.steps
        if (
            not shares
            or any(not 0 < share < 1 for share in shares)
            or sorted(set(shares)) != shares
        ):
            raise UserError(
                f"serve.rollout.steps={shares} must be growing shares between 0 and 1, such as "
                "[0.05,0.25,0.5]"
            )
        for key in ("min_samples", "probes"):
            if getattr(self, key) < 1:
                raise UserError(f"serve.rollout.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("undecided_after_s", "poll_s"):
            if getattr(self, key) <= 0:
                raise UserError(f"serve.rollout.{key} must be above 0, not {getattr(self, key)}")
        for key in ("min_step_s", "keep_previous_s"):
            if getattr(self, key) < 0:
                raise UserError(f"serve.rollout.{key} must be 0 or more, not {getattr(self, key)}")
        for key in ("max_error_increase", "max_off_target_increase"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(
                    f"serve.rollout.{key} is a share between 0 and 1, not {getattr(self, key)}; "
                    "with none at all no version could ever be shown to be good enough"
                )
        if self.max_latency_ratio <= 1:
            raise UserError(
                f"serve.rollout.max_latency_ratio must be above 1, not {self.max_latency_ratio}: "
                "at 1 no version could ever be shown to be fast enough"
            )
        for key in ("wrong_rollbacks", "wrong_promotions"):
            if not 0 < getattr(self, key) < 0.5:
                raise UserError(
                    f"serve.rollout.{key} is a share above 0 and below 0.5, not "
                    f"{getattr(self, key)}"
                )
