"""How answers are made: a part of what a figure means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """How answers are made. Part of what a figure means."""

    max_new_tokens: int
    temperature: float = 0.0
    beams: int = 1
    seed: int = 1
    """Of sampling."""

    def __str__(self) -> str:
        if self.beams > 1:
            how = f"beam search with {self.beams} beams"
        elif self.temperature:
            how = f"sampling at temperature {self.temperature:g}"
        else:
            how = "greedy"
        return f"{how}, at most {self.max_new_tokens} new tokens"
