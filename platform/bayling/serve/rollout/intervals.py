"""Confidence limits for the difference of two shares and the ratio of two quantiles.

Both are put together from the limits of each side by the same rule, the method of variance
estimates recovery (Zou and Donner 2008, Statistics in Medicine 27:1693). For shares with Wilson's
limits that is Newcombe's hybrid score interval (1998, Statistics in Medicine 17:873, method 10).
For quantiles the limits of one side are order statistics, which hold whatever the distribution of
the samples (Conover, Practical Nonparametric Statistics, section 3.2); the ratio is taken on the
logarithms. No limit needs a normal sample, a random number or a library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Limits:
    """An estimate, and what it lies between: each limit alone errs at the level asked for."""

    estimate: float
    lower: float
    upper: float


def difference_of_shares(
    hits: int, of: int, base_hits: int, base_of: int, lower_level: float, upper_level: float
) -> Limits:
    """The share of `hits` minus the base's, -1 to 1.

    Args:
        lower_level: how often the true difference may be below the lower limit.
        upper_level: how often it may be above the upper one.
    """
    below, above = _z(lower_level), _z(upper_level)
    own_lower, base_upper = wilson(hits, of, below)[0], wilson(base_hits, base_of, below)[1]
    own_upper, base_lower = wilson(hits, of, above)[1], wilson(base_hits, base_of, above)[0]
    own, base = _share(hits, of), _share(base_hits, base_of)
    return _recovered(Limits(own, own_lower, own_upper), Limits(base, base_lower, base_upper))


def ratio_of_quantiles(
    samples: Sequence[float],
    base: Sequence[float],
    quantile: float,
    lower_level: float,
    upper_level: float,
) -> Limits:
    """A quantile of `samples` over the base's; limits are 0 and infinity where there are too few.

    Args:
        samples: positive numbers in ascending order, as `base`.
        quantile: 0.5 for the median.
    """

    def logs(values: Sequence[float], below: float, above: float) -> Limits:
        return Limits(
            _log(quantile_of(values, quantile)),
            _log(_lower(values, quantile, below)),
            _log(_upper(values, quantile, above)),
        )

    own, other = logs(samples, lower_level, upper_level), logs(base, upper_level, lower_level)
    found = _recovered(own, other)
    return Limits(math.exp(found.estimate), math.exp(found.lower), math.exp(found.upper))


def quantile_of(ordered: Sequence[float], quantile: float) -> float:
    """The sample quantile: the smallest value that at least this part of the samples reach."""
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def wilson(hits: int, of: int, z: float) -> tuple[float, float]:
    """Wilson's score limits of a share."""
    if of == 0:
        return 0.0, 1.0
    share, squared = hits / of, z * z
    middle = share + squared / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    width = 1 + squared / of
    return max(0.0, (middle - half) / width), min(1.0, (middle + half) / width)


def _recovered(own: Limits, base: Limits) -> Limits:
    estimate = own.estimate - base.estimate
    return Limits(
        estimate,
        estimate - math.hypot(own.estimate - own.lower, base.upper - base.estimate),
        estimate + math.hypot(own.upper - own.estimate, base.estimate - base.lower),
    )


def _lower(ordered: Sequence[float], quantile: float, level: float) -> float:
    """The order statistic that is above the quantile this often at most; 0 where none is."""
    rank = _rank(len(ordered), quantile, level)
    return ordered[rank - 1] if rank else 0.0


def _upper(ordered: Sequence[float], quantile: float, level: float) -> float:
    """The order statistic that is below the quantile this often at most; infinity where none is."""
    rank = _rank(len(ordered), 1 - quantile, level)
    return ordered[len(ordered) - rank] if rank else math.inf


def _rank(count: int, quantile: float, level: float) -> int:
    """The largest rank whose order statistic is above the quantile with probability `level` or
    less: so many samples or fewer, less one, lie below the quantile."""
    mean, spread = count * quantile, math.sqrt(count * quantile * (1 - quantile))
    first = max(0, math.floor(mean - 12 * spread))  # what lies before adds nothing
    total = 0.0
    for below in range(first, count + 1):
        total += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(below + 1)
            - math.lgamma(count - below + 1)
            + below * math.log(quantile)
            + (count - below) * math.log1p(-quantile)
        )
        if total > level:
            return below
    return count


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _share(hits: int, of: int) -> float:
    return hits / of if of else 0.0


def _z(level: float) -> float:
    return NormalDist().inv_cdf(1 - level)
