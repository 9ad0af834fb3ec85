"""Tells a bad step from a good one: a loss or gradient that is no number, or a loss that jumps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

_WINDOW = 50
_ENOUGH = 20
"""Losses needed before a jump can be told from the way down at the start."""


class Guard:
    """Remembers recent losses; every worker has one and comes to the same verdict.

    A spike is a loss above `factor` times the mean of the last 50.
    """

    def __init__(self, factor: float, losses: Sequence[float] = ()) -> None:
        self._factor = factor
        self._recent: deque[float] = deque(losses, maxlen=_WINDOW)

    def judge(self, loss: float) -> str | None:
        """What is wrong with a step of this loss, before its gradient is applied; None: nothing."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if len(self._recent) >= _ENOUGH:
            mean = sum(self._recent) / len(self._recent)
            if loss > self._factor * mean:
                return f"the loss is {loss:.4g}, {loss / mean:.1f} times its recent mean"
        return None

    def accept(self, loss: float) -> None:
        """A step with this loss was applied."""
        self._recent.append(loss)

    @property
    def losses(self) -> list[float]:
        """What `Guard(factor, losses)` goes on from."""
        return list(self._recent)
