"""Several tests at once: how sure one may be of each."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected so that the chance that any of them is a false alarm
    stays what one of them says (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def fisher(p_values: Sequence[float]) -> float:
    """The p-value of several independent tests as one: how likely it is that they come out as
    small as they do, taken together, where there is nothing to be found (Fisher 1925).

    1 of no tests.
    """
    # Half of a χ² of twice as many degrees of freedom as there are tests: an Erlang distribution.
    half = -sum(math.log(max(p, 1e-300)) for p in p_values)
    term = total = 1.0
    for k in range(1, len(p_values)):
        term *= half / k
        total += term
    return min(1.0, math.exp(-half) * total)
