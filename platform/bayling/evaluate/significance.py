"""Intervals of figures, and whether the difference of two systems is more than chance.

Intervals are percentiles of the (paired) bootstrap over items (Koehn 2004). Tests are
approximate randomisation (Riezler & Maxwell 2005): where the two systems were equally good, each
item's two answers could as well have been given the other way round. Its rate of false alarms is
right for any number of items, which that of the bootstrap is not for a dozen sentences. sacreBLEU
has both tests for two-sided questions and files; these are for one-sided questions, for every
figure, and a hundred times faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bayling.evaluate.samples import Array, Sample
from bayling.multiplicity import holm

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 20231
_CHUNK = 5000
_TRIALS = 50_000
_HITS = 20
"""Trials as extreme as what was seen, after which more of them change nothing that matters."""
_EXACT = 13
"""Up to as many items that differ, all swaps are tried."""


@dataclass(frozen=True)
class Difference:
    """A figure of one system beside the same of a baseline."""

    value: float
    baseline: float
    low: float
    """Ends of the 95 % interval of `value - baseline`."""
    high: float
    p_worse: float
    """How likely equally good systems are to differ as much to the disadvantage of this one."""
    p_better: float
    items: int

    @property
    def difference(self) -> float:
        return self.value - self.baseline

    @property
    def p(self) -> float:
        """Of a difference of this size in either direction."""
        return min(1.0, 2 * min(self.p_worse, self.p_better))

    def as_dict(self) -> dict[str, Any]:
        fields = ("value", "baseline", "difference", "low", "high", "p_worse", "p_better", "items")
        return {name: getattr(self, name) for name in fields}


def interval(sample: Sample) -> tuple[float, float]:
    """The ends of the 95 % interval of a figure."""
    if len(sample) == 0:
        raise ValueError("a figure of no items has no interval")
    return _percentiles(_resampled(sample))


def difference(sample: Sample, baseline: Sample) -> Difference:
    """Compare two systems' answers to the same items.

    Raises:
        ValueError: they are not samples of one figure with as many items.
    """
    if sample.figure != baseline.figure or len(sample) != len(baseline) or not len(sample):
        raise ValueError(
            f"{len(sample)} items of {sample.figure} cannot be paired with {len(baseline)} of "
            f"{baseline.figure}"
        )
    low, high = _percentiles(_resampled(sample) - _resampled(baseline))
    below, above = _randomised(sample, baseline)
    worse, better = (below, above) if sample.higher_is_better else (above, below)
    return Difference(sample.value, baseline.value, low, high, worse, better, len(sample))


def corrected(differences: Mapping[str, Difference], *, worse: bool = True) -> dict[str, float]:
    """Holm's correction over named differences, of their one-sided p-values."""
    names = list(differences)
    values = [differences[name].p_worse if worse else differences[name].p for name in names]
    return dict(zip(names, holm(values), strict=True))


@lru_cache(maxsize=4)
def _draws(items: int) -> npt.NDArray[np.float32]:
    """How often each item is drawn in each resample. Equal for equal numbers: it is paired."""
    rng = np.random.default_rng(_SEED)
    counts = rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES)
    return counts.astype(np.float32)


def _resampled(sample: Sample) -> Array:
    sums = _draws(len(sample)).astype(np.float64) @ sample.items
    return sample.of_sums(sums)


def _percentiles(values: Array) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _randomised(sample: Sample, baseline: Sample) -> tuple[float, float]:
    """The p-values of a difference as low, and as high, as the one that was seen."""
    change = baseline.items - sample.items
    change = change[np.any(change != 0, axis=1)]
    if not len(change):
        return 1.0, 1.0
    narrow = change.astype(np.float32)
    own, other = sample.items.sum(0), baseline.items.sum(0)
    seen = float(sample.of_sums(own) - baseline.of_sums(other))
    slack = 1e-9 * max(1.0, abs(seen))

    def exchanged(swapped: npt.NDArray[np.bool_]) -> Array:
        moved = (swapped.astype(np.float32) @ narrow).astype(np.float64)
        return sample.of_sums(own + moved) - baseline.of_sums(other - moved)

    def extreme(found: Array) -> npt.NDArray[np.int64]:
        return np.array([np.sum(found <= seen + slack), np.sum(found >= seen - slack)])

    if len(change) <= _EXACT:
        numbers = np.arange(2 ** len(change))[:, None]
        hits = extreme(exchanged((numbers >> np.arange(len(change)) & 1).astype(bool)))
        below, above = hits / len(numbers)
        return float(below), float(above)
    rng = np.random.default_rng(_SEED)
    hits, trials, squares = np.zeros(2, dtype=np.int64), 0, 0.0
    while trials < _TRIALS and hits.min() < _HITS:
        found = exchanged(rng.integers(2, size=(_CHUNK, len(change)), dtype=bool))
        hits, squares = hits + extreme(found), squares + float(np.square(found).sum())
        trials += _CHUNK
    counted = (hits + 1) / (trials + 1)
    # What no trial reached is rarer than they can count, and has to be where hundreds of directions
    # are corrected for. How rare says Hoeffding's inequality, of sums of exchanges around 0.
    bound = np.exp(-seen * seen * trials / (2 * squares)) if squares else 1.0
    below, above = np.where(hits == 0, np.minimum(counted, bound), counted)
    return float(below), float(above)
