"""The `train` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bayling.errors import UserError


class Precision(Enum):
    bf16 = "bf16"
    fp32 = "fp32"


@dataclass
class TrainConfig:
    """How a model is fine-tuned. Nothing here depends on the number of workers."""

    name: str = "default"
    steps: int | None = None
    """Optimizer steps; without them `epochs` decides."""
    epochs: float = 1.0
    global_batch: int = 8
    """Packed sequences in one optimizer step, over all workers together."""
    micro_batch: int = 4
    """Sequences that one worker takes through the network at once; bounds its memory."""
    learning_rate: float = 2e-3
    """The highest, reached after the warm-up."""
    final_learning_rate: float = 0.02
    """What the cosine ends at, as a part of `learning_rate`."""
    warmup: float = 0.03
    """The part of all steps in which the learning rate rises."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """The largest norm of a gradient."""
    precision: Precision = Precision.bf16
    zero_stage: int = 2
    """DeepSpeed ZeRO: 0 keeps everything everywhere, 1 splits the optimizer's state, 2 the
    gradients too, 3 the weights too."""
    gradient_checkpointing: bool = False
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    log_every: int = 10
    max_failures: int = 3
    """How often a run goes on from its last checkpoint after a worker is lost."""

    def validate(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UserError(f"train.steps must be at least 1, not {self.steps}")
        if self.epochs <= 0:
            raise UserError(f"train.epochs must be above 0, not {self.epochs}")
        for key in (
            "global_batch",
            "micro_batch",
            "checkpoint_every",
            "keep_checkpoints",
            "log_every",
        ):
            if getattr(self, key) < 1:
                raise UserError(f"train.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("learning_rate", "clip"):
            if getattr(self, key) <= 0:
                raise UserError(f"train.{key} must be above 0, not {getattr(self, key)}")
        for key in ("final_learning_rate", "warmup"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"train.{key} must lie between 0 and 1, not {getattr(self, key)}")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"train.{key} must be at least 0 and below 1")
        if self.weight_decay < 0:
            raise UserError(f"train.weight_decay cannot be negative: {self.weight_decay}")
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError(f"train.zero_stage must be 0, 1, 2 or 3, not {self.zero_stage}")
        if self.max_failures < 0:
            raise UserError(f"train.max_failures cannot be negative: {self.max_failures}")
