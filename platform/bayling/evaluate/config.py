"""The `evaluate` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from bayling.engines.options import EngineName
from bayling.errors import UserError


@dataclass
class EvaluateConfig:
    """How a model is asked. Decoding is greedy, so the same model gives the same scores."""

    name: str = "heldout"
    engine: EngineName = EngineName.auto
    max_new_tokens: int = 64
    max_batch: int = 64
    """Prompts that one engine answers at once; bounds its memory."""
    shard_size: int = 128
    """Prompts handed to an engine at a time."""

    def validate(self) -> None:
        for key in ("max_new_tokens", "max_batch", "shard_size"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluate.{key} must be at least 1, not {getattr(self, key)}")
