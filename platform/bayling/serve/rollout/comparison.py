"""Whether a version is worse than another one on the same traffic, as good, or not known yet.

Each measure has a tolerance: what a new version may lose. It is *worse* when the lower limit of
what it lost lies beyond that, *as good* when the upper limit lies within, and undecided between:
too few samples never count as success.

A rollout looks at the samples again and again, and each look is a chance to be wrong. So the looks
are fixed beforehand, at numbers of requests that double, and each has its own part of the error
allowed: the k-th one 6/(π²k²), all of them together 1 however long it goes on. For *worse*, which
any measure at any look can say, the parts are divided by the measures and the steps as well
(Bonferroni), so that `wrong_rollbacks` holds for the rollout as a whole, whatever depends on what.
For *as good* all measures have to say so in every step: each at the full level errs no more often
than one alone (Berger 1982, Technometrics 24:295). Why not a sequential test of one statistic
(O'Brien–Fleming and such): they need the last number of samples beforehand, and traffic has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bayling.serve.rollout import intervals
from bayling.serve.rollout.config import RolloutConfig

_EARLY = 8
"""The first look comes when this part of the samples needed is there: it can only roll back."""


@dataclass(frozen=True)
class Traffic:
    """What one version did within some time."""

    requests: int = 0
    errors: int = 0
    """Requests that failed by the server's fault."""
    ttft_s: tuple[float, ...] = ()
    """Seconds to the first token, a sample for each request that was measured."""
    tpot_s: tuple[float, ...] = ()
    """Seconds for each token after the first, on average over an answer."""
    judged: int = 0
    """Answers whose language or script could be told."""
    off_target: int = 0
    """Those of them in the wrong one."""


class Verdict(StrEnum):
    as_good = "as good"
    worse = "worse"
    undecided = "undecided"
    unmeasured = "unmeasured"
    """Neither version has a sample: this traffic has no such thing."""


@dataclass(frozen=True)
class Finding:
    """What one measure says."""

    measure: str
    """A key of `MEASURES`."""
    verdict: Verdict
    base: float
    candidate: float
    lower: float
    """Of the difference between shares, or of the ratio of times; as `upper` and `tolerance`."""
    upper: float
    tolerance: float
    samples: int
    """The candidate's."""

    def sentence(self) -> str:
        """The figures, for a person."""
        name = MEASURES[self.measure]
        if not self.samples:
            return f"{name}: no samples"
        if self.measure in ("errors", "off_target"):
            return (
                f"{name}: {self.candidate:.1%} after {self.base:.1%} (between {self.lower:+.1%} "
                f"and {self.upper:+.1%}, {self.tolerance:+.1%} is allowed)"
            )
        most = "any" if math.isinf(self.upper) else f"×{self.upper:.2f}"
        return (
            f"{name}: {self.candidate * 1000:.0f} ms after {self.base * 1000:.0f} ms (between "
            f"×{self.lower:.2f} and {most}, ×{self.tolerance:g} is allowed)"
        )


MEASURES = {
    "errors": "failed requests",
    "off_target": "answers in the wrong language or script",
    "ttft_median": "time to the first token, median",
    "ttft_p90": "time to the first token, slowest tenth",
    "tpot_median": "time per token, median",
    "tpot_p90": "time per token, slowest tenth",
}
"""Measure → how a sentence calls it."""


