"""What rules found, in sentences for whoever knows languages and no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bayling.languages import name_of
from bayling.promote.evaluation import EXAMS, TRANSLATIONS, Compared, Evaluation

_NAMED = 3
"""Directions or languages that a sentence names; the rest are counted."""
_ALIKE = {
    "heldout": "held-out sentences",
    "translation": "translation suite",
    "knowledge": "exams",
    "harness": "lm-eval's tasks",
}
"""What suites are called whose rules read the same."""


def about(suite: str, evaluation: Evaluation) -> str:
    """Which texts a sentence is about, where that does not go without saying."""
    for alike in (TRANSLATIONS, EXAMS):
        if suite in alike and all(evaluation.ran(one) for one in alike):
            return f"{_ALIKE[suite]}: "
    return ""


def promise(level: float, false_refusals: float, name: str) -> str:
    """What a verdict's rules mean together."""
    return (
        f"A loss counts only where equally good models would show it {often(level, most=True)}; "
        f"so a candidate just as good as the {name} is refused for a loss "
        f"{often(false_refusals, most=True)}."
    )


def often(chance: float, *, most: bool = False) -> str:
    """A probability as a number of comparisons, or, with `most`, as the most there may be."""
    if chance < 1 / 10_000:
        return "in fewer than 1 of 10,000 comparisons"
    limit = "at most " if most else ""
    if chance < 0.095:
        return f"in {limit}1 of {_round(1 / chance):,} comparisons"
    return f"in {limit}{round(100 * chance)} of 100 comparisons"


def of_chrf(one: Compared, chance: float, margin: float, level: float, name: str) -> str:
    return (
        f"chrF++ over the trained directions is {one.value:.1f}, after {one.baseline:.1f} for the "
        f"{name}{_judgement(one, chance, margin, level, f'{margin:g}')}"
    )


def of_share(
    one: Compared, chance: float, margin: float, level: float, what: str, name: str
) -> str:
    allowed = f"{100 * margin:g} points"
    return (
        f"{one.value:.1%} {what}, after {one.baseline:.1%} for the {name}"
        f"{_judgement(one, chance, margin, level, allowed)}"
    )


def of_none(
    worst: Compared, chance: float, number: int, margin: float, level: float, name: str
) -> str:
    """Of many groups none failed."""
    kind = "direction" if worst.kind == "direction" else "language"
    if worst.loss <= 0:
        return f"no {kind} is worse than for the {name}"
    return (
        f"no {kind} lost more than {margin:g} chrF++ and more than chance explains; of {number} "
        f"comparisons the worst is {_named(worst)}, {worst.value:.1f} after {worst.baseline:.1f} "
        f"for the {name}{_judgement(worst, chance, margin, level, f'{margin:g}')}"
    )


def of_directions(worse: Sequence[Compared], number: int, margin: float, name: str) -> str:
    parts = [f"{_named(one)} {one.value:.1f} after {one.baseline:.1f}" for one in worse]
    return (
        f"{len(worse)} of {number} directions lost more than {margin:g} chrF++ against the {name}, "
        f"and more than chance explains: {_listed(parts, ', ')}"
    )


def of_languages(
    named: Mapping[str, Sequence[Compared]], drawn: Sequence[Compared], margin: float, name: str
) -> str:
    parts = []
    for tag, groups in named.items():
        sides = [f"{one.kind} it {one.value:.1f} after {one.baseline:.1f}" for one in groups]
        parts.append(f"{name_of(tag)} (chrF++ {', '.join(sides)})")
    verb = "is" if len(named) == 1 else "are"
    also = ""
    if drawn:
        it = "it" if len(named) == 1 else "them"
        fell = _listed([_named(one) for one in drawn], ", ")
        also = f"; because of {it} these fell too: {fell}"
    return (
        f"{_listed(parts, ', ')} {verb} worse than for the {name}, by more than {margin:g} and "
        f"more than chance explains{also}"
    )


def _named(one: Compared) -> str:
    if one.kind == "direction" and one.source_lang and one.target_lang:
        return f"{name_of(one.source_lang)} → {name_of(one.target_lang)}"
    if one.kind == "into" and one.target_lang:
        return f"into {name_of(one.target_lang)}"
    if one.kind == "from" and one.source_lang:
        return f"from {name_of(one.source_lang)}"
    return one.group


def _listed(parts: Sequence[str], between: str) -> str:
    shown = between.join(parts[:_NAMED])
    more = len(parts) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _judgement(one: Compared, chance: float, margin: float, level: float, allowed: str) -> str:
    """What a loss means; nothing to say where there is none."""
    if one.loss <= 0:
        return ""
    if chance > level:
        return f": chance explains that (equally good models differ as much {often(chance)})"
    real = f"more than chance explains (equally good models differ as much {often(chance)})"
    if one.loss > margin:
        return f": worse, by {real}"
    return f": {real}, but within the {allowed} that may be lost"


def _round(number: float) -> int:
    """To two digits, as nothing more is known."""
    unit: int = 10 ** max(0, len(str(int(number))) - 2)
    return round(number / unit) * unit
