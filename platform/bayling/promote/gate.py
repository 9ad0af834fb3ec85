"""The gate: rules that compare a candidate with the model it would replace.

Every rule gives its number, its limit and a sentence, whether it passes or not: a refusal must
be clear to whoever reads it on the model's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayling.promote.config import PromoteConfig

Scores = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What one rule says."""

    rule: str
    passed: bool
    value: float
    limit: float
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and why."""

    accepted: bool
    baseline: str
    """What the candidate was compared with: `champion (version 3)`, or `untrained model`."""
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> list[str]:
        """The sentences of the rules that failed."""
        return [finding.sentence for finding in self.findings if not finding.passed]

    def markdown(self) -> str:
        """For the version's description."""
        word = "accepted" if self.accepted else "refused"
        lines = [f"**Gate: {word}**, compared with the {self.baseline}.", ""]
        lines += [
            f"- {'✓' if finding.passed else '✗'} {finding.sentence}" for finding in self.findings
        ]
        return "\n".join(lines) + "\n"


def judge(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Verdict:
    """Apply every rule.

    Args:
        candidate: the candidate's scores, `baseline` the other model's on the same test set.
        name: how sentences call the baseline.
    """
    findings = tuple(rule(candidate, baseline, name, config) for rule in RULES)
    return Verdict(all(finding.passed for finding in findings), name, findings)


def _floor(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    value = candidate["overall"]["chrf"]
    return Finding(
        "min_chrf",
        value >= config.min_chrf,
        value,
        config.min_chrf,
        f"chrF++ over the trained directions is {value:.1f}, "
        f"at least {config.min_chrf:.1f} is asked",
    )


def _off_target(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    value = candidate["overall"]["off_target"]
    return Finding(
        "max_off_target",
        value <= config.max_off_target,
        value,
        config.max_off_target,
        f"{value:.1%} of the answers are in the wrong language or script, "
        f"at most {config.max_off_target:.1%} may be",
    )


def _chrf(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    new, old = candidate["overall"]["chrf"], baseline["overall"]["chrf"]
    return Finding(
        "max_chrf_loss",
        new >= old - config.max_chrf_loss,
        old - new,
        config.max_chrf_loss,
        f"chrF++ over the trained directions is {new:.1f}, after {old:.1f} for the {name} "
        f"(it may be {config.max_chrf_loss:g} lower)",
    )


def _direction(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    before = {
        (row["source_lang"], row["target_lang"]): row["chrf"] for row in baseline["directions"]
    }
    losses = [
        (before[pair] - row["chrf"], pair, row["chrf"])
        for row in candidate["directions"]
        if not row["zero_shot"] and (pair := (row["source_lang"], row["target_lang"])) in before
    ]
    loss, (source, target), chrf = max(losses)
    return Finding(
        "max_direction_loss",
        loss <= config.max_direction_loss,
        loss,
        config.max_direction_loss,
        f"the direction that lost most against the {name} is {source} → {target}, chrF++ "
        f"{chrf:.1f} after {chrf + loss:.1f} (it may be {config.max_direction_loss:g} lower)"
        if loss > 0
        else f"no trained direction is worse than for the {name}",
    )


def _exact(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    new, old = candidate["overall"]["exact_match"], baseline["overall"]["exact_match"]
    return Finding(
        "max_exact_match_loss",
        new >= old - config.max_exact_match_loss,
        old - new,
        config.max_exact_match_loss,
        f"{new:.1%} of the answers are exactly right, after {old:.1%} for the {name} "
        f"(it may be {100 * config.max_exact_match_loss:g} points lower)",
    )


def _interactive(candidate: Scores, baseline: Scores, name: str, config: PromoteConfig) -> Finding:
    new = candidate["interactive"].get("interactive_satisfaction")
    old = baseline["interactive"].get("interactive_satisfaction")
    if new is None or old is None:
        return Finding(
            "max_interactive_loss",
            True,
            0.0,
            config.max_interactive_loss,
            "no interactive conversations were asked",
        )
    return Finding(
        "max_interactive_loss",
        new >= old - config.max_interactive_loss,
        old - new,
        config.max_interactive_loss,
        f"{new:.1%} of the interactive turns meet their requirements, after {old:.1%} for the "
        f"{name} "
        f"(it may be {100 * config.max_interactive_loss:g} points lower)",
    )


RULES: tuple[Callable[[Scores, Scores, str, PromoteConfig], Finding], ...] = (
    _floor,
    _off_target,
    _chrf,
    _direction,
    _exact,
    _interactive,
)