@dataclass(frozen=True)
class Looks:
    """When a step's samples are looked at, and how sure a verdict must be."""

    min_samples: int
    wrong_rollbacks: float
    wrong_promotions: float
    steps: int

    @staticmethod
    def of(config: RolloutConfig) -> Looks:
        return Looks(
            config.min_samples,
            config.wrong_rollbacks,
            config.wrong_promotions,
            len(config.steps),
        )

    def due(self, requests: int) -> int:
        """The last look that so many requests of the candidate are enough for; 0 before any."""
        first = max(1, self.min_samples // _EARLY)
        return 0 if requests < first else int(math.log2(requests / first) + 1e-9) + 1

    def next(self, look: int) -> int:
        """The requests that the look after `look` needs."""
        return max(1, self.min_samples // _EARLY) << look

    def enough(self, requests: int) -> bool:
        """Whether so many can show that a version is as good."""
        return requests >= self.min_samples

    def level_worse(self, look: int) -> float:
        """How often a measure may be called worse by chance in one look."""
        return self.wrong_rollbacks / self.steps / len(MEASURES) * _part(look)

    def level_good(self, look: int) -> float:
        """How often a measure may be called as good by chance in one look."""
        early = self.due(self.min_samples) - 1  # those cannot
        return self.wrong_promotions * _part(max(1, look - early))


def _part(look: int) -> float:
    return 6 / (math.pi * look) ** 2


def compare(
    candidate: Traffic, base: Traffic, config: RolloutConfig, looks: Looks, look: int
) -> list[Finding]:
    """What each measure says at a look.

    Args:
        look: its number, from 1.
    """
    worse, good = looks.level_worse(look), looks.level_good(look)
    enough = looks.enough(candidate.requests)

    def finding(
        measure: str,
        limits: intervals.Limits,
        values: tuple[float, float],
        tolerance: float,
        n: int,
    ) -> Finding:
        verdict = Verdict.undecided
        if limits.lower > tolerance:
            verdict = Verdict.worse
        elif limits.upper < tolerance and enough:
            verdict = Verdict.as_good
        own, other = values
        return Finding(measure, verdict, other, own, limits.lower, limits.upper, tolerance, n)

    def shares(measure: str, own: tuple[int, int], other: tuple[int, int], most: float) -> Finding:
        values = (own[0] / own[1] if own[1] else 0.0, other[0] / other[1] if other[1] else 0.0)
        if not own[1] and not other[1]:
            return Finding(measure, Verdict.unmeasured, 0.0, 0.0, -1.0, 1.0, most, 0)
        limits = intervals.difference_of_shares(*own, *other, worse, good)
        return finding(measure, limits, values, most, own[1])

    def times(measure: str, own: tuple[float, ...], other: tuple[float, ...], q: float) -> Finding:
        most = config.max_latency_ratio
        if not own or not other:
            verdict = Verdict.undecided if own or other else Verdict.unmeasured
            return Finding(measure, verdict, 0.0, 0.0, 0.0, math.inf, most, len(own))
        ordered, base_ordered = sorted(own), sorted(other)
        limits = intervals.ratio_of_quantiles(ordered, base_ordered, q, worse, good)
        values = intervals.quantile_of(ordered, q), intervals.quantile_of(base_ordered, q)
        return finding(measure, limits, values, most, len(own))

    return [
        shares(
            "errors",
            (candidate.errors, candidate.requests),
            (base.errors, base.requests),
            config.max_error_increase,
        ),
        shares(
            "off_target",
            (candidate.off_target, candidate.judged),
            (base.off_target, base.judged),
            config.max_off_target_increase,
        ),
        times("ttft_median", candidate.ttft_s, base.ttft_s, 0.5),
        times("ttft_p90", candidate.ttft_s, base.ttft_s, 0.9),
        times("tpot_median", candidate.tpot_s, base.tpot_s, 0.5),
        times("tpot_p90", candidate.tpot_s, base.tpot_s, 0.9),
    ]


def overall(findings: list[Finding]) -> Verdict:
    """All measures together: the first that is worse decides, and one undecided holds."""
    verdicts = {finding.verdict for finding in findings}
    if Verdict.worse in verdicts:
        return Verdict.worse
    if Verdict.undecided in verdicts or Verdict.as_good not in verdicts:
        return Verdict.undecided
    return Verdict.as_good


def rates(traffic: Mapping[str, Traffic]) -> dict[str, dict[str, float | int | None]]:
    """Each version's figures as a person reads them: shares, seconds, None without samples."""

    def share(hits: int, of: int) -> float | None:
        return round(hits / of, 4) if of else None

    def quantile(samples: tuple[float, ...], q: float) -> float | None:
        return round(intervals.quantile_of(sorted(samples), q), 4) if samples else None

    return {
        version: {
            "requests": one.requests,
            "errors": share(one.errors, one.requests),
            "off_target": share(one.off_target, one.judged),
            "ttft_median": quantile(one.ttft_s, 0.5),
            "ttft_p90": quantile(one.ttft_s, 0.9),
            "tpot_median": quantile(one.tpot_s, 0.5),
            "tpot_p90": quantile(one.tpot_s, 0.9),
        }
        for version, one in traffic.items()
    }
