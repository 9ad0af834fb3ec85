"""Which language is to blame, where several have become worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bayling.multiplicity import fisher
from bayling.promote.evaluation import Compared


def language_of(group: Compared) -> str:
    """The language that an `into` or `from` group is about."""
    return (group.target_lang if group.kind == "into" else group.source_lang) or group.group


def culprits(
    worse: Sequence[Compared], directions: Sequence[Compared], margin: float, level: float
) -> tuple[dict[str, list[Compared]], list[Compared]]:
    """Tell the languages that lost from those that others draw down.

    Where Hindi breaks, `from en` falls too, because Hindi is one of the languages that English is
    translated into. So the language that lost most is named first, and another one only if it
    lost as clearly in its directions without those named.

    Args:
        worse: `into` and `from` groups that failed, the worst first.
        directions: all directions that were compared.
        margin: what may be lost, and `level` how much chance a loss may leave.

    Returns:
        Language → its groups, the worst first; and the groups of languages that are drawn down.
    """
    sides: dict[str, list[Compared]] = {}
    for group in worse:
        sides.setdefault(language_of(group), []).append(group)
    named: dict[str, list[Compared]] = {}
    drawn: list[Compared] = []
    for language, groups in sides.items():
        own = [
            group
            for group in groups
            if not named or _lost_without(named, group, directions, margin, level)
        ]
        if own:
            named[language] = own
        drawn += [group for group in groups if group not in own]
    return named, drawn


def _lost_without(
    named: Iterable[str],
    group: Compared,
    directions: Sequence[Compared],
    margin: float,
    level: float,
) -> bool:
    """Whether a group's directions that have none of the named languages lost, too; it is taken to
    be so where there are no such directions, because then nothing tells the languages apart."""
    out = set(named)
    rest = []
    for one in directions:
        own, other = one.source_lang, one.target_lang
        if group.kind == "into":
            own, other = other, own
        if own == language_of(group) and other not in out:
            rest.append(one)
    if not rest:
        return True
    # Directions have no sentence in common, so what chance says of each can be put together.
    loss = sum(one.loss * one.items for one in rest) / sum(one.items for one in rest)
    return loss > margin and fisher([one.p_worse for one in rest]) <= level
