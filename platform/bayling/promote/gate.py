"""The gate: rules that compare a candidate with the model it would replace.

A rule that compares refuses where a loss is beyond its threshold and more than chance explains.
The chance that equally good models are refused, `false_refusals`, is divided by the number of
these rules (Bonferroni), and within one that looks at many directions by Holm's method, so that it
holds for all of them together. Every rule gives its number, its limit and a sentence, whether it
passes or not: a refusal must be clear to whoever reads it on the model's page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bayling.errors import UserError
from bayling.multiplicity import holm
from bayling.promote import wording
from bayling.promote.config import PromoteConfig
from bayling.promote.culprits import culprits
from bayling.promote.evaluation import EXAMS, OTHERS, TRANSLATIONS, Compared, Evaluation


@dataclass(frozen=True)
class Finding:
    """What one rule says of one suite."""

    rule: str
    """The threshold's key in the configuration."""
    suite: str
    """Empty for rules that look at no suite."""
    passed: bool
    value: float
    limit: float
    sentence: str
    groups: tuple[str, ...] = ()
    """Directions or languages that failed it."""

    @property
    def key(self) -> str:
        """Names the finding in tags and metrics."""
        return f"{self.suite}.{self.rule}" if self.suite else self.rule


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and why."""

    accepted: bool
    baseline: str
    """What the candidate was compared with: `champion (version 3)`, or `untrained model`."""
    findings: tuple[Finding, ...]
    silent: tuple[str, ...]
    """What could not be looked at, in words."""
    false_refusals: float
    level: float
    """The part of it that each rule that compares may spend."""

    @property
    def reasons(self) -> list[str]:
        """The sentences of the rules that failed."""
        return [finding.sentence for finding in self.findings if not finding.passed]

    @property
    def word(self) -> str:
        return "accepted" if self.accepted else "refused"

    def markdown(self) -> str:
        """For the version's description."""
        lines = [f"**Gate: {self.word}**, compared with the {self.baseline}.", ""]
        lines += [
            f"- {'✓' if finding.passed else '✗'} {finding.sentence}" for finding in self.findings
        ]
        lines += ["", *([f"Not looked at: {', '.join(self.silent)}.", ""] if self.silent else [])]
        lines += [wording.promise(self.level, self.false_refusals, self.baseline)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Share:
    """A share that must not fall, of all that a suite asks."""

    rule: str
    suites: tuple[str, ...]
    figure: str
    what: str
    """How a sentence goes on after the share."""


_SHARES = (
    _Share(
        "max_exact_match_loss", TRANSLATIONS, "exact_match", "of the translations are exactly right"
    ),
    _Share(
        "max_interactive_loss",
        ("interactive",),
        "satisfied",
        "of the turns in interactive translation meet their requirements",
    ),
    _Share(
        "max_constraints_loss",
        ("constrained",),
        "constraints_met",
        "of the words that had to appear in a translation do",
    ),
    _Share("max_knowledge_loss", EXAMS, "accuracy", "of the exam questions are right"),
    _Share(
        "max_safety_loss",
        ("safety",),
        "satisfied",
        "of the answers to the safety questions are as they should be",
    ),
)


@dataclass(frozen=True)
class _Test:
    """A rule that compares, before it is known how much chance it may leave."""

    rule: str
    suite: str
    groups: list[Compared]
    what: str = ""


def judge(evaluation: Evaluation, config: PromoteConfig, licences: Mapping[str, str]) -> Verdict:
    """Apply every rule that the evaluation has figures for.

    Args:
        licences: origin → the licence of the texts that the candidate was trained on.

    Raises:
        UserError: it has figures for none of them.
    """
    tests = list(_tests(evaluation))
    if not tests:
        raise UserError(
            f"the evaluation ran none of the suites that the gate looks at "
            f"({', '.join((*TRANSLATIONS, *OTHERS))}): add one to evaluate.suites"
        )
    level = config.false_refusals / len(tests)
    findings = [*_limits(evaluation, config)]
    for test in tests:
        margin = float(getattr(config, test.rule))
        findings.append(_judged(test, margin, level, evaluation))
    absent = [suite for suite in OTHERS if not evaluation.ran(suite)]
    if not evaluation.translations:
        absent.insert(0, "translations")
    silent = [f"{', '.join(absent)} (not evaluated)"] if absent else []
    findings += _licences(licences, config)
    cost, limit = evaluation.cost_per_million_tokens, config.max_cost_per_million_tokens
    if limit is not None and cost is None:
        silent.append("the cost of tokens (the evaluation knew no price: scale.price_per_gpu_hour)")
    elif limit is not None and cost is not None:
        sentence = f"a million tokens cost {cost:.2f}, at most {limit:.2f} is allowed"
        findings.append(
            Finding("max_cost_per_million_tokens", "", cost <= limit, cost, limit, sentence)
        )
    accepted = all(finding.passed for finding in findings)
    return Verdict(
        accepted,
        evaluation.baseline,
        tuple(findings),
        tuple(silent),
        config.false_refusals,
        level,
    )


def _limits(evaluation: Evaluation, config: PromoteConfig) -> Iterable[Finding]:
    """What a candidate must reach whatever the other model does."""
    for suite in evaluation.translations:
        about = wording.about(suite, evaluation)
        chrf = evaluation.figure(suite, "chrf")
        if chrf is not None and config.min_chrf > 0:
            yield Finding(
                "min_chrf",
                suite,
                chrf >= config.min_chrf,
                chrf,
                config.min_chrf,
                f"{about}chrF++ over the trained directions is {chrf:.1f}, "
                f"at least {config.min_chrf:.1f} is asked",
            )
        share = evaluation.figure(suite, "off_target")
        if share is not None and config.max_off_target < 1:
            yield Finding(
                "max_off_target",
                suite,
                share <= config.max_off_target,
                share,
                config.max_off_target,
                f"{about}{share:.1%} of the answers are in the wrong language or script, "
                f"at most {config.max_off_target:.1%} may be",
            )


def _tests(evaluation: Evaluation) -> Iterable[_Test]:
    for suite in evaluation.translations:
        overall = evaluation.overall(suite, "chrf")
        if overall is None:
            continue
        yield _Test("max_chrf_loss", suite, [overall])
        if languages := evaluation.languages(suite, "chrf"):
            yield _Test("max_language_loss", suite, languages)
        if directions := evaluation.directions(suite, "chrf"):
            yield _Test("max_direction_loss", suite, directions)
    for share in _SHARES:
        for suite in share.suites:
            if (compared := evaluation.overall(suite, share.figure)) is not None:
                yield _Test(share.rule, suite, [compared], share.what)


def _judged(test: _Test, margin: float, level: float, evaluation: Evaluation) -> Finding:
    chances = holm([one.p_worse for one in test.groups])
    # The worst first; of equal ones that which chance explains least.
    ranked = sorted(
        zip(test.groups, chances, strict=True), key=lambda pair: (-pair[0].loss, pair[1])
    )
    failed = [(one, p) for one, p in ranked if one.loss > margin and p <= level]
    worst, chance = failed[0] if failed else ranked[0]
    about, name = wording.about(test.suite, evaluation), evaluation.baseline
    if test.what:
        sentence = wording.of_share(worst, chance, margin, level, test.what, name)
    elif test.rule == "max_chrf_loss":
        sentence = wording.of_chrf(worst, chance, margin, level, name)
    elif test.rule == "max_language_loss" and failed:
        directions = evaluation.directions(test.suite, "chrf")
        named, drawn = culprits([one for one, _ in failed], directions, margin, level)
        sentence = wording.of_languages(named, drawn, margin, name)
        failed = [(one, 0.0) for ones in named.values() for one in ones]
    elif failed:
        worse = [one for one, _ in failed]
        sentence = wording.of_directions(worse, len(test.groups), margin, name)
    else:
        sentence = wording.of_none(worst, chance, len(test.groups), margin, level, name)
    return Finding(
        test.rule,
        test.suite,
        not failed,
        worst.loss,
        margin,
        about + sentence,
        tuple(one.group for one, _ in failed),
    )


def _licences(licences: Mapping[str, str], config: PromoteConfig) -> Iterable[Finding]:
    if not config.allowed_licences:
        return
    allowed = {licence.casefold() for licence in config.allowed_licences}
    wrong = sorted(
        f"{origin} ({licence or 'unknown'})"
        for origin, licence in licences.items()
        if licence.casefold() not in allowed
    )
    listed = ", ".join(config.allowed_licences)
    yield Finding(
        "allowed_licences",
        "",
        not wrong,
        len(wrong),
        0,
        f"training texts come under other licences than {listed}: {', '.join(wrong)}"
        if wrong
        else f"all training texts come under {listed}",
    )
